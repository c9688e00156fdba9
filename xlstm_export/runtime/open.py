"""Which session runs a bundle: ONNX Runtime, or one of its engines."""

from __future__ import annotations

from pathlib import Path

from xlstm_export.runtime.ort import OrtSession
from xlstm_export.runtime.session import Session


def open_session(
    bundle: Path, engine: str | None = None, *, threads: int | None = None, native: bool = True
) -> Session:
    """``bundle`` in ONNX Runtime, or in TensorRT by ``engine``: a file, or an engine's name.

    ``threads`` and ``native`` are ONNX Runtime's. Raises BundleError, EngineError,
    BackendUnavailableError.
    """
    if engine is None:
        return OrtSession(bundle, threads=threads, native=native)
    from xlstm_export.runtime.trt.session import open_engine

    return open_engine(bundle, engine)
