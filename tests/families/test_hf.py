"""The transformers reader and its oracle against xLSTMForCausalLM itself."""

from __future__ import annotations

import errno
import importlib
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.models.xlstm.modeling_xlstm import xLSTMForCausalLM

from tests.families.large_checkpoints import (
    Made,
    assert_splits_agree,
    edit_tensors,
    expected_weights,
    make_hf,
    make_xlstm_large,
    rms_difference,
    stored_in_bfloat16,
)
from tests.families.upstream import upstream
from xlstm_export.checkpoint.source import Source
from xlstm_export.errors import BackendUnavailableError, CheckpointError, UnsupportedModelError
from xlstm_export.families import hf, xlstm_large
from xlstm_export.model.layers.logit_head import LogitHead
from xlstm_export.model.layers.mlstm import MLSTM
from xlstm_export.model.layers.norm import Norm

IDS = np.random.default_rng(1).integers(0, 61, size=(2, 130))

EMBEDDING = "backbone.embeddings.weight"


def edit(made: Made, **fields: Any) -> Source:
    """``made`` with configuration fields set, or removed where they are ``...``."""
    path = made.source.path / "config.json"
    values = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({k: v for k, v in values.items() if v is not ...}))
    return made.source


@pytest.mark.parametrize("use_bias", [False, True])
def test_weights_are_upstreams(tmp_path: Path, use_bias: bool) -> None:
    made = make_hf(tmp_path, use_bias=use_bias)
    assert hf.detect(made.source)
    checkpoint = hf.read(made.source)
    expected = expected_weights(made.model, 2, "backbone.embeddings")
    assert checkpoint.weights.keys() == expected.keys()
    # transformers gives this norm no bias, whatever use_bias says
    assert "out_norm.bias" not in checkpoint.weights
    assert ("layers.1.mlstm.head_norm.bias" in checkpoint.weights) == use_bias
    for name, weight in checkpoint.weights.items():
        assert np.array_equal(weight.load(), expected[name]), name


def test_equals_the_same_model_in_the_other_layout(tmp_path: Path) -> None:
    large = make_xlstm_large(tmp_path / "large", seed=5)
    other = make_hf(tmp_path / "hf", seed=5, weight_mode="fused", shards=3)
    tensors = load_file(large.source.path / "model.safetensors")
    tensors[EMBEDDING] = tensors.pop("embedding.weight")
    single = make_hf(tmp_path / "single", seed=6)
    save_file(tensors, single.source.path / "model.safetensors")
    theirs, states = upstream(xlstm_large.FAMILY, large.source).run(IDS)
    ours, our_states = upstream(hf.FAMILY, single.source).run(IDS)
    assert rms_difference(ours, theirs) < 1e-12
    assert all(rms_difference(our_states[key], states[key]) < 1e-12 for key in states)
    assert hf.read(other.source).spec == hf.read(single.source).spec


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"weight_mode": "fused", "use_bias": True},
        {"num_heads": 4, "norm_eps": 1e-2, "eps": 1e-2, "gate_soft_cap": 2.0},
        {"embedding_dim": 192, "num_heads": 1},
        {"embedding_dim": 80, "qk_dim_factor": 0.3, "v_dim_factor": 0.7, "ffn_proj_factor": 1.3},
        {"dtype": "float16", "tied": True, "legacy_keys": True, "shards": 2},
    ],
)
def test_oracle_is_exact_in_any_split(tmp_path: Path, config: dict[str, Any]) -> None:
    oracle = upstream(hf.FAMILY, make_hf(tmp_path, **config).source)
    assert_splits_agree(oracle, IDS, [1, 65, 66, 129])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("shards", [1, 4])
def test_oracle_is_what_transformers_loads(tmp_path: Path, dtype: str, shards: int) -> None:
    made = make_hf(tmp_path, embedding_dim=128, dtype=dtype, shards=shards)
    checkpoint = hf.read(made.source)
    weight = checkpoint.weights["layers.0.mlstm.v.weight"]
    assert weight.dtype == dtype
    numpy_type = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
    assert weight.load().dtype == numpy_type
    shard_names = [f"model-{n + 1:05d}-of-{shards:05d}.safetensors" for n in range(shards)]
    names = ["model.safetensors"] if shards == 1 else shard_names
    assert [path.name for path in checkpoint.files] == ["config.json", *names]
    oracle = upstream(hf.FAMILY, made.source)
    logits, states = oracle.run(IDS)
    loaded = xLSTMForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    with torch.no_grad():
        output = loaded(torch.from_numpy(IDS), use_cache=True)
    assert rms_difference(output.logits.double().numpy(), logits) < 5e-6
    for layer, state in output.cache_params.rnn_state.items():
        for letter, theirs in zip("Cnm", state, strict=True):
            ours = states[f"{layer}.mlstm.{letter}"]
            assert rms_difference(theirs.double().numpy().reshape(ours.shape), ours) < 5e-6
    assert re.fullmatch(
        r"transformers \S+ xLSTMForCausalLM \(via xlstm \S+\), "
        r"chunkwise native_autograd / step native, float64",
        oracle.oracle.name,
    )


