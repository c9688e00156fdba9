"""What is recognised computes what it computed, in float64; the rest is refused by name."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tirex.models.slstm.cell import sLSTMBlockConfig as TirexConfig
from tirex.models.slstm.cell import sLSTMCell as TirexCell
from torch import Tensor, nn
from xlstm.blocks.mlstm.cell import mLSTMCell, mLSTMCellConfig
from xlstm.blocks.slstm.cell import sLSTMCell, sLSTMCellConfig
from xlstm.components.conv import CausalConv1d, CausalConv1dConfig
from xlstm.components.linear_headwise import LinearHeadwiseExpand, LinearHeadwiseExpandConfig
from xlstm.components.ln import MultiHeadLayerNorm

from tests.families.block_stack_checkpoints import block_stack_config, build_upstream, randomise
from tests.modules import vision_cells
from tests.modules.networks import Classifier, Detector, large_model, made, series
from xlstm_export.errors import UnsupportedModelError
from xlstm_export.modules.replace import replace_recurrences


def same(module: nn.Module, *inputs: Any, tolerance: float = 1e-9) -> None:
    """Both in float64; inputs are random."""
    replaced = replace_recurrences(module, torch.float64)
    with torch.no_grad():
        found, wanted = replaced.module(*inputs), copy.deepcopy(module).double()(*inputs)
    pairs = zip(*((x if isinstance(x, tuple) else (x,)) for x in (found, wanted)), strict=True)
    for a, b in pairs:
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def x(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


def mlstm_cell(kind: type[Any] = mLSTMCell) -> Any:
    torch.manual_seed(6)
    cell = kind(mLSTMCellConfig(context_length=32, embedding_dim=16, num_heads=4))
    randomise(cell)
    return cell.eval()


def slstm_cell(**fields: Any) -> Any:
    torch.manual_seed(7)
    config = {"hidden_size": 16, "num_heads": 4, "backend": "vanilla"} | fields
    cell = sLSTMCell(sLSTMCellConfig(**config), skip_backend_init=True)
    randomise(cell)
    return cell.eval()


def conv(**fields: Any) -> Any:
    torch.manual_seed(8)
    return CausalConv1d(CausalConv1dConfig(**{"feature_dim": 6, "kernel_size": 4} | fields)).eval()


def test_an_mlstm_cell() -> None:
    # the parallel form has no stabiliser before the first step: eps is of another scale
    same(mlstm_cell(), x(2, 9, 16), x(3, 9, 16)[:2] * 2, x(2, 9, 16) + 1, tolerance=2e-5)


def test_an_slstm_cell_with_and_without_its_state() -> None:
    same(slstm_cell(), x(2, 9, 64))
    state = x(4, 2, 16)
    state[2] = state[2].abs() + 0.5
    same(slstm_cell(), x(2, 9, 64), state)


def test_the_cuda_layout_is_the_same_cell() -> None:
    vanilla, cuda = slstm_cell(), slstm_cell(backend="cuda")
    with torch.no_grad():
        cuda._recurrent_kernel_.copy_(
            cuda._recurrent_kernel_ext2int(
                vanilla._recurrent_kernel_int2ext(vanilla._recurrent_kernel_)
            )
        )
        cuda._bias_.copy_(cuda._bias_ext2int(vanilla._bias_int2ext(vanilla._bias_)).flatten())
        found = replace_recurrences(cuda, torch.float64).module(x(2, 9, 64))
        wanted = vanilla.double()(x(2, 9, 64))
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("bias", [True, False])
def test_a_causal_convolution(bias: bool) -> None:
    same(conv(causal_conv_bias=bias), x(2, 9, 6))
    same(conv(causal_conv_bias=bias), x(2, 9, 6), x(2, 3, 6) * 2, True)
    same(conv(kernel_size=2), x(2, 1, 6))


def test_norms_and_block_projections() -> None:
    norm = MultiHeadLayerNorm(16)
    randomise(norm)
    same(norm.eval(), x(2, 4, 9, 4))
    for blocks in (4, 16, 3):
        config = LinearHeadwiseExpandConfig(in_features=48, num_heads=blocks)
        linear = LinearHeadwiseExpand(config).eval()
        randomise(linear)
        same(linear, x(2, 5, 48))


def test_the_cell_of_tirex() -> None:
    """It rounds states and products to bfloat16: a few of them fall to the other side."""
    torch.manual_seed(10)
    cell = TirexCell(TirexConfig(embedding_dim=16, num_heads=4), backend="torch").eval()
    randomise(cell)
    state = x(4, 2, 16).abs() + 0.5
    with torch.no_grad():
        for given in (None, state.to(torch.bfloat16).double()):
            found = replace_recurrences(cell, torch.float64).module(x(2, 20, 64), given)
            wanted = copy.deepcopy(cell).double()(x(2, 20, 64), given)
            for a, b in zip(found, wanted, strict=True):
                torch.testing.assert_close(a, b, rtol=0.05, atol=0.02)
                assert (a == b).double().mean() > 0.9


def test_the_cells_of_vision_lstm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its package is on no index: classes of the same names, attributes and results stand in."""
    for module in ("vision_lstm.vision_lstm", "vision_lstm.vision_lstm2"):
        for kind in (vision_cells.MatrixLSTMCell, vision_cells.CausalConv1d, vision_cells.Norm):
            monkeypatch.setattr(kind, "__module__", module)
        torch.manual_seed(11)
        cell, taps = vision_cells.MatrixLSTMCell(16, 4), vision_cells.CausalConv1d(6)
        randomise(cell)
        same(cell.eval(), x(2, 9, 16), x(2, 9, 16) * 2, x(2, 9, 16) + 1, tolerance=2e-5)
        same(taps.eval(), x(2, 9, 6))
        found = replace_recurrences(nn.ModuleList([cell, taps]).eval()).recurrences
        assert found == {"0": "MatrixLSTMCell", "1": "CausalConv1d"}
        taps.pad = 2
        with pytest.raises(UnsupportedModelError, match="pad is 2"):
            replace_recurrences(taps)


