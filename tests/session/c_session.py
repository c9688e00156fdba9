"""``xlstm_session.h`` from Python, by ctypes: a session, its states and what it says of errors."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xlstm_export.native import session_library_path

Array = np.ndarray[Any, Any]

OK, BUNDLE, INPUT, OPTION, BACKEND, ENGINE, FILE, MEMORY, INTERNAL = range(9)
_DTYPES = {0: np.float32, 1: np.float16, 4: np.int32, 5: np.int64}
_CODES = {np.dtype(dtype): code for code, dtype in _DTYPES.items()}
_ON_TOKEN = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_int64)
_int64_p = ctypes.POINTER(ctypes.c_int64)


class _Tensor(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p), ("dtype", ctypes.c_int32), ("rank", ctypes.c_int32),
        ("shape", _int64_p), ("data", ctypes.c_void_p),
    ]  # fmt: skip


class _Options(ctypes.Structure):
    _fields_ = [
        ("runtime_library", ctypes.c_char_p), ("kernel_library", ctypes.c_char_p),
        ("engine", ctypes.c_char_p), ("threads", ctypes.c_int32), ("gpu", ctypes.c_int32),
    ]  # fmt: skip


class _Generation(ctypes.Structure):
    _fields_ = [
        ("max_new_tokens", ctypes.c_int64), ("temperature", ctypes.c_double),
        ("top_k", ctypes.c_int64), ("top_p", ctypes.c_double), ("seed", ctypes.c_uint64),
        ("stop", _int64_p), ("stop_count", ctypes.c_size_t),
    ]  # fmt: skip


class SessionError(Exception):
    """A status that is not OK, and what xlstm_session_error said."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def runtime_library() -> Path:
    """ONNX Runtime's shared library, inside the Python package."""
    import onnxruntime  # not where an engine is run

    folder = Path(onnxruntime.__path__[0]) / "capi"
    return next(folder.glob("libonnxruntime.so.1.*"))


def load_library() -> ctypes.CDLL:
    path = session_library_path()
    assert path is not None, "make wheel builds it"
    library = ctypes.CDLL(str(path))
    for name in ("version", "error", "describe"):
        getattr(library, f"xlstm_session_{name}").restype = ctypes.c_char_p
    for name in ("session_count", "session_stop_ids", "outputs_count", "states_nbytes"):
        getattr(library, f"xlstm_{name}").restype = ctypes.c_size_t
    for name in ("session_vocabulary", "states_batch"):
        getattr(library, f"xlstm_{name}").restype = ctypes.c_int64
    return library


class CStates:
    """An ``xlstm_states``."""

    def __init__(self, library: ctypes.CDLL, handle: ctypes.c_void_p) -> None:
        self.library, self.handle = library, handle

    def __del__(self) -> None:
        self.library.xlstm_states_free(self.handle)

    @property
    def batch(self) -> int:
        return int(self.library.xlstm_states_batch(self.handle))

    @property
    def nbytes(self) -> int:
        return int(self.library.xlstm_states_nbytes(self.handle))

    def copy(self) -> CStates:
        return self._made("copy")

    def rows(self, indices: Sequence[int]) -> CStates:
        return self._made("rows", (ctypes.c_int64 * len(indices))(*indices), _size(indices))

    def reset(self, indices: Sequence[int]) -> CStates:
        return self._made("reset", (ctypes.c_int64 * len(indices))(*indices), _size(indices))

    def save(self, path: Path) -> None:
        check(self.library, self.library.xlstm_states_save(self.handle, _text(path)))

    def arrays(self) -> dict[str, Array]:
        """Every state by key."""
        outputs = ctypes.c_void_p()
        status = self.library.xlstm_states_read(self.handle, ctypes.byref(outputs))
        check(self.library, status)
        return take_outputs(self.library, outputs)

    def _made(self, what: str, *arguments: Any) -> CStates:
        made = ctypes.c_void_p()
        function = getattr(self.library, f"xlstm_states_{what}")
        check(self.library, function(self.handle, *arguments, ctypes.byref(made)))
        return CStates(self.library, made)