def test_oracle_without_the_package_xlstm_uses_transformers_own_blocks(tmp_path: Path) -> None:
    made = make_hf(tmp_path, use_bias=True)
    edit(made, gate_soft_cap=None, output_logit_soft_cap=None)
    program = (
        "import sys, numpy as np, transformers.utils as u; from pathlib import Path\n"
        "u.is_xlstm_available = lambda: False\n"
        "from tests.families.upstream import upstream\n"
        "from xlstm_export.checkpoint.source import Source\n"
        "from xlstm_export.families import hf\n"
        "oracle = upstream(hf.FAMILY, Source(Path(sys.argv[1])))\n"
        "print(oracle.oracle.name)\n"
        "ids = np.load(sys.argv[1] + '/ids.npy')\n"
        "first, state = oracle.run(ids[:, :1])\n"
        "rest, _ = oracle.run(ids[:, 1:], state)\n"
        "np.save(sys.argv[1] + '/logits.npy', np.concatenate([first, rest], 1))\n"
    )
    np.save(tmp_path / "ids.npy", IDS)
    command = [sys.executable, "-c", program, str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "xLSTMForCausalLM (own kernels)" in done.stdout
    logits, _ = upstream(hf.FAMILY, made.source).run(IDS)
    assert rms_difference(np.load(tmp_path / "logits.npy"), logits) < 1e-12


def test_legacy_keys_give_the_same_model(tmp_path: Path) -> None:
    new = make_hf(tmp_path / "new", num_blocks=3)
    old = make_hf(tmp_path / "old", num_blocks=3, legacy_keys=True)
    assert "hidden_size" not in json.loads((old.source.path / "config.json").read_text())
    assert hf.detect(old.source)
    assert hf.read(old.source).spec == hf.read(new.source).spec
    logits, _ = upstream(hf.FAMILY, new.source).run(IDS)
    legacy, _ = upstream(hf.FAMILY, old.source).run(IDS)
    assert np.array_equal(legacy, logits)


def test_either_name_of_a_size_is_enough(tmp_path: Path) -> None:
    made = make_hf(tmp_path)
    spec = hf.read(made.source).spec
    # the state in which transformers leaves a configuration that was made with legacy names
    assert hf.read(edit(made, hidden_size=4096, num_hidden_layers=32)).spec == spec
    made = make_hf(tmp_path)
    assert hf.read(edit(made, embedding_dim=None, num_blocks=...)).spec == spec
    assert hf.read(edit(made, hidden_size=..., num_hidden_layers=..., num_heads=...)).spec == spec


def test_tied_head(tmp_path: Path) -> None:
    made = make_hf(tmp_path, tied=True)
    checkpoint = hf.read(made.source)
    assert [head.tied_to for head in checkpoint.spec.layers_of(LogitHead)] == ["embedding"]
    assert "head.weight" not in checkpoint.weights
    logits, _ = upstream(hf.FAMILY, made.source).run(IDS)
    with torch.no_grad():  # made with one tensor for both
        theirs = made.model(torch.from_numpy(IDS), use_cache=False).logits
    assert rms_difference(theirs.double().numpy(), logits) < 5e-6
    rounded, _ = upstream(hf.FAMILY, made.source, "bfloat16").run(IDS[:, :5])
    tensors = stored_in_bfloat16(made.source)
    save_file(
        tensors | {"lm_head.weight": tensors[EMBEDDING].clone()}, tmp_path / "model.safetensors"
    )
    both, _ = upstream(hf.FAMILY, made.source).run(IDS[:, :5])
    assert np.array_equal(rounded, both)


def test_stored_head_wins_over_the_flag(tmp_path: Path) -> None:
    made = make_hf(tmp_path)
    head = made.model.lm_head.weight.detach().numpy()
    checkpoint = hf.read(edit(made, tie_word_embeddings=True))
    assert [head.tied_to for head in checkpoint.spec.layers_of(LogitHead)] == [""]
    assert np.array_equal(checkpoint.weights["head.weight"].load(), head)


def test_no_head_and_no_flag_is_refused(tmp_path: Path) -> None:
    source = edit_tensors(make_hf(tmp_path), lm_head__weight=None)
    with pytest.raises(CheckpointError, match=r"lm_head\.weight is missing.*tie_word_embeddings"):
        hf.read(source)


def test_caps_of_null_and_zero_are_off(tmp_path: Path) -> None:
    made = make_hf(tmp_path)
    capped, _ = upstream(hf.FAMILY, made.source).run(IDS[:, :9])
    off = edit(made, gate_soft_cap=None, output_logit_soft_cap=None)
    spec = hf.read(off).spec
    heads, mixers = spec.layers_of(LogitHead), spec.layers_of(MLSTM)
    assert [head.soft_cap for head in heads] == [0.0]
    assert [mixer.cell.gate_soft_cap for mixer in mixers] == [0.0, 0.0]
    without, _ = upstream(hf.FAMILY, off).run(IDS[:, :9])
    assert rms_difference(capped, without) > 1e-3
    zero = edit(made, gate_soft_cap=0, output_logit_soft_cap=0.0)
    assert hf.read(zero).spec == spec
    assert np.array_equal(upstream(hf.FAMILY, zero).run(IDS[:, :9])[0], without)


def test_out_norm_is_there_whatever_the_flag_says(tmp_path: Path) -> None:
    made = make_hf(tmp_path, add_out_norm=False, norm_eps=1e-3)
    assert dict(hf.read(made.source).spec.layers)["out_norm"] == Norm("rms", 1e-3, 64)


def test_torch_files_and_their_index(tmp_path: Path) -> None:
    made = make_hf(tmp_path)
    spec = hf.read(made.source).spec
    tensors = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    checkpoint = hf.read(made.source)
    assert checkpoint.spec == spec
    assert checkpoint.files[1].name == "pytorch_model.bin"
    (tmp_path / "pytorch_model.bin").rename(tmp_path / "a.bin")
    weight_map = dict.fromkeys(tensors, "a.bin")
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    assert hf.read(made.source).spec == spec


@pytest.mark.parametrize(
    ("fields", "kind", "words"),
    [
        (
            {"chunkwise_kernel": "chunkwise--triton_xl_chunk_siging"},
            UnsupportedModelError,
            "siging",
        ),
        ({"add_qk_norm": True}, UnsupportedModelError, "add_qk_norm"),
        ({"quantization_config": {"bits": 4}}, UnsupportedModelError, "quantization_config"),
        ({"num_heads": 8}, CheckpointError, "num_heads is 8, but the weights have 2"),
        ({"num_blocks": 32}, CheckpointError, "num_blocks is 32, but the weights have 2"),
        ({"num_blocks": None, "num_hidden_layers": 3}, CheckpointError, "num_hidden_layers is 3"),
        ({"embedding_dim": 4096}, CheckpointError, "embedding_dim is 4096"),
        ({"embedding_dim": None, "hidden_size": 4096}, CheckpointError, "hidden_size is 4096"),
        ({"vocab_size": 50304}, CheckpointError, "vocab_size is 50304"),
        ({"use_bias": True}, CheckpointError, "q.bias is missing"),
        ({"eps": "x"}, CheckpointError, "config.json"),
        ({"eps": 10**400}, CheckpointError, "config.json"),
        ({"num_heads": [2]}, CheckpointError, 'field "num_heads"'),
        ({"tie_word_embeddings": "yes"}, CheckpointError, 'field "tie_word_embeddings"'),
        ({"output_logit_soft_cap": -1}, CheckpointError, "output_logit_soft_cap is -1.0"),
    ],
)
def test_configurations_refused(
    tmp_path: Path, fields: dict[str, Any], kind: type[Exception], words: str
) -> None:
    source = edit(make_hf(tmp_path), **fields)
    with pytest.raises(kind, match=re.escape(words)) as caught:
        hf.read(source)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"backbone__embeddings__weight": None}, "backbone.embeddings.weight is missing"),
        ({"lm_head__weight": None}, "lm_head.weight is missing, and the configuration does not"),
        ({"backbone__out_norm__weight": torch.ones(63)}, "out_norm.weight has shape [63]"),
        ({"backbone__out_norm__bias": torch.ones(64)}, "unknown tensors: backbone.out_norm.bias"),
        ({"backbone__blocks__0__ffn__proj_up__weight": None}, "0.ffn.proj_up.weight is missing"),
    ],
)
def test_tensors_refused(
    tmp_path: Path, changes: dict[str, torch.Tensor | None], words: str
) -> None:
    source = edit_tensors(make_hf(tmp_path), **changes)
    with pytest.raises(CheckpointError, match=re.escape(words)):
        hf.read(source)


