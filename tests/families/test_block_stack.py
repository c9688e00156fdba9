"""Reading xLSTMLMModel and xLSTMBlockStack checkpoints, and the oracle that runs upstream."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xlstm
import yaml
from safetensors.torch import load_file

from tests.families.block_stack_checkpoints import (
    block_stack_config,
    edit_tensors,
    make_block_stack,
)
from tests.families.upstream import upstream
from xlstm_export.checkpoint.source import Source
from xlstm_export.errors import CheckpointError
from xlstm_export.families import block_stack
from xlstm_export.families.block_stack import config as config_module
from xlstm_export.families.block_stack.oracle import BlockStackOracle
from xlstm_export.model.layers.feed_forward import FeedForward
from xlstm_export.model.layers.logit_head import LogitHead
from xlstm_export.model.layers.slstm import SLSTM
from xlstm_export.model.layers.up_projected_mlstm import UpProjectedMLSTM
from xlstm_export.model.state import state_specs
from xlstm_export.reference.model import ReferenceModel

torch.set_num_threads(1)

VARIANTS: dict[str, dict[str, Any]] = {
    "mixed": {},
    "bare": {"lm": False},
    "mlstm-only": {"slstm": None, "slstm_at": []},
    "slstm-only": {"mlstm": None},
    "all": {"slstm_at": "all", "num_blocks": 2},
    "last": {"slstm_at": [-1]},
    "cuda": {"layout": "cuda", "slstm": {"num_heads": 4}},
    "bias": {"bias": True, "feedforward": {"bias": True}},
    "no-slstm-conv": {"slstm": {"conv1d_kernel_size": 0}, "slstm_at": [0, 1]},
    "no-ffn": {"feedforward": None},
    "conv-2-5": {"mlstm": {"conv1d_kernel_size": 2}, "slstm": {"conv1d_kernel_size": 5}},
    "no-group-norm-weight": {"slstm": {"group_norm_weight": False}},
    "no-post-norm": {"add_post_blocks_norm": False, "lm": False},
    "one-head": {"mlstm": {"num_heads": 1}, "slstm": {"num_heads": 0}},
    "sizes": {
        "embedding_dim": 24,
        "mlstm": {
            "num_heads": 3,
            "qkv_proj_blocksize": 6,
            "proj_factor": 1.5,
            "round_proj_up_to_multiple_of": 1,
        },
        "slstm": {"num_heads": 3},
        "feedforward": {"proj_factor": 2.0, "round_proj_up_to_multiple_of": 1},
    },
    "uneven-blocks": {"mlstm": {"num_heads": 2, "qkv_proj_blocksize": 12}},
    "float16-cell": {"slstm": {"enable_automatic_mixed_precision": False, "dtype": "float16"}},
    "bfloat16-file": {"stored_type": torch.bfloat16},
    "short-context": {"context_length": 4},
} | {f"ffn-{a}": {"feedforward": {"act_fn": a}, "slstm_at": "all", "num_blocks": 1}
     for a in ("gelu", "relu", "relu^2", "sigmoid", "swish", "selu")}  # fmt: skip


def random_inputs(source: Source, batch: int = 2, time: int = 9) -> np.ndarray:
    spec = block_stack.read(source).spec
    random = np.random.default_rng(0)
    if spec.vocab_size is None:
        return random.normal(size=(batch, time, spec.inputs[0].shape[-1]))
    return random.integers(0, spec.vocab_size, (batch, time))


def assert_close(actual: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= tolerance * max(1.0, np.abs(expected).max())


def forward(module: torch.nn.Module, inputs: np.ndarray) -> np.ndarray:
    x = torch.tensor(inputs)
    with torch.no_grad():
        return module(x.float() if x.is_floating_point() else x).numpy()


def loaded(source: Source) -> dict[str, np.ndarray]:
    return {name: weight.load() for name, weight in block_stack.read(source).weights.items()}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_spec_and_weights_compute_what_upstream_computes(
    tmp_path: Path, variant: str, dtype: str
) -> None:
    """Both on the numbers a ``dtype`` bundle holds, so that float64 agrees to its rounding."""
    source, _ = make_block_stack(tmp_path, **VARIANTS[variant])
    checkpoint = block_stack.read(source)
    theirs = upstream(block_stack.FAMILY, source, dtype)
    model = ReferenceModel(checkpoint.spec, checkpoint.weights, dtype, compute="float64")
    inputs = random_inputs(source)
    expected, expected_states = theirs.run(inputs)
    outputs, states = model.run({theirs.input: inputs})
    assert_close(outputs[theirs.output], expected, 1e-11)
    assert states.keys() == expected_states.keys()
    for key, state in states.items():
        assert_close(state, expected_states[key], 1e-11)


@pytest.mark.parametrize("variant", ["mixed", "bare", "slstm-only", "short-context"])
def test_oracle_steps_are_upstreams_parallel_form(tmp_path: Path, variant: str) -> None:
    """Once i >= log f at t = 0, m_t is the same in both forms, and with it the weight of eps."""
    source, module = make_block_stack(tmp_path, input_gate_mean=8.0, **VARIANTS[variant])
    theirs = upstream(block_stack.FAMILY, source)
    oracle = theirs.oracle
    assert isinstance(oracle, BlockStackOracle)
    inputs = random_inputs(source, time=70 if variant == "short-context" else 30)
    output, states = theirs.run(inputs)
    assert output.dtype == np.float64
    assert_close(output, oracle.forward({theirs.input: inputs}), 1e-9)
    specs = state_specs(block_stack.read(source).spec)
    assert {s.key: (2, *s.shape[1:]) for s in specs} == {k: v.shape for k, v in states.items()}
    if variant != "short-context":  # the trained module, in float32, refuses the length
        assert_close(output, forward(module, inputs), 1e-4)


def test_oracle_eps_is_all_that_separates_the_forms(tmp_path: Path) -> None:
    source, _ = make_block_stack(tmp_path)
    theirs = upstream(block_stack.FAMILY, source)
    oracle = theirs.oracle
    assert isinstance(oracle, BlockStackOracle)
    inputs = random_inputs(source, time=30)
    assert_close(theirs.run(inputs)[0], oracle.forward({theirs.input: inputs}), 1e-5)
    assert oracle.name == (
        f"xlstm {xlstm.__version__} xLSTMLMModel.step, sLSTM vanilla, mLSTM native, float64"
    )


@pytest.mark.parametrize("variant", ["mixed", "no-slstm-conv", "conv-2-5", "bare"])
@pytest.mark.parametrize("split", [1, 2, 6])
def test_oracle_continues_from_states(tmp_path: Path, variant: str, split: int) -> None:
    source, _ = make_block_stack(tmp_path, **VARIANTS[variant])
    oracle = upstream(block_stack.FAMILY, source)
    inputs = random_inputs(source)
    whole, last = oracle.run(inputs)
    first, states = oracle.run(inputs[:, :split])
    before = {key: state.copy() for key, state in states.items()}
    second, resumed = oracle.run(inputs[:, split:], states)
    np.testing.assert_array_equal(np.concatenate([first, second], axis=1), whole)
    for key, state in last.items():
        np.testing.assert_array_equal(resumed[key], state)
        np.testing.assert_array_equal(states[key], before[key])


def test_canonical_weights(tmp_path: Path) -> None:
    """Gates in their true slots, plain norms, R and bias as [N, H, 4, H] and [4, N, H]."""
    source, module = make_block_stack(tmp_path)
    checkpoint, weights = block_stack.read(source), loaded(source)
    mlstm, slstm, _ = (block.xlstm for block in module.xlstm_block_stack.blocks)
    pairs = {
        "layers.0.mlstm.input_gate.weight": mlstm.mlstm_cell.igate.weight,
        "layers.0.mlstm.forget_gate.bias": mlstm.mlstm_cell.fgate.bias,
        "layers.0.mlstm.z.weight": mlstm.proj_up.weight[32:],
        "layers.0.mlstm.conv.weight": mlstm.conv1d.conv.weight[:, 0],
        "layers.0.mlstm.head_norm.weight": mlstm.mlstm_cell.outnorm.weight_proxy,
        "layers.1.slstm.input_gate.weight": slstm.fgate.weight,
        "layers.1.slstm.forget_gate.weight": slstm.igate.weight,
        "layers.1.slstm.R.weight": slstm.slstm_cell.recurrent_kernel.clone(),
        "layers.1.slstm.R.bias": slstm.slstm_cell.bias.clone().transpose(0, 1),
        "layers.1.ffn.gate.weight": module.xlstm_block_stack.blocks[1].ffn.proj_up.weight[:24],
        "out_norm.weight": module.xlstm_block_stack.post_blocks_norm.weight_proxy,
        "head.weight": module.lm_head.weight,
    }
    for name, expected in pairs.items():
        np.testing.assert_array_equal(weights[name], expected.detach().numpy())
        assert checkpoint.weights[name].shape == weights[name].shape
    sources = {key for weight in checkpoint.weights.values() for key in weight.sources}
    assert sources == load_file(tmp_path / "model.safetensors").keys()
    layers = dict(checkpoint.spec.leaves())
    kinds = {path: type(layer) for path, layer in layers.items() if path.endswith("lstm")}
    assert kinds == {
        "layers.0.mlstm": UpProjectedMLSTM, "layers.1.slstm": SLSTM,
        "layers.2.mlstm": UpProjectedMLSTM,
    }  # fmt: skip
    assert layers["layers.1.ffn"] == FeedForward(16, 24, "gelu")
    assert not {"layers.0.ffn", "layers.2.ffn"} & layers.keys()
    assert checkpoint.files == (tmp_path / "config.yaml", tmp_path / "model.safetensors")


def test_files_and_layouts_hold_the_same(tmp_path: Path) -> None:
    reference = loaded(make_block_stack(tmp_path / "a")[0])
    others = [
        make_block_stack(tmp_path / "cuda", layout="cuda")[0],
        make_block_stack(tmp_path / "pt", file="model.pt")[0],
        make_block_stack(tmp_path / "pth", file="model.pth", layout="cuda")[0],
        Source(tmp_path / "a" / "model.safetensors"),
        Source(tmp_path / "pt" / "model.pt", config=tmp_path / "a" / "config.yaml"),
    ]
    (tmp_path / "pth" / "config.yaml").rename(tmp_path / "pth" / "config.yml")
    for other in others:
        assert block_stack.detect(other)
        weights = loaded(other)
        assert weights.keys() == reference.keys()
        for name, numbers in weights.items():
            np.testing.assert_array_equal(numbers, reference[name])
    (tmp_path / "a" / "model.pt").write_bytes(b"not read: safetensors goes first")
    loaded(Source(tmp_path / "a"))


@pytest.mark.parametrize("kept", ["token_embedding.weight", "lm_head.weight", "both"])
def test_tied_weights(tmp_path: Path, kept: str) -> None:
    source, module = make_block_stack(tmp_path, tie_weights=True)
    ends = {"token_embedding.weight", "lm_head.weight"}
    if kept != "both":
        edit_tensors(source, dict.fromkeys(ends - {kept}))
    checkpoint, weights = block_stack.read(source), loaded(source)
    assert [head.tied_to for head in checkpoint.spec.layers_of(LogitHead)] == ["embedding"]
    assert "head.weight" not in weights
    np.testing.assert_array_equal(weights["embedding.weight"], module.lm_head.weight.detach())
    inputs = random_inputs(source)
    output, _ = upstream(block_stack.FAMILY, source).run(inputs)
    assert_close(output, forward(module, inputs), 1e-4)


def test_tied_weights_that_differ_are_refused_when_read(tmp_path: Path) -> None:
    source, _ = make_block_stack(tmp_path, tie_weights=True)
    edit_tensors(source, {"lm_head.weight": torch.zeros(11, 16)})
    with pytest.raises(CheckpointError, match=r"token_embedding\.weight and .* differ"):
        loaded(source)


def test_experiment_file_with_references(tmp_path: Path) -> None:
    """Upstream's training configurations: fields under model, sizes given elsewhere."""
    source, _ = make_block_stack(tmp_path)
    reference = loaded(source)
    fields = block_stack_config() | {"vocab_size": "${data.size}", "dropout": "1e-1"}
    experiment = {"model": fields, "data": {"size": "${count}"}, "count": 11, "training": {"lr": 1}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(experiment))
    assert loaded(source).keys() == reference.keys()
    del experiment["count"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(experiment))
    with pytest.raises(CheckpointError, match=r"cannot resolve \$\{count\}"):
        block_stack.read(source)


