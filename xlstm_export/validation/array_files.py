"""Arrays that a user gives in numpy's files, whole and read as data."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from xlstm_export.errors import InputError
from xlstm_export.runtime.session import Array


def read_array(path: Path) -> Array:
    """The array of an .npy file. Raises InputError where it holds none, or several."""
    found = _load(path, ".npy", "numpy.save writes one")
    if isinstance(found, dict):
        raise InputError(f"{path}: holds arrays by name, as .npz files do: name it .npz")
    return found


def read_arrays(path: Path) -> dict[str, Array]:
    """The arrays of an .npz file by name. Raises InputError where it holds none."""
    cure = "xlstm_export.record_samples or numpy.savez writes one"
    found = _load(path, ".npz", cure)
    if not isinstance(found, dict):
        raise InputError(f"{path}: holds one array without a name, as .npy files do; {cure}")
    if not found:
        raise InputError(f"{path}: holds no arrays; {cure}")
    return found


def _load(path: Path, kind: str, cure: str) -> Array | dict[str, Array]:
    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return found
        with found:
            return {name: np.asarray(found[name]) for name in found.files}
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # what zipfile, zlib and numpy raise for damage has no common type
        reason = str(error).partition("\n")[0] or type(error).__name__
        told = f"{path}: not a readable {kind} file of numbers ({reason}); {cure}"
        raise InputError(told) from error
