"""The two builders, TensorRT and TensorRT-RTX: which is here, and what it needs to start."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from xlstm_export.environment import install
from xlstm_export.errors import BackendUnavailableError, OptionError

BackendName = Literal["tensorrt", "tensorrt_rtx"]
BACKENDS: tuple[BackendName, ...] = ("tensorrt", "tensorrt_rtx")
PACKAGES: dict[BackendName, str] = {"tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt-rtx"}
"""By the name they are installed by."""
TITLES: dict[BackendName, str] = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}
OLDEST: dict[BackendName, tuple[int, int]] = {"tensorrt": (10, 10), "tensorrt_rtx": (1, 7)}
"""TensorRT-RTX before 1.7 knows no plugins."""

_RTX_LIBRARY = "libtensorrt_rtx.so"


def parse_backend(word: str) -> BackendName:
    """The builder that ``word`` names; rtx is short for tensorrt_rtx. Raises OptionError."""
    names: dict[str, BackendName] = {name: name for name in BACKENDS}
    names["rtx"] = "tensorrt_rtx"
    found = names.get(word.replace("-", "_"))
    if found is None:
        raise OptionError("backend", f"{word} is not one of {', '.join(names)}")
    return found


def choose_backend(wanted: BackendName | None) -> BackendName:
    """The builder to use; TensorRT where a GPU and both builders are here.

    Raises BackendUnavailableError that says what to install.
    """
    if wanted is None:
        wanted = _preferred()
    missing = [name for name in (wanted, "polygraphy") if not _installed(name)]
    if missing:
        raise BackendUnavailableError(
            f"{TITLES[wanted]} engines need {' and '.join(missing)}, not installed here: "
            f"{install(PACKAGES[wanted], 'polygraphy')}{_advice(wanted)}"
        )
    if wanted == "tensorrt" and device_capability() is None:
        raise BackendUnavailableError(
            "TensorRT builds on the GPU that the engine is for, and this machine has no NVIDIA GPU "
            "(or no driver for it): build there, or here for GeForce and RTX GPUs with --backend "
            "tensorrt_rtx --compute-capability 8.9"
        )
    return wanted


def device_capability() -> str | None:
    """Compute capability of the first GPU, such as 8.9; None without GPU or driver."""
    try:
        from cuda.core import Device

        capability = Device(0).compute_capability
    except Exception:  # no package, no driver, no GPU: each raises a type of its own
        return None
    return f"{capability.major}.{capability.minor}"


@contextmanager
def builder_environment(backend: BackendName) -> Iterator[dict[str, str]]:
    """Environment variables for a process that builds with ``backend``; valid in the block.

    TensorRT-RTX's parser opens libtensorrt_rtx.so when it meets the first plugin, and aborts the
    process where that name is not found; its wheel has the library under another name only. So the
    name is made findable, which must be done before the process starts.
    """
    environment = dict(os.environ)
    environment["POLYGRAPHY_USE_TENSORRT_RTX"] = "1" if backend == "tensorrt_rtx" else "0"
    environment["POLYGRAPHY_AUTOINSTALL_DEPS"] = "0"
    with contextlib.ExitStack() as stack:
        library = _rtx_library() if backend == "tensorrt_rtx" else None
        if library is not None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="xlstm-export-"))
            (Path(folder) / _RTX_LIBRARY).symlink_to(library)
            before = environment.get("LD_LIBRARY_PATH")
            environment["LD_LIBRARY_PATH"] = f"{folder}:{before}" if before else folder
        yield environment


def _preferred() -> BackendName:
    if _installed("tensorrt") and device_capability() is not None:
        return "tensorrt"
    return "tensorrt_rtx" if _installed("tensorrt_rtx") else "tensorrt"


def _advice(backend: BackendName) -> str:
    if backend == "tensorrt_rtx":
        return ""
    return (
        " (its libraries come from NVIDIA's own package index), or use --backend tensorrt_rtx, "
        f"which needs no GPU: {install(PACKAGES['tensorrt_rtx'], 'polygraphy')}"
    )


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _rtx_library() -> Path | None:
    """The library in TensorRT-RTX's wheel; None where it comes from elsewhere."""
    spec = importlib.util.find_spec("tensorrt_rtx_libs")
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    found = [path for folder in folders for path in Path(folder).glob(f"{_RTX_LIBRARY}*")]
    return found[0].resolve() if found else None
