"""Which numbers are kept in float32 whatever the bundle's dtype.

Norm weights, mLSTM gate projections, and the biases of sLSTM and convolution feed statistics,
gates, and states, which are float32 everywhere; everything else is stored in the bundle's dtype.
"""

from __future__ import annotations

from typing import Literal, get_args

from xlstm_export.model.weights import Weights

BundleDtype = Literal["float32", "float16", "bfloat16"]
"""Type of projections and activations in a bundle, by numpy name."""

BUNDLE_DTYPES: tuple[str, ...] = get_args(BundleDtype)


def stays_float32(name: str, rank: int) -> bool:
    """Whether the weight ``name`` of ``rank`` is float32 in every bundle."""
    module, leaf = name.split(".")[-2:]
    is_norm = module.endswith("norm")
    is_state_bias = leaf == "bias" and module in ("conv", "R")
    # sLSTM gate matrices have rank 3 and are projections like any other
    is_mlstm_gate = module in ("input_gate", "forget_gate") and rank < 3
    return is_norm or is_state_bias or is_mlstm_gate


def storage_dtype(name: str, rank: int, dtype: str) -> str:
    """Element type in which the weight ``name`` of ``rank`` is stored in a ``dtype`` bundle."""
    return "float32" if stays_float32(name, rank) else dtype


def checkpoint_rounding(weights: Weights, dtype: str) -> dict[str, str]:
    """Checkpoint key -> element type its numbers are rounded to in a ``dtype`` bundle."""
    return {
        key: storage_dtype(name, len(weight.shape), dtype)
        for name, weight in weights.items()
        for key in weight.sources
    }