def test_missing_shards_and_files_are_named(tmp_path: Path) -> None:
    source = make_hf(tmp_path, shards=3).source
    second = tmp_path / "model-00002-of-00003.safetensors"
    second.rename(tmp_path / "away")
    with pytest.raises(CheckpointError, match=second.name):
        hf.read(source)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": "../away"}}))
    with pytest.raises(CheckpointError, match=r"lists \.\./away, which is not in its folder"):
        hf.read(source)
    for content in ({"tensors": {}}, {"weight_map": {}}, {"weight_map": {"x": 5}}):
        index.write_text(json.dumps(content))
        with pytest.raises(CheckpointError, match=r"index\.json: no weight_map"):
            hf.read(source)
    index.unlink()
    with pytest.raises(CheckpointError, match=f"{second.name}: no such file, one of 3 shards"):
        hf.read(source)
    config = tmp_path / "config.json"
    for text in ('{"a": ', "[]"):
        config.write_text(text)
        with pytest.raises(CheckpointError, match=r"config\.json"):
            hf.detect(source)
    config.unlink()
    with pytest.raises(CheckpointError, match=r"config\.json: no such file"):
        hf.read(source)


def test_a_shard_alone_asks_for_its_folder(tmp_path: Path) -> None:
    make_hf(tmp_path, shards=3)
    shard = tmp_path / "model-00001-of-00003.safetensors"
    with pytest.raises(CheckpointError, match=f"{shard.name}: is one of 3 shards; give their fold"):
        hf.read(Source(shard))


