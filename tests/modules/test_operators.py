"""The operators in torch are the catalogue's, and compute what the reference says."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from xlstm_export.modules.operators import reference_form, torch_name, torch_operator
from xlstm_export.ops.catalog import CATALOG
from xlstm_export.ops.reference import causal_conv1d, mlstm_chunkwise, mlstm_recurrent, slstm

SIZES = {"B": 2, "T": 5, "N": 3, "K": 4, "V": 6, "H": 4, "D": 7, "W": 4, "W-1": 3}
REFERENCES = {
    "XlstmMLSTM": mlstm_chunkwise, "XlstmSLSTM": slstm, "XlstmCausalConv1d": causal_conv1d,
}  # fmt: skip
OTHER = {
    "XlstmMLSTM": {"gate_soft_cap": 3.0, "eps": 1e-3, "scale_side": 1, "chunk_size": 2},
    "XlstmSLSTM": {"n_floor": 1.0, "f_clamp": 0.5, "state_rounding": 1},
    "XlstmCausalConv1d": {"activation": 1},
}


def operands(op_type: str, tx: torch.dtype) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(4)
    ts = torch.float64 if tx == torch.float64 else torch.float32
    given = []
    for spec in CATALOG[op_type].inputs:
        if spec.type == "lengths":
            given.append(torch.tensor([3, -1], dtype=torch.int32))
            continue
        shape = [int(d) if d.isdigit() else SIZES[d] for d in spec.dims]
        kind = tx if spec.type == "TX" else ts
        given.append(torch.randn(shape, generator=random, dtype=torch.float64).to(kind))
    return given


@pytest.mark.parametrize("op_type", CATALOG)
def test_signature_is_the_catalogues(op_type: str) -> None:
    schema, found = CATALOG[op_type], torch_operator(op_type)._schema
    assert found.name == f"xlstm::{torch_name(op_type)}"
    names = [a.name for a in found.arguments]
    assert names == [t.name for t in schema.inputs] + [a.name for a in schema.attributes]
    assert [r.name for r in found.returns] == [t.name for t in schema.outputs]
    defaults = {a.name: a.default_value for a in found.arguments if a.kwarg_only}
    assert defaults == {a.name: a.default for a in schema.attributes}


@pytest.mark.parametrize("tx", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("op_type", CATALOG)
def test_results_and_their_shapes(op_type: str, tx: torch.dtype) -> None:
    given, attributes = operands(op_type, tx), OTHER[op_type]
    wanted: Any = REFERENCES[op_type](*given, **attributes)
    with reference_form("chunkwise"):
        found = torch_operator(op_type)(*given, **attributes)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    close = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 4e-2}
    found = torch_operator(op_type)(*given, **attributes)
    for a, b in zip(found, wanted, strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=close[tx], atol=close[tx])
    torch.library.opcheck(
        torch_operator(op_type), tuple(given), attributes,
        test_utils=("test_schema", "test_faketensor"),
    )  # fmt: skip


def test_the_form_of_mlstm_is_a_choice() -> None:
    given = operands("XlstmMLSTM", torch.float32)
    with reference_form("recurrent"):
        recurrent = torch.ops.xlstm.mlstm(*given)
    assert torch.equal(recurrent[0], mlstm_recurrent(*given).h)
    with reference_form("chunkwise"):
        chunkwise = torch.ops.xlstm.mlstm(*given)[0]
    assert not torch.equal(recurrent[0], chunkwise)
    torch.testing.assert_close(recurrent[0], chunkwise, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("op_type", CATALOG)
def test_operands_that_do_not_fit_are_named(op_type: str) -> None:
    given = operands(op_type, torch.float32)
    name = CATALOG[op_type].inputs[1].name
    for wrong in (given[1][..., :-1], given[1].double(), given[1][0]):
        with pytest.raises(ValueError, match=f"{op_type}: \\w+ is "):
            torch_operator(op_type)(given[0], wrong, *given[2:])
    assert name


def test_native_kernels_compute_in_eager_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where they are built, on views and with several threads; else the reference does."""
    from xlstm_export.modules import operators
    from xlstm_export.native import c_library_path

    assert c_library_path() is not None, "there is no libxlstm_c: `make wheel` builds it"
    given = operands("XlstmMLSTM", torch.float32)
    turned = [x.transpose(0, 1).contiguous().transpose(0, 1) if x.dim() > 1 else x for x in given]
    native = torch.ops.xlstm.mlstm(*turned)
    for a, b in zip(native, torch.ops.xlstm.mlstm(*given), strict=True):
        assert torch.equal(a, b)
    calls = []
    kernels = operators.native_kernels()
    assert kernels is not None
    run = kernels.run
    monkeypatch.setattr(kernels, "run", lambda *args: (calls.append(args[0].name), run(*args)))
    torch.ops.xlstm.slstm(*operands("XlstmSLSTM", torch.float32))
    assert calls == ["XlstmSLSTM"]
    monkeypatch.setattr(operators, "native_kernels", lambda: None)
    for a, b in zip(native, torch.ops.xlstm.mlstm(*given), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_what_the_kernels_refuse_is_said() -> None:
    given = operands("XlstmCausalConv1d", torch.float32)
    with pytest.raises(ValueError, match="length"):
        torch.ops.xlstm.causal_conv1d(*given[:-1], torch.ones(3, dtype=torch.int32))