class CSession:
    """An ``xlstm_session`` of ``bundle``; ``kernels`` False takes the function bodies.

    ``runtime`` "" is the one that the loader finds.
    """

    def __init__(
        self, bundle: Path | str, *, runtime: Path | str | None = None, kernels: bool = True,
        kernel_library: Path | None = None, engine: str | None = None, threads: int = 1,
        gpu: int = 0,
    ) -> None:  # fmt: skip
        self.library = load_library()
        options = _Options(
            _text(runtime_library() if runtime is None else runtime or None),
            _text(kernel_library) if kernels else b"",
            _text(engine), threads, gpu,
        )  # fmt: skip
        self.handle = ctypes.c_void_p()
        status = self.library.xlstm_session_open(
            _text(bundle), ctypes.byref(options), ctypes.byref(self.handle)
        )
        check(self.library, status)

    def __del__(self) -> None:
        self.library.xlstm_session_close(self.handle)

    def describe(self) -> str:
        return str(self.library.xlstm_session_describe(self.handle).decode())

    @property
    def vocabulary(self) -> int:
        return int(self.library.xlstm_session_vocabulary(self.handle))

    def ends(self, which: int) -> list[tuple[str, Any, tuple[int, ...]]]:
        """Name, type and shape of inputs (0), outputs (1) or states (2)."""
        found = []
        for index in range(self.library.xlstm_session_count(self.handle, which)):
            tensor = _Tensor()
            status = self.library.xlstm_session_tensor(
                self.handle, which, ctypes.c_size_t(index), ctypes.byref(tensor)
            )
            check(self.library, status)
            shape = tuple(tensor.shape[i] for i in range(tensor.rank))
            found.append((tensor.name.decode(), _DTYPES[tensor.dtype], shape))
        return found

    def run(
        self, feeds: Mapping[str, Array], states: CStates | None = None
    ) -> tuple[dict[str, Array], CStates]:
        given = (_Tensor * len(feeds))()
        kept = []
        for tensor, (name, array) in zip(given, feeds.items(), strict=True):
            dense = np.ascontiguousarray(array)
            shape = (ctypes.c_int64 * dense.ndim)(*dense.shape)
            kept += [dense, shape]
            tensor.name, tensor.dtype, tensor.rank = name.encode(), _CODES[dense.dtype], dense.ndim
            tensor.shape, tensor.data = ctypes.cast(shape, _int64_p), dense.ctypes.data
        outputs, after = ctypes.c_void_p(), ctypes.c_void_p()
        status = self.library.xlstm_session_run(
            self.handle, given, _size(feeds), states.handle if states else None,
            ctypes.byref(outputs), ctypes.byref(after),
        )  # fmt: skip
        check(self.library, status)
        return take_outputs(self.library, outputs), CStates(self.library, after)

    def zeros(self, batch: int) -> CStates:
        made = ctypes.c_void_p()
        function = self.library.xlstm_states_zeros
        check(self.library, function(self.handle, ctypes.c_int64(batch), ctypes.byref(made)))
        return CStates(self.library, made)

    def load(self, path: Path) -> CStates:
        made = ctypes.c_void_p()
        function = self.library.xlstm_states_load
        check(self.library, function(self.handle, _text(path), ctypes.byref(made)))
        return CStates(self.library, made)

    def generate(
        self, prompt: Sequence[int], count: int, *, stop: Sequence[int] = (),
        states: CStates | None = None, on_token: Callable[[int], int] | None = lambda _: 0,
        **sampling: Any,
    ) -> tuple[list[int], CStates]:  # fmt: skip
        """The new ids, and the states after them; none are told without ``on_token``."""
        options = _Generation(max_new_tokens=count, **sampling)
        stops = (ctypes.c_int64 * len(stop))(*stop)
        options.stop, options.stop_count = ctypes.cast(stops, _int64_p), len(stop)
        made: list[int] = []

        def take(_: object, token: int) -> int:
            made.append(token)
            return on_token(token) if on_token else 1

        after = states.copy() if states else CStates(self.library, ctypes.c_void_p())
        status = self.library.xlstm_session_generate(
            self.handle, (ctypes.c_int64 * len(prompt))(*prompt), _size(prompt),
            ctypes.byref(options), _ON_TOKEN(take) if on_token else None, None,
            ctypes.byref(after.handle),
        )  # fmt: skip
        check(self.library, status)
        return made, after

    def forecast(self, series: Sequence[Array], horizon: int) -> Array:
        rows = [np.ascontiguousarray(row, np.float32) for row in series]
        pointers = (ctypes.c_void_p * len(rows))(*(row.ctypes.data for row in rows))
        lengths = (ctypes.c_int64 * len(rows))(*map(len, rows))
        outputs = ctypes.c_void_p()
        status = self.library.xlstm_session_forecast(
            self.handle, pointers, lengths, _size(rows), ctypes.c_int64(horizon),
            ctypes.byref(outputs),
        )  # fmt: skip
        check(self.library, status)
        return take_outputs(self.library, outputs)["quantiles"]


def join(parts: Sequence[CStates]) -> CStates:
    library = load_library()
    handles = (ctypes.c_void_p * len(parts))(*(part.handle.value for part in parts))
    made = ctypes.c_void_p()
    check(library, library.xlstm_states_join(handles, _size(parts), ctypes.byref(made)))
    return CStates(library, made)


def take_outputs(library: ctypes.CDLL, outputs: ctypes.c_void_p) -> dict[str, Array]:
    """Copies by name; ``outputs`` are freed."""
    found = {}
    for index in range(library.xlstm_outputs_count(outputs)):
        tensor = _Tensor()
        status = library.xlstm_outputs_tensor(outputs, ctypes.c_size_t(index), ctypes.byref(tensor))
        check(library, status)
        shape = tuple(tensor.shape[i] for i in range(tensor.rank))
        dtype = np.dtype(_DTYPES[tensor.dtype])
        size = int(np.prod(shape)) * dtype.itemsize
        data = ctypes.string_at(tensor.data, size)
        found[tensor.name.decode()] = np.frombuffer(data, dtype).reshape(shape)
    library.xlstm_outputs_free(outputs)
    return found


def check(library: ctypes.CDLL, status: int) -> None:
    if status != OK:
        raise SessionError(status, library.xlstm_session_error().decode())


def _size(items: Any) -> ctypes.c_size_t:
    return ctypes.c_size_t(len(items))


def _text(value: Path | str | None) -> bytes | None:
    return None if value is None else str(value).encode()
