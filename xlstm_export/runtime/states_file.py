"""States on disk: one safetensors file that says which bundle they are of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from xlstm_export.bundle.manifest import Manifest
from xlstm_export.errors import InputError
from xlstm_export.output import new_file
from xlstm_export.runtime.states import States, check_states

_FORMAT, _DIGEST = "xlstm_export.states", "bundle_sha256"
_VERSION = "1"


def save_states(states: States, path: Path, manifest: Manifest) -> None:
    """As ``States.save``."""
    check_states(manifest, states, states.batch)
    arrays = {key: np.ascontiguousarray(states[key]) for key in states}
    content = save(arrays, {_FORMAT: _VERSION, _DIGEST: manifest.sha256})
    with new_file(path) as work:
        work.write_bytes(content)


def load_states(path: Path, manifest: Manifest) -> States:
    """As ``States.load``."""
    try:
        with safe_open(path, "numpy") as file:
            about: dict[str, str] = file.metadata() or {}
            _check_about(path, about, manifest)
            arrays: dict[str, Any] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (SafetensorError, ValueError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: holds no saved states ({error})") from error
    states = States({s.key: arrays.pop(s.key) for s in manifest.states if s.key in arrays} | arrays)
    try:
        check_states(manifest, states, states.batch)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return states


def _check_about(path: Path, about: dict[str, str], manifest: Manifest) -> None:
    if about.get(_FORMAT) != _VERSION:
        found = about.get(_FORMAT, "none")
        raise InputError(f"{path}: holds no saved states of version {_VERSION} (found {found})")
    if about.get(_DIGEST, "") != manifest.sha256:
        raise InputError(
            f"{path}: states of another bundle (sha256 {about.get(_DIGEST, '')[:12]}, not "
            f"{manifest.sha256[:12]}); open the bundle they were saved with"
        )
