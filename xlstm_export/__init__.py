"""xlstm-export: trained xLSTM checkpoints to ONNX, with proof that the numbers are PyTorch's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xlstm_export.native import ort_library_path

__all__ = ["__version__", "ort_library_path"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """``ort_library_path`` on first use: importing the package loads nothing else of it."""
    if name == "ort_library_path":
        from xlstm_export import native

        return native.ort_library_path
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