def test_dumped_configuration(tmp_path: Path) -> None:
    """``asdict`` of a live configuration has the fields upstream computes."""
    source, module = make_block_stack(tmp_path)
    dumped = dataclasses.asdict(module.config)
    assert "_block_map" in dumped
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(dumped))
    assert block_stack.read(source).spec.vocab_size == 11


@pytest.mark.parametrize(
    ("ours", "upstream"),
    [
        (config_module.StackConfig, xlstm.xLSTMLMModelConfig),
        (config_module.MLSTMLayerConfig, xlstm.mLSTMLayerConfig),
        (config_module.SLSTMLayerConfig, xlstm.sLSTMLayerConfig),
        (config_module.FeedForwardConfig, xlstm.FeedForwardConfig),
        (config_module.MLSTMBlockConfig, xlstm.mLSTMBlockConfig),
        (config_module.SLSTMBlockConfig, xlstm.sLSTMBlockConfig),
    ],
)
def test_fields_are_upstreams(ours: type, upstream: type) -> None:
    def defaults(kind: type) -> dict[str, Any]:
        plain = [f for f in dataclasses.fields(kind) if not f.name.startswith("_")]
        return {f.name: f.default for f in plain if f.default_factory is dataclasses.MISSING} | {
            f.name: "factory" for f in plain if f.default_factory is not dataclasses.MISSING
        }

    assert defaults(ours) == defaults(upstream)


