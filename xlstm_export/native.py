"""The native CPU kernels: where their libraries are, and what the loaded one says about itself."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from pathlib import Path

from xlstm_export import __version__
from xlstm_export.errors import BackendUnavailableError

FOLDER_VARIABLE = "XLSTM_LIBRARY_DIR"
ISA_VARIABLE = "XLSTM_CPU_ISA"
CURE = "build it again with make wheel, or do without: --no-native (in Python native=False)"

_ORT_LIBRARY = "libxlstm_ort.so"
_ORT_CUDA_LIBRARY = "libxlstm_ort_cuda.so"
_C_LIBRARY = "libxlstm_c.so"
_TRT_LIBRARY = "libxlstm_trt.so"
_SESSION_LIBRARY = "libxlstm_session.so"
_CUDA_LIBRARY = "libxlstm_cuda_c.so"


def ort_library_path() -> Path | None:
    """The custom-op library for ``SessionOptions.register_custom_ops_library``; None: not built.

    It lies in the package's folder ``lib``, or in the one that XLSTM_LIBRARY_DIR names. Raises
    BackendUnavailableError where that folder lacks it.
    """
    return _library_path(_ORT_LIBRARY)


def ort_cuda_library_path() -> Path | None:
    """The same with kernels for a GPU beside those for the CPU; as ``ort_library_path``."""
    return _library_path(_ORT_CUDA_LIBRARY)


def c_library_path() -> Path | None:
    """The kernels behind the plain C interface of ``xlstm_c.h``; as ``ort_library_path``."""
    return _library_path(_C_LIBRARY)


def trt_library_path() -> Path | None:
    """The TensorRT plugins, for ``IPluginRegistry::loadLibrary``; as ``ort_library_path``."""
    return _library_path(_TRT_LIBRARY)


def session_library_path() -> Path | None:
    """Sessions for C and C++ programs, behind ``xlstm_session.h``; as ``ort_library_path``."""
    return _library_path(_SESSION_LIBRARY)


def cuda_library_path() -> Path | None:
    """The kernels for a GPU behind ``xlstm_cuda_c.h``; as ``ort_library_path``."""
    return _library_path(_CUDA_LIBRARY)


def cuda_toolkit() -> str | None:
    """CUDA's version that the kernels for GPUs were built with, such as 13.0; None: not built.

    Raises BackendUnavailableError where the library does not fit this machine or this package.
    """
    path = cuda_library_path()
    if path is None:
        return None
    toolkit_of = getattr(load_library(path), "xlstm_cuda_toolkit", None)
    if toolkit_of is None:
        raise BackendUnavailableError(f"{path}: does not say which CUDA it has; {CURE}")
    toolkit_of.restype = ctypes.c_char_p
    return str((toolkit_of() or b"").decode())


def cmake_dir() -> Path:
    """The folder of ``xlstm-config.cmake``, for ``-Dxlstm_DIR``; its libraries lie beside it.

    In the package's own folder, whatever XLSTM_LIBRARY_DIR says. Raises BackendUnavailableError
    where the package was installed without native libraries.
    """
    folder = Path(__file__).parent / "cmake"
    if not (folder / "xlstm-config.cmake").is_file():
        raise BackendUnavailableError(
            f"{folder}: no xlstm-config.cmake, since this package has no native libraries: make "
            "wheel in a checkout builds it with them"
        )
    return folder.resolve()


@dataclass(frozen=True)
class NativeLibrary:
    """A custom-op library, loaded into this process."""

    path: Path
    isa: str
    """The instruction set its kernels for the CPU use here: portable, neon, avx2 or avx512."""
    version: str

    def __str__(self) -> str:
        """Who computes, for reports."""
        is_cuda = self.path.name == _ORT_CUDA_LIBRARY
        kernels = "native CUDA kernels" if is_cuda else f"native CPU kernels ({self.isa})"
        return f"{kernels}, {self.path.stem} {self.version}"


def load_ort_library() -> NativeLibrary | None:
    """Load the custom-op library and ask it; None where none is built.

    ONNX Runtime gets the same image when it registers the path, so the answers hold for the
    kernels it calls. Raises BackendUnavailableError when the library does not fit this machine or
    this package, or XLSTM_CPU_ISA asks for what is not there.
    """
    return _load_ort(ort_library_path())


def load_ort_cuda_library() -> NativeLibrary | None:
    """The one for sessions on a GPU; as ``load_ort_library``."""
    return _load_ort(ort_cuda_library_path())


def _load_ort(path: Path | None) -> NativeLibrary | None:
    if path is None:
        return None
    library = load_library(path)
    isa_of = getattr(library, "xlstm_cpu_isa", None)
    if isa_of is None:
        raise BackendUnavailableError(f"{path}: no library of xlstm-export; {CURE}")
    name = ctypes.c_char_p()
    if isa_of(ctypes.byref(name)) != 0:
        raise BackendUnavailableError(
            f"{ISA_VARIABLE}={os.environ.get(ISA_VARIABLE)}: not an instruction set of both this "
            f"processor and {path.name}; unset it, or name portable, neon, avx2 or avx512"
        )
    return NativeLibrary(path, (name.value or b"").decode(), __version__)


def load_library(
    path: Path,
    version: str = __version__,
    wanted: str = f"where xlstm-export is {__version__}",
    cure: str = CURE,
) -> ctypes.CDLL:
    """A library of ours, loaded into this process.

    Raises BackendUnavailableError, with ``cure``, where it is none, or of another version than
    ``version``; ``wanted`` says in words why that one is wanted.
    """
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise BackendUnavailableError(
            f"{path}: cannot be loaded: no library of xlstm-export, or of another kind of machine "
            f"({error}); {cure}"
        ) from error
    try:
        version_of = library.xlstm_version
    except AttributeError as error:
        raise BackendUnavailableError(f"{path}: no library of xlstm-export; {cure}") from error
    version_of.restype = ctypes.c_char_p
    found = (version_of() or b"").decode()
    if found != version:
        raise BackendUnavailableError(f"{path}: version {found}, {wanted}; {cure}")
    return library


def _library_path(name: str) -> Path | None:
    folder = os.environ.get(FOLDER_VARIABLE)
    path = Path(folder or Path(__file__).parent / "lib") / name
    if path.is_file():
        return path.resolve()
    if folder:
        raise BackendUnavailableError(
            f"{FOLDER_VARIABLE}={folder}: has no {name}; correct or unset the variable"
        )
    return None
