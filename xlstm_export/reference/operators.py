"""The torch references of single operators, on numpy arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from xlstm_export.ops.catalog import CATALOG
from xlstm_export.ops.reference import causal_conv1d, mlstm_chunkwise, mlstm_recurrent, slstm
from xlstm_export.runtime.operators import Operator
from xlstm_export.runtime.session import Array

_FORMS: dict[str, tuple[Callable[..., Sequence[torch.Tensor]], ...]] = {
    "XlstmMLSTM": (mlstm_recurrent, mlstm_chunkwise),
    "XlstmSLSTM": (slstm,),
    "XlstmCausalConv1d": (causal_conv1d,),
}


def run_references(operator: Operator, inputs: Mapping[str, Array]) -> list[list[Array]]:
    """Outputs of the reference in float64, then of each form in the inputs' own precision.

    bfloat16 values come back in float32.
    """
    forms = _FORMS[operator.op_type]
    attributes: dict[str, Any] = dict(operator.attributes)
    order = [t.name for t in CATALOG[operator.op_type].inputs]
    given = [_tensor(inputs[name]) for name in order]
    exact = [t.double() if t.is_floating_point() else t for t in given]
    calls = [(forms[0], exact), *((form, given) for form in forms)]
    return [[_array(t) for t in form(*tensors, **attributes)] for form, tensors in calls]


def _tensor(array: Array) -> torch.Tensor:
    if array.dtype.name != "bfloat16":
        return torch.from_numpy(array)
    return torch.from_numpy(array.astype("float32")).to(torch.bfloat16)


def _array(tensor: torch.Tensor) -> Array:
    """As numpy; bfloat16 values in float32."""
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
