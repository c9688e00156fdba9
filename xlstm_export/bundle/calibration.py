"""``calibration.safetensors`` of a bundle: by what the scales of its weights were chosen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from xlstm_export.bundle.checksum import sha256
from xlstm_export.bundle.low_bit import LowBit
from xlstm_export.errors import BundleError

CALIBRATION_FILE = "calibration.safetensors"

Importance = Mapping[str, npt.NDArray[np.float32]]
"""Mean square of each input [in] of a matrix, by the matrix's name."""


def write_calibration(importance: Importance, folder: Path) -> str:
    """Write the file into ``folder``; return its digest."""
    path = folder / CALIBRATION_FILE
    save_file({name: np.ascontiguousarray(x) for name, x in importance.items()}, path)
    return sha256(path)


def read_calibration(folder: Path, low_bit: LowBit | None) -> dict[str, npt.NDArray[np.float32]]:
    """What the scales were chosen by; empty where they were not calibrated.

    Raises BundleError where the file is missing, or is not that of the manifest.
    """
    if low_bit is None or not low_bit.calibration:
        return {}
    path = folder / CALIBRATION_FILE
    if not path.is_file():
        raise BundleError(f"{path}: missing; a bundle is its whole folder: copy it again")
    if sha256(path) != low_bit.calibration:
        raise BundleError(f"{path}: is not the one that the weights were stored by; export again")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise BundleError(f"{path}: not readable ({error}); export again") from error
