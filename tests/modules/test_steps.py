"""Networks that call ``step``: one step a call, the states carried by the bundle or by them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import xlstm_export as xe
from tests.families.block_stack_checkpoints import block_stack_config, build_upstream
from tests.modules.networks import CHANNELS, SIZE, made, series
from xlstm_export.ops.catalog import DOMAIN


class Streaming(nn.Module):
    """One step of a series to a score, and the states after it."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.score = nn.Linear(CHANNELS, SIZE), nn.Linear(SIZE, 1)
        self.stack = build_upstream(block_stack_config(lm=False))

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        h, state = self.stack.step(self.up(x), state=state)
        return self.score(h), state


class Looping(Streaming):
    """All steps, one after the other."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        state, scores = None, []
        for t in range(x.shape[1]):
            y, state = super().forward(x[:, t : t + 1], state)
            scores.append(y)
        return torch.cat(scores, 1)


class Mixed(Streaming):
    """A step here, a sequence there."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        block = self.stack.blocks[0].xlstm
        return super().forward(x[:, :1])[0] + block(self.up(x)).mean()


class Direct(nn.Module):
    """A cell alone, whose states are the network's own inputs and outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = Streaming().stack.blocks[0].xlstm.mlstm_cell

    def forward(self, x: Tensor, C: Tensor, n: Tensor, m: Tensor) -> dict[str, Tensor]:
        y, (C, n, m) = self.cell.step(x, x, x, (C, n, m))
        return {"y": y, "C": C, "n": n, "m": m}


class StatesOfBefore(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = Streaming().stack.blocks[1].xlstm.slstm_cell

    def forward(self, x: Tensor) -> Tensor:
        return self.cell.step(x, None)[0]


@pytest.fixture(scope="module")
def streaming(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, xe.Bundle]:
    network = made(Streaming)
    out = tmp_path_factory.mktemp("steps") / "out"
    return network, xe.export_module(network, series(2, 1), out, states=True)


def test_a_step_is_one_call_with_states_of_the_bundle(streaming: tuple[Any, xe.Bundle]) -> None:
    manifest = streaming[1].manifest
    assert [t.shape for t in manifest.inputs] == [("batch", 1, CHANNELS)]
    assert [t.name for t in manifest.outputs] == ["output"]
    keys = {s.key for s in manifest.states}
    assert {"stack.blocks.0.xlstm.mlstm_cell.C", "stack.blocks.1.xlstm.conv1d.x"} <= keys
    names = {
        n.name for n in onnx.load(str(streaming[1].model_path)).graph.node if n.domain == DOMAIN
    }
    assert "/stack/blocks.0/xlstm/mlstm_cell/XlstmMLSTM" in names
    assert len(names) == 6


@pytest.mark.parametrize("native", [True, False])
def test_steps_are_the_networks_own(streaming: tuple[Any, xe.Bundle], native: bool) -> None:
    """Nine steps by the bundle, and by the network with its own states."""
    network, bundle = streaming
    session, ours, theirs = xe.open(bundle, native=native, threads=1), None, None
    for x in series(3, 9).split(1, 1):
        found, ours = session.run({"x": x.numpy()}, ours)
        with torch.no_grad():
            wanted, theirs = network(x, theirs)
        np.testing.assert_allclose(found["output"], wanted, rtol=2e-3, atol=2e-5)


def test_they_are_validated(streaming: tuple[Any, xe.Bundle]) -> None:
    network, bundle = streaming
    report = xe.validate_module(bundle, network, series(2, 1), threads=1)
    assert report.verdict == "validated", report.in_order()[0]
    assert report.reader_distance is not None
    assert report.reader_distance < 1e-6
    other = made(Streaming)
    with torch.no_grad():  # of a state alone: it shows from the second step on
        other.get_parameter("stack.blocks.1.xlstm.slstm_cell._recurrent_kernel_").view(-1)[3] += 0.1
    assert xe.validate_module(bundle, other, series(2, 1), threads=1).verdict == "failed"


def test_states_that_are_inputs_stay_inputs(tmp_path: Path) -> None:
    network = made(Direct)
    config = network.cell.config
    size = config.embedding_dim // config.num_heads
    generator = torch.Generator().manual_seed(4)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(2, *shape, generator=generator)

    given = {
        "x": drawn(1, config.embedding_dim), "C": drawn(config.num_heads, size, size),
        "n": drawn(config.num_heads, size, 1), "m": drawn(config.num_heads, 1, 1),
    }  # fmt: skip
    names = ["y", "C_after", "n_after", "m_after"]
    bundle = xe.export_module(network, given, tmp_path / "out", output_names=names)
    assert not bundle.manifest.states
    found, _ = xe.open(bundle, threads=1).run({name: x.numpy() for name, x in given.items()})
    with torch.no_grad():
        wanted = network(**given)
    for name, x in zip(names, wanted.values(), strict=True):
        np.testing.assert_allclose(found[name], x, rtol=2e-3, atol=2e-5, err_msg=name)
    report = xe.validate_module(bundle, network, given, threads=1)
    assert report.verdict == "validated", report.in_order()[0]


REFUSED: dict[str, tuple[type[nn.Module], dict[str, Any], str]] = {
    "loop": (Looping, {"states": True}, "runs 20 times in one call of a network that calls step"),
    "mixed": (Mixed, {"states": True}, "runs 2 times in one call"),
    "forgetful": (Streaming, {"steps": 1}, "its step begins at zero in every call.*states=True"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(tmp_path: Path, case: str) -> None:
    kind, options, message = REFUSED[case]
    x = series(2, options.get("steps", 20))
    with pytest.raises(xe.UnsupportedModelError, match=message):
        xe.export_module(made(kind), x, tmp_path / "out", states=options.get("states", False))
    assert not list(tmp_path.iterdir())


def test_a_step_that_loses_its_states_is_refused(tmp_path: Path) -> None:
    network = made(StatesOfBefore)
    x = torch.randn(2, 1, 4 * SIZE)
    with pytest.raises(xe.UnsupportedModelError, match=r"cell \(sLSTMCell\): step returns"):
        xe.export_module(network, x, tmp_path / "out", states=True)