def test_names_behind_a_prefix(tmp_path: Path) -> None:
    """Lightning's is taken off, one of the user's own is named."""
    made = make_hf(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    plain, _ = upstream(hf.FAMILY, made.source, "float16").run(IDS)
    save_file({f"model.{name}": tensor for name, tensor in tensors.items()}, path)
    logits, _ = upstream(hf.FAMILY, made.source, "float16").run(IDS)
    np.testing.assert_array_equal(logits, plain)
    save_file({f"student.{name}": tensor for name, tensor in tensors.items()}, path)
    with pytest.raises(
        CheckpointError, match=rf"student\.{EMBEDDING} is there: .*--prefix student"
    ):
        hf.read(made.source)
    inner = replace(made.source, prefix="student")
    np.testing.assert_array_equal(upstream(hf.FAMILY, inner, "float16").run(IDS)[0], plain)


def test_a_configuration_that_may_not_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_text(path: Path, encoding: str) -> str:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    source = make_hf(tmp_path).source
    monkeypatch.setattr(Path, "read_text", read_text)
    for use in (hf.detect, hf.read):
        with pytest.raises(CheckpointError, match=r"json: cannot be read \(Permission denied\)"):
            use(source)


def test_detect(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    for text, expected in (
        ('{"model_type": "xlstm"}', True),
        ('{"architectures": ["xLSTMForCausalLM"]}', True),
        ('{"model_type": "llama", "architectures": null}', False),
        ('{"architectures": 5}', False),
        ('{"architectures": {"xLSTMForCausalLM": 1}}', False),
        ('{"model_type": ["xlstm"], "architectures": [null, ["a"], 5]}', False),
    ):
        config.write_text(text)
        assert hf.detect(Source(tmp_path)) is expected
        assert hf.detect(Source(tmp_path / "model.safetensors", config)) is expected
    config.rename(tmp_path / "config.yaml")
    assert not hf.detect(Source(tmp_path))


def test_oracle_without_upstream_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_hf(tmp_path).source
    monkeypatch.delitem(sys.modules, "xlstm_export.families.hf.oracle", raising=False)
    monkeypatch.setitem(sys.modules, "transformers.models.xlstm.configuration_xlstm", None)
    with pytest.raises(BackendUnavailableError, match=r"pip install 'torch\S+ 'xlstm\S+ 'mls"):
        upstream(hf.FAMILY, source)


def test_upstream_that_misses_a_package_of_its_own_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """mlstm_kernels before 2.0.3 imports triton when its layers are made."""

    def make(*_: object) -> None:
        raise ModuleNotFoundError("No module named 'triton'")

    hf_oracle = importlib.import_module("xlstm_export.families.hf.oracle")
    monkeypatch.setattr(hf_oracle.upstream, "xLSTMForCausalLM", make)
    with pytest.raises(BackendUnavailableError, match=r"triton.*pip install 'torch\S+ 'xlstm"):
        upstream(hf.FAMILY, make_hf(tmp_path).source)
