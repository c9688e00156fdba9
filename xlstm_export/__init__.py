"""xlstm-export: trained xLSTM checkpoints to ONNX, with proof that the numbers are PyTorch's."""

from __future__ import annotations

__version__ = "0.1.0"
