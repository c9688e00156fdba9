"""Products of the references, in every type, are rounded once."""

from __future__ import annotations

import pytest
import torch

from xlstm_export.ops.reference import mlstm_recurrent
from xlstm_export.reference.place import Place


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("has_bias", [False, True])
def test_a_product_is_the_nearest_number_but_for_the_sum(kind: torch.dtype, has_bias: bool) -> None:
    torch.manual_seed(0)
    x, matrix = (torch.randn(*shape).to(kind) for shape in ((3, 5, 64), (32, 64)))
    bias = torch.randn(32).to(kind) if has_bias else None
    kept = {"m": matrix}
    place = Place("", kept, None, {}, kind, torch.float32, mlstm_recurrent, {})
    y = place.product(x, "m", bias)
    assert torch.equal(y, place.product(x, "m", bias))
    assert kept["m"].dtype == (torch.float32 if kind == torch.float16 else kind)
    exact = x.double() @ matrix.double().T + (0 if bias is None else bias.double())
    assert y.dtype == kind
    # half a unit in the last place for the rounding, and a little for sums in float32
    unit = torch.finfo(kind).eps * exact.abs()
    sums = 64 * torch.finfo(torch.float32).eps * exact.abs().max()
    assert bool(((y.double() - exact).abs() <= 0.5 * unit + sums).all())
