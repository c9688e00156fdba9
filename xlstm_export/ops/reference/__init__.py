"""Readable torch definitions of the operators; exact to rounding in float64."""

from xlstm_export.ops.reference.conv1d import causal_conv1d
from xlstm_export.ops.reference.mlstm import mlstm_chunkwise, mlstm_recurrent
from xlstm_export.ops.reference.slstm import slstm, to_bfloat16

__all__ = ["causal_conv1d", "mlstm_chunkwise", "mlstm_recurrent", "slstm", "to_bfloat16"]
