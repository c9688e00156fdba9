"""A checkpoint's tensors as upstream's modules take them: by key, in float64, in torch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from xlstm_export.checkpoint.source import Checkpoint
from xlstm_export.model.spec import ModelSpec, own_weights
from xlstm_export.model.storage import Storage, rounded_tensors


def float64_tensors(
    checkpoint: Checkpoint, storage: Storage, part: ModelSpec | None = None
) -> dict[str, Tensor]:
    """Those of ``checkpoint``, or of ``part`` of it, as ``storage`` leaves them."""
    weights, tensors = checkpoint.weights, checkpoint.tensors
    if part is not None:
        weights = own_weights(part, weights)
        tensors = {key: tensors[key] for weight in weights.values() for key in weight.sources}
    left = rounded_tensors(checkpoint.spec, weights, tensors, storage)
    return {key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in left.items()}
