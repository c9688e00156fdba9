"""Upstream's functions are recognised wherever a network finds them, and compute what they did."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlstm_kernels.torch
import numpy as np
import pytest
import torch
from flashrnn import FlashRNNConfig, flashrnn
from mlstm_kernels.torch.parallel.native.fwbw import mlstm_parallel__native_autograd
from mlstm_kernels.torch.recurrent.native_step import mlstm_recurrent_step__native
from torch import Tensor, nn

import xlstm_export as xe
from tests.modules.networks import CHANNELS, made, series
from xlstm_export.modules.call import call_network
from xlstm_export.modules.replace import replace_recurrences
from xlstm_export.ops.catalog import DOMAIN

HEADS, SIZE = 2, 4


class FlashRNN(nn.Module):
    """An sLSTM by FlashRNN's function, its shapes in other orders than its defaults."""

    def __init__(self, **fields: Any) -> None:
        super().__init__()
        shapes = {"input_shape": "TBGHD", "recurrent_shape": "HPGD", "bias_shape": "HGD"}
        given: dict[str, Any] = {"backend": "vanilla", "function": "slstm", **shapes} | fields
        self.config = FlashRNNConfig(num_heads=HEADS, head_dim=SIZE, dtype="float32", **given)
        self.up = nn.Linear(CHANNELS, 4 * HEADS * SIZE)
        self.R = nn.Parameter(torch.zeros(HEADS, SIZE, 4, SIZE))
        self.b = nn.Parameter(torch.zeros(HEADS, 4, SIZE))

    def forward(self, x: Tensor) -> Tensor:
        gates = self.up(x).unflatten(-1, (4, HEADS, SIZE)).transpose(0, 1)
        states, _ = flashrnn(gates, self.R, self.b, config=self.config)
        return states[0].flatten(-2)


