"""Products of the references, in every type, are rounded once."""

from __future__ import annotations

import pytest
import torch

from xlstm_export.reference.place import product


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("has_bias", [False, True])
def test_a_product_is_the_nearest_number_but_for_the_sum(kind: torch.dtype, has_bias: bool) -> None:
    torch.manual_seed(0)
    x, matrix = (torch.randn(*shape).to(kind) for shape in ((3, 5, 64), (32, 64)))
    bias = torch.randn(32).to(kind) if has_bias else None
    y = product(x, matrix, bias)
    exact = x.double() @ matrix.double().T + (0 if bias is None else bias.double())
    assert y.dtype == kind
    # half a unit in the last place for the rounding, and a little for sums in float32
    unit = torch.finfo(kind).eps * exact.abs()
    sums = 64 * torch.finfo(torch.float32).eps * exact.abs().max()
    assert bool(((y.double() - exact).abs() <= 0.5 * unit + sums).all())