def test_rounding_is_upstreams_own(tmp_path: Path) -> None:
    """Rounding in the oracle equals a checkpoint that was stored rounded."""
    source, _ = make_block_stack(tmp_path / "a")
    rounded, _ = make_block_stack(tmp_path / "b", stored_type=torch.bfloat16)
    inputs = random_inputs(source)
    checkpoint, tensors = block_stack.read(source), load_file(tmp_path / "a" / "model.safetensors")
    specs, kept = checkpoint.spec.weights(), {}
    for name, weight in checkpoint.weights.items():
        if specs[name].stays_float32:
            for key in weight.sources:  # norms are stored as w - 1 and kept as w
                kept[key] = (tensors[key] + weight.offset).double() - weight.offset
    edit_tensors(rounded, kept)
    exact, _ = upstream(block_stack.FAMILY, source).run(inputs)
    expected, _ = upstream(block_stack.FAMILY, rounded).run(inputs)
    actual, _ = upstream(block_stack.FAMILY, source, "bfloat16").run(inputs)
    np.testing.assert_array_equal(actual, expected)
    assert np.abs(actual - exact).max() > 1e-3


def test_oracle_leaves_the_random_state_alone(tmp_path: Path) -> None:
    source, _ = make_block_stack(tmp_path)
    before = torch.get_rng_state()
    upstream(block_stack.FAMILY, source)
    assert torch.equal(before, torch.get_rng_state())
