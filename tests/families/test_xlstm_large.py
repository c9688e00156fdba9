"""The xLSTMLarge reader and its oracle against upstream's own module."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from tests.families.large_checkpoints import (
    Made,
    assert_splits_agree,
    edit_tensors,
    expected_weights,
    make_xlstm_large,
    rms_difference,
    stored_in_bfloat16,
)
from tests.families.upstream import upstream
from xlstm_export.checkpoint.source import Source
from xlstm_export.errors import BackendUnavailableError, CheckpointError, UnsupportedModelError
from xlstm_export.families import xlstm_large
from xlstm_export.model.layers.feed_forward import FeedForward
from xlstm_export.model.layers.logit_head import LogitHead
from xlstm_export.model.layers.mlstm import MLSTM
from xlstm_export.model.layers.norm import Norm
from xlstm_export.model.state import state_specs

IDS = np.random.default_rng(0).integers(0, 61, size=(2, 150))


def edit(made: Made, **fields: Any) -> Source:
    """``made`` with configuration fields set, or removed where None."""
    path = made.source.path / "config.yaml"
    values = yaml.safe_load(path.read_text()) | fields
    path.write_text(yaml.safe_dump({k: v for k, v in values.items() if v is not None}))
    return made.source


def test_structure_comes_from_tensors_and_configuration(tmp_path: Path) -> None:
    made = make_xlstm_large(
        tmp_path, embedding_dim=80, num_heads=2, qk_dim_factor=0.3, v_dim_factor=0.7,
        ffn_proj_factor=1.3, norm_eps=1e-4, eps=1e-5, gate_soft_cap=7.0, chunk_size=16,
    )  # fmt: skip
    checkpoint = xlstm_large.read(made.source)
    spec, layers = checkpoint.spec, dict(checkpoint.spec.leaves())
    assert (spec.family, spec.vocab_size) == ("xlstm_large", 61)
    norm = Norm("rms", 1e-4, 80)
    assert layers["out_norm"] == norm
    assert layers["head"] == LogitHead(61, 80, soft_cap=30.0, tied_to="")
    assert layers["layers.1.mixer_norm"] == layers["layers.1.ffn_norm"] == norm
    assert layers["layers.1.ffn"] == FeedForward(80, 128, "swish")
    mixer = layers["layers.1.mlstm"]
    assert isinstance(mixer, MLSTM)
    assert (mixer.model_size, mixer.head_norm_eps) == (80, 1e-4)
    cell = mixer.cell
    assert (cell.heads, cell.qk_size, cell.v_size) == (2, 12, 28)
    assert (cell.gate_soft_cap, cell.eps, cell.scale_side, cell.chunk_size) == (7.0, 1e-5, 0, 64)


@pytest.mark.parametrize("use_bias", [False, True])
def test_weights_are_upstreams(tmp_path: Path, use_bias: bool) -> None:
    made = make_xlstm_large(tmp_path, use_bias=use_bias)
    weights = xlstm_large.read(made.source).weights
    expected = expected_weights(made.model, 2, "embedding")
    assert weights.keys() == expected.keys()
    assert ("out_norm.bias" in weights, "layers.0.mlstm.head_norm.bias" in weights) == (
        use_bias, use_bias,
    )  # fmt: skip
    for name, weight in weights.items():
        assert weight.shape == expected[name].shape
        assert np.array_equal(weight.load(), expected[name]), name


@pytest.mark.parametrize("use_bias", [False, True])
def test_fused_equals_single(tmp_path: Path, use_bias: bool) -> None:
    single = make_xlstm_large(tmp_path / "single", num_blocks=12, use_bias=use_bias)
    fused = make_xlstm_large(
        tmp_path / "fused", num_blocks=12, use_bias=use_bias, weight_mode="fused"
    )
    one, other = xlstm_large.read(single.source), xlstm_large.read(fused.source)
    assert one.spec == other.spec
    assert one.weights.keys() == other.weights.keys()
    for name, weight in one.weights.items():
        assert np.array_equal(weight.load(), other.weights[name].load()), name
    q_key = "backbone.blocks.11.mlstm_layer.qkv_opreact.weight"
    assert other.weights["layers.11.mlstm.q.weight"].sources == (q_key,)
    logits, states = upstream(xlstm_large.FAMILY, single.source).run(IDS[:, :20])
    fused_logits, fused_states = upstream(xlstm_large.FAMILY, fused.source).run(IDS[:, :20])
    assert rms_difference(fused_logits, logits) < 1e-12
    assert all(rms_difference(fused_states[key], states[key]) < 1e-12 for key in states)


def test_one_file_equals_many_and_a_file_alone(tmp_path: Path) -> None:
    one = make_xlstm_large(tmp_path / "one").source
    many = make_xlstm_large(tmp_path / "many", shards=11).source
    alone = Source(one.path / "model.safetensors", one.path / "config.yaml")
    beside = Source(one.path / "model.safetensors")
    checkpoints = [xlstm_large.read(source) for source in (one, many, alone, beside)]
    for checkpoint in checkpoints:
        assert checkpoint.spec == checkpoints[0].spec
        for name, weight in checkpoints[0].weights.items():
            assert np.array_equal(weight.load(), checkpoint.weights[name].load())
    names = [path.name for path in checkpoints[1].files]
    assert names == ["config.yaml", *(f"model_{n}.safetensors" for n in range(11))]
    assert checkpoints[2].files == checkpoints[0].files
    assert all(xlstm_large.detect(source) for source in (one, many, alone, beside))


def test_detect_leaves_block_stacks_and_json_alone(tmp_path: Path) -> None:
    fields = {"embedding_dim": 64, "num_blocks": 2, "vocab_size": 61, "context_length": 32}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({**fields, "slstm_at": [1], "mlstm_block": {"mlstm": {}}}))
    assert not xlstm_large.detect(Source(tmp_path))
    path.write_text(yaml.safe_dump({"model": {**fields, "num_heads": 4}, "step_kernel": "x"}))
    assert not xlstm_large.detect(Source(tmp_path))
    path.unlink()
    assert not xlstm_large.detect(Source(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "xlstm", "num_heads": 4}')
    assert not xlstm_large.detect(Source(tmp_path, tmp_path / "config.json"))


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"weight_mode": "fused", "use_bias": True},
        {"num_heads": 4, "gate_soft_cap": None, "output_logit_soft_cap": None},
        {"add_out_norm": False, "norm_eps": 1e-2, "eps": 1e-2, "gate_soft_cap": 2.0},
        {"embedding_dim": 192, "num_heads": 1, "qk_dim_factor": 0.5},
    ],
)
def test_oracle_is_exact_in_any_split(tmp_path: Path, config: dict[str, Any]) -> None:
    oracle = upstream(xlstm_large.FAMILY, make_xlstm_large(tmp_path, **config).source)
    assert_splits_agree(oracle, IDS, [1, 2, 66, 67, 149])


@pytest.mark.parametrize("weight_mode", ["single", "fused"])
def test_oracle_is_upstreams_float32_module(tmp_path: Path, weight_mode: str) -> None:
    made = make_xlstm_large(tmp_path, use_bias=True, weight_mode=weight_mode)
    oracle = upstream(xlstm_large.FAMILY, made.source)
    logits, states = oracle.run(IDS)
    with torch.no_grad():
        theirs, state = made.model(torch.from_numpy(IDS))
    assert rms_difference(theirs.double().numpy(), logits) < 5e-6
    specs = state_specs(xlstm_large.read(made.source).spec)
    assert [s.key for s in specs] == list(states)
    for spec in specs:
        assert states[spec.key].shape == (2, *spec.shape[1:])
        value = state[spec.layer]["Cnm".index(spec.letter)].double().numpy()
        assert rms_difference(value.reshape(states[spec.key].shape), states[spec.key]) < 5e-6
    assert re.fullmatch(
        r"xlstm \S+ xLSTMLarge \(mlstm_kernels \S+\), "
        r"chunkwise native_autograd / step native, float64",
        oracle.oracle.name,
    )


def test_caps_of_null_and_zero_are_off(tmp_path: Path) -> None:
    made = make_xlstm_large(tmp_path, gate_soft_cap=None, output_logit_soft_cap=None)
    without, _ = upstream(xlstm_large.FAMILY, made.source).run(IDS[:, :9])
    spec = xlstm_large.read(made.source).spec
    assert [head.soft_cap for head in spec.layers_of(LogitHead)] == [0.0]
    source = edit(made, gate_soft_cap=0, output_logit_soft_cap=0.0)
    assert xlstm_large.read(source).spec == spec
    zero, _ = upstream(xlstm_large.FAMILY, source).run(IDS[:, :9])
    assert np.array_equal(zero, without)
    source = edit(made, gate_soft_cap=15.0, output_logit_soft_cap="3e1")
    heads = xlstm_large.read(source).spec.layers_of(LogitHead)
    assert [head.soft_cap for head in heads] == [30.0]
    capped, _ = upstream(xlstm_large.FAMILY, source).run(IDS[:, :9])
    assert rms_difference(capped, without) > 1e-3


def test_rounding_is_that_of_a_rounded_checkpoint(tmp_path: Path) -> None:
    made = make_xlstm_large(tmp_path)
    exact, _ = upstream(xlstm_large.FAMILY, made.source).run(IDS[:, :9])
    rounded, _ = upstream(xlstm_large.FAMILY, made.source, "bfloat16").run(IDS[:, :9])
    assert rms_difference(rounded, exact) > 1e-5
    kept = "backbone.blocks.1.mlstm_layer.igate_preact.weight"
    tensors = stored_in_bfloat16(made.source)
    assert tensors[kept].dtype == torch.float32
    save_file(tensors, made.source.path / "model.safetensors")
    stored, _ = upstream(xlstm_large.FAMILY, made.source).run(IDS[:, :9])
    assert np.array_equal(stored, rounded)
    weight = xlstm_large.read(made.source).weights["head.weight"]
    assert weight.dtype == "bfloat16"
    assert weight.load().dtype == ml_dtypes.bfloat16


@pytest.mark.parametrize(
    ("fields", "kind", "words"),
    [
        (
            {"chunkwise_kernel": "chunkwise--triton_xl_chunk_siging"},
            UnsupportedModelError,
            "siging",
        ),
        ({"chunkwise_kernel": "parallel--native_siging_custbw"}, UnsupportedModelError, "siging"),
        ({"add_qk_norm": True}, UnsupportedModelError, "add_qk_norm"),
        ({"add_qk_norm": False, "dropout": 0}, CheckpointError, "add_qk_norm, dropout"),
        ({"vocab_size": None}, CheckpointError, "vocab_size"),
        ({"num_heads": "four"}, CheckpointError, "num_heads"),
        ({"eps": "small"}, CheckpointError, "small"),
        ({"gate_soft_cap": -15.0}, CheckpointError, "gate_soft_cap is -15.0"),
        ({"norm_eps": float("nan")}, CheckpointError, "norm_eps is nan"),
        ({"num_heads": 4}, CheckpointError, "num_heads is 4, but the weights have 2"),
        ({"num_blocks": 3}, CheckpointError, "num_blocks is 3, but the weights have 2"),
        ({"embedding_dim": 32}, CheckpointError, "embedding_dim is 32"),
        ({"vocab_size": 60}, CheckpointError, "vocab_size is 60, but the weights have 61"),
        ({"use_bias": True}, CheckpointError, "q.bias is missing"),
        ({"add_out_norm": False}, CheckpointError, "unknown tensors: backbone.out_norm.weight"),
    ],
)
def test_configurations_refused(
    tmp_path: Path, fields: dict[str, Any], kind: type[Exception], words: str
) -> None:
    source = edit(make_xlstm_large(tmp_path), **fields)
    with pytest.raises(kind, match=re.escape(words)) as caught:
        xlstm_large.read(source)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_other_kernels_and_types_are_accepted(tmp_path: Path) -> None:
    made = make_xlstm_large(tmp_path)
    plain = xlstm_large.read(made.source).spec
    source = edit(
        made, chunkwise_kernel="chunkwise--triton_xl_chunk", step_kernel="triton", mode="train",
        norm_reduction_force_float32=False, autocast_kernel_dtype="float16", chunk_size=128,
        inference_state_dtype="bfloat16", weight_mode="fused", qk_dim_factor=0.25,
    )  # fmt: skip
    assert xlstm_large.read(source).spec == plain
    logits, _ = upstream(xlstm_large.FAMILY, source).run(IDS)
    assert logits.shape == (2, 150, 61)


Q, GATE = "backbone__blocks__1__mlstm_layer__q__weight", "backbone__blocks__0__mlstm_layer__"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({Q: None}, "blocks.1.mlstm_layer.q.weight is missing"),
        ({Q: torch.zeros(31, 64)}, "q.weight [31, 64] say 31"),
        ({Q: torch.zeros(32, 63)}, "q.weight has shape [32, 63], expected [32, 64]"),
        ({"lm_head__weight": None}, "lm_head.weight is missing"),
        ({"lm_head__weight": torch.zeros(60, 64)}, "lm_head.weight has shape [60, 64]"),
        ({"embedding__weight": torch.zeros(61)}, "embedding.weight has shape [61]"),
        ({GATE + "igate_preact__bias": torch.zeros(2, 1)}, "igate_preact.bias has shape"),
        ({"backbone__extra": torch.zeros(3)}, "unknown tensors: backbone.extra"),
        ({"backbone__blocks__3__norm_ffn__weight": torch.zeros(64)}, "num_blocks is 2"),
    ],
)
def test_tensors_refused(
    tmp_path: Path, changes: dict[str, torch.Tensor | None], words: str
) -> None:
    source = edit_tensors(make_xlstm_large(tmp_path), **changes)
    with pytest.raises(CheckpointError, match=re.escape(words)) as caught:
        xlstm_large.read(source)
    assert "\n" not in str(caught.value)


def test_integer_weights_refused(tmp_path: Path) -> None:
    source = edit_tensors(make_xlstm_large(tmp_path), **{Q: torch.zeros(32, 64, dtype=torch.int8)})
    with pytest.raises(UnsupportedModelError, match=r"q\.weight is stored as int8"):
        xlstm_large.read(source)


def test_a_shard_alone_asks_for_its_folder(tmp_path: Path) -> None:
    make_xlstm_large(tmp_path, shards=3)
    with pytest.raises(
        CheckpointError, match=r"model_1\.safetensors: is one of 3 shards; give the"
    ):
        xlstm_large.read(Source(tmp_path / "model_1.safetensors"))


def test_broken_files_are_named(tmp_path: Path) -> None:
    source = make_xlstm_large(tmp_path, shards=3).source
    (tmp_path / "model_1.safetensors").rename(tmp_path / "away")
    with pytest.raises(CheckpointError, match=r"model_1\.safetensors: no such file"):
        xlstm_large.read(source)
    (tmp_path / "model_1.safetensors").write_bytes(b"\x10")
    with pytest.raises(CheckpointError, match=r"model_1\.safetensors: not a readable safetensors"):
        xlstm_large.read(source)
    for number in range(3):
        (tmp_path / f"model_{number}.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"no weights; expected one of model\.safetensors"):
        xlstm_large.read(source)
    config = make_xlstm_large(tmp_path).source.path / "config.yaml"
    for text in ("a: [1", "- 1", ""):
        config.write_text(text)
        with pytest.raises(CheckpointError, match=r"config\.yaml"):
            xlstm_large.read(source)
    config.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CheckpointError, match=r"config\.yaml"):
        xlstm_large.detect(source)
    config.unlink()
    with pytest.raises(CheckpointError, match=r"config\.yaml: no such configuration"):
        xlstm_large.read(source)


def test_oracle_without_upstream_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_xlstm_large(tmp_path).source
    monkeypatch.delitem(sys.modules, "xlstm_export.families.xlstm_large.oracle", raising=False)
    monkeypatch.setitem(sys.modules, "xlstm.xlstm_large.model", None)
    with pytest.raises(BackendUnavailableError, match=r"pip install 'torch\S+ 'xlstm\S+ 'mls"):
        upstream(xlstm_large.FAMILY, source)
