"""Which session runs a bundle: ONNX Runtime, or one of its engines."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from xlstm_export.errors import OptionError
from xlstm_export.runtime.ort import OrtSession
from xlstm_export.runtime.session import Session

_TENSORRT = ("tensorrt", "tensorrt_rtx")
BACKENDS = ("auto", "ort", "ort-cuda", *_TENSORRT)
"""``auto`` is TensorRT where an engine is given, else ``ort``: ONNX Runtime on the CPU. TensorRT's
by name are the bundle's only engine of that kind."""


@dataclass(frozen=True)
class Execution:
    """How a bundle is run. Raises OptionError for a backend that is none, or not with an engine.

    ``engine``, a file or an engine's name, is TensorRT's; ``threads`` and ``native`` are ONNX
    Runtime's. ``cuda_graph`` replays decode steps as CUDA graphs, on a GPU.
    """

    engine: str | None = None
    backend: str = "auto"
    threads: int | None = None
    native: bool = True
    cuda_graph: bool = False

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise OptionError("backend", f"{self.backend} is not one of {', '.join(BACKENDS)}")
        if self.engine is not None and self.backend != "auto":
            raise OptionError("backend", f"{self.backend} and an engine: leave one of them out")
        on_gpu = self.engine is not None or self.backend in ("ort-cuda", *_TENSORRT)
        if self.cuda_graph and not on_gpu:
            raise OptionError("cuda_graph", "is for engines and for backend ort-cuda")

    def of(self, bundle: Path) -> Execution:
        """With the engine that a backend's name means in ``bundle``. Raises EngineError."""
        if self.backend not in _TENSORRT:
            return self
        from xlstm_export.runtime.trt.engine import engine_of_backend

        return replace(self, engine=engine_of_backend(bundle, self.backend), backend="auto")

    @property
    def is_cuda(self) -> bool:
        """Whether ONNX Runtime computes on a GPU."""
        return self.backend == "ort-cuda"


def open_session(bundle: Path, execution: Execution | None = None) -> Session:
    """``bundle`` as ``execution`` says; by default in ONNX Runtime on the CPU.

    Raises BundleError, EngineError, BackendUnavailableError.
    """
    how = (execution or Execution()).of(bundle)
    if how.engine is None:
        return OrtSession(
            bundle, threads=how.threads, native=how.native, cuda=how.is_cuda,
            cuda_graph=how.cuda_graph,
        )  # fmt: skip
    from xlstm_export.runtime.trt.session import open_engine

    return open_engine(bundle, how.engine, cuda_graph=how.cuda_graph)