def test_the_backend_of_mlstm_kernels() -> None:
    tokens = torch.randint(0, 11, (2, 21))
    # upstream keeps its norms and states in float32
    same(large_model(return_last_states=False), tokens, tolerance=1e-4)
    model = large_model(return_last_states=True)
    with torch.no_grad():
        first, states = replace_recurrences(model).module(tokens[:, :8])
        second, states = replace_recurrences(model).module(tokens[:, 8:], states)
        whole, after = model(tokens)
    torch.testing.assert_close(torch.cat([first, second], 1), whole, rtol=1e-3, atol=1e-3)
    for a, b in zip(states[0], after[0], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("lm", [True, False])
def test_whole_stacks(lm: bool) -> None:
    torch.manual_seed(9)
    stack = build_upstream(block_stack_config(lm=lm))
    randomise(stack)
    inputs = torch.randint(0, 11, (2, 30)) if lm else x(2, 30, 16)
    same(stack, inputs, tolerance=2e-5)


def test_what_was_replaced_is_told_and_the_original_stays() -> None:
    network = made(Classifier)
    before = {name: type(module) for name, module in network.named_modules()}
    found = replace_recurrences(network).recurrences
    assert found["stack.blocks.0.xlstm.mlstm_cell"] == "mLSTMCell"
    assert found["stack.blocks.1.xlstm.slstm_cell"] == "sLSTMCell_vanilla"
    assert found["stack.blocks.2.xlstm.conv1d"] == "CausalConv1d"
    assert len(found) == 6
    assert {name: type(module) for name, module in network.named_modules()} == before


def test_a_cell_in_two_places_is_one_cell() -> None:
    cell = slstm_cell()
    twice = nn.ModuleDict({"a": cell, "b": cell}).eval()
    replaced = replace_recurrences(twice).module
    assert replaced["a"] is replaced["b"]


class Sharper(mLSTMCell):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, **kwargs: Any) -> Tensor:
        return super().forward(2 * q, k, v, **kwargs)


class Renamed(mLSTMCell):
    """Another name for the same thing."""


def hooked() -> nn.Module:
    cell = mlstm_cell()
    cell.register_forward_hook(lambda module, inputs, output: 2 * output)
    return cell


def other_form() -> nn.Module:
    cell = mlstm_cell()
    cell.backend_fn = lambda queries, **rest: queries
    return cell


def training() -> nn.Module:
    network = made(Detector)
    network.memory.train()
    return network


def sigmoid_gate() -> nn.Module:
    model = large_model()
    model.backbone.blocks[
        0
    ].mlstm_layer.mlstm_backend.config.chunkwise_kernel = "chunkwise--triton_xl_chunk_siging"
    return model


def on_another_device() -> nn.Module:
    return nn.Linear(2, 2, device="meta").eval()


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "overridden": (lambda: mlstm_cell(Sharper), r"Sharper\): is a mLSTMCell with a forward"),
    "hooked": (hooked, "with a hook on its forward"),
    "other form": (other_form, "backend_fn is <lambda>"),
    "lstm": (lambda: slstm_cell(function="lstm"), "function is lstm"),
    "input shape": (lambda: slstm_cell(input_shape="SBGNH"), "input_shape is SBGNH"),
    "clipped": (
        lambda: slstm_cell(backend="cuda", gradient_recurrent_clipval=0.5),
        "gradient_recurrent_clipval is 0.5",
    ),
    "mixing": (lambda: conv(channel_mixing=True), "channel_mixing is True"),
    "dilated": (lambda: conv(conv1d_kwargs={"dilation": 2}), r"dilation is \(2,\)"),
    "one tap": (lambda: conv(kernel_size=1), "kernel_size is 1"),
    "training": (training, "memory is in training mode; call eval"),
    "sigmoid gate": (sigmoid_gate, "sigmoid input gate"),
    "device": (on_another_device, "weight is on meta; export module.cpu"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case: str) -> None:
    make, message = REFUSED[case]
    with pytest.raises(UnsupportedModelError, match=message):
        replace_recurrences(make())


def test_a_subclass_that_computes_the_same_is_taken() -> None:
    assert replace_recurrences(mlstm_cell(Renamed)).recurrences == {"": "Renamed"}


def test_a_network_of_which_nothing_is_known_is_copied() -> None:
    assert replace_recurrences(nn.Linear(5, 5).eval()).recurrences == {}
    assert series().shape == (2, 20, 5)