class Kernels(nn.Module):
    """mLSTMs by mlstm_kernels' functions: by name, by registry, as an attribute, in parts."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(CHANNELS, 3 * HEADS * SIZE), nn.Linear(HEADS * SIZE, 2)
        self.gates = nn.Linear(CHANNELS, 2 * HEADS)
        self.chunkwise = mlstm_kernels.torch.get_mlstm_kernel("chunkwise--native_autograd")
        self.sequence = functools.partial(
            mlstm_kernels.torch.get_mlstm_sequence_kernel("native_sequence__native"), eps=1e-5
        )

    def operands(self, x: Tensor) -> dict[str, Tensor]:
        q, k, v = self.up(x).unflatten(-1, (3, HEADS, SIZE)).permute(2, 0, 3, 1, 4)
        i, f = self.gates(x).unflatten(-1, (2, HEADS)).permute(2, 0, 3, 1)
        return {"q": q, "k": k, "v": v, "i": i, "f": f}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        given = self.operands(x)
        by_registry = mlstm_kernels.torch.get_mlstm_kernel("parallel--native_custbw")
        h, (c, n, m) = self.sequence(**given, return_last_states=True)
        last = {name: tensor[:, :, -1] for name, tensor in given.items()}
        last |= {name: last[name][..., None] for name in "if"}
        step, _ = mlstm_recurrent_step__native(**last, c=c, n=n, m=m)
        found = {
            "chunkwise": self.chunkwise(**given, chunk_size=4),
            "parallel": mlstm_parallel__native_autograd(*given.values()),
            "registry": by_registry(**given),
            "sequence": h,
        }
        return {k: self.down(y.transpose(1, 2).flatten(-2)) for k, y in found.items()} | {
            "step": step.flatten(-2), "m": m[..., 0],
        }  # fmt: skip


def _both(network: nn.Module, x: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    replaced = replace_recurrences(network, torch.float64)
    with torch.no_grad():
        found = call_network(replaced.module, replaced.ledger, {"x": x.double()})
        assert replaced.ledger.present, "no operator of ours was called"
        wanted = network.double()(x.double())
    network.float()
    return (found, wanted) if isinstance(found, dict) else ({"y": found}, {"y": wanted})


@pytest.mark.parametrize("kind", [FlashRNN, Kernels])
def test_functions_compute_what_they_did(kind: type[nn.Module]) -> None:
    found, wanted = _both(made(kind), series(2, 12))
    for name, value in wanted.items():
        # the kernels keep their states in float32, and the parallel form's eps is of another scale
        close = 1e-9 if kind is FlashRNN else 2e-5
        torch.testing.assert_close(
            found[name].double(), value.double(), rtol=close, atol=close, msg=name
        )


def test_names_are_put_back() -> None:
    network = made(Kernels)
    before = (flashrnn, mlstm_parallel__native_autograd, network.chunkwise)
    _both(network, series(2, 8))
    assert before == (flashrnn, mlstm_parallel__native_autograd, network.chunkwise)
    assert mlstm_kernels.torch.get_mlstm_kernel("chunkwise--native_autograd") is before[2]


@pytest.mark.parametrize("kind", [FlashRNN, Kernels])
def test_networks_of_functions_are_validated(kind: type[nn.Module], tmp_path: Path) -> None:
    import onnx

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = kind()

        def forward(self, x: Tensor) -> Tensor:
            y = self.inner(x)
            return y.transpose(0, 1) if kind is FlashRNN else y["sequence"] + y["chunkwise"]

    network = made(Network)
    bundle = xe.export_module(network, series(2, 16), tmp_path / "out", states=True)
    graph = onnx.load(str(bundle.model_path)).graph
    found = sum(node.domain == DOMAIN for node in graph.node)
    assert found == (1 if kind is FlashRNN else 4)  # the step's result is not used
    assert {s.key.rpartition(".")[0] for s in bundle.manifest.states} >= {"inner"}
    report = xe.validate_module(bundle, network, series(2, 16), threads=1)
    assert report.verdict == "validated", report.in_order()[0]


TAKEN: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cell state": lambda states, last: states[1],
    "from the end": lambda states, last: states[-1],
    "all of them": lambda states, last: states.sum(0),
    "largest": lambda states, last: states[-1].argmax(-1, keepdim=True),
    "apart": lambda states, last: list(states)[2] * 0 + states[0],
}


class OtherStates(FlashRNN):
    """It takes what only upstream's function gives: c, n or m at every step."""

    take: Callable[[Tensor, Tensor], Tensor]

    def forward(self, x: Tensor) -> Tensor:
        gates = self.up(x).unflatten(-1, (4, HEADS, SIZE)).transpose(0, 1)
        return self.take(*flashrnn(gates, self.R, self.b, config=self.config)).flatten(-2)


@pytest.mark.parametrize("case", TAKEN)
def test_other_states_over_time_are_refused(tmp_path: Path, case: str) -> None:
    network = made(OtherStates)
    network.take = TAKEN[case]
    with pytest.raises(
        xe.UnsupportedModelError, match=r"flashrnn\): the network uses c, n or m of every step"
    ):
        xe.export_module(network, series(2, 16), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_states_after_the_last_step_are_given(tmp_path: Path) -> None:
    network = made(OtherStates)
    network.take = lambda states, last: states[0] + last[1:].sum(0)
    bundle = xe.export_module(network, series(2, 16), tmp_path / "out")
    found, _ = xe.open(bundle, threads=1).run({"x": series(3, 9).numpy()})
    with torch.no_grad():
        wanted = network(series(3, 9))
    np.testing.assert_allclose(found["output"], wanted, rtol=1e-3, atol=1e-4)


def test_another_function_of_flashrnn_is_refused(tmp_path: Path) -> None:
    network = FlashRNN(function="lstm").eval()
    with pytest.raises(xe.UnsupportedModelError, match="function is lstm, which is not supported"):
        xe.export_module(network, series(2, 16), tmp_path / "out")
    assert not list(tmp_path.iterdir())
