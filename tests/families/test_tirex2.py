"""TiRex-2: our model in float64 is upstream's ``predict``; broken sources say what is wrong."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.numpy import load_file, save_file

from tests.cases import Array
from tests.families.tirex2_checkpoints import tirex2_config, write_tirex2
from xlstm_export.checkpoint.source import Checkpoint, Source
from xlstm_export.errors import CheckpointError, UnsupportedModelError
from xlstm_export.families import tirex2
from xlstm_export.families.registry import find_family
from xlstm_export.model.layers.mlstm import MLSTM
from xlstm_export.model.layers.slstm import SLSTM
from xlstm_export.model.storage import Storage
from xlstm_export.reference.model import ReferenceModel
from xlstm_export.validation.inputs import draw_rollouts
from xlstm_export.validation.variates import draw_series

pytest.importorskip("tirex2", reason="tirex-2 is not installed: pip install tirex-2")

CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "odd": {
        "size": 36, "heads": 2, "slstm_heads": 3, "variate_heads": 6, "context": 37, "future": 14,
        "patch": 7, "recipe": ("s", "m", "s"), "act_func": "torch.nn.ReLU", "hidden": 33,
        "quantiles": [0.1, 0.5, 0.9], "h_expand": 1.5,
    },
    "as-trained": {"slstm_heads": None, "tta_diff": False, "use_qk_norm": False},
    "squared-norm": {"stack_out_norm_config": {"eps": 1e-3}, "scaler_cfg": {"eps": 1e-5}},
    "binary": {
        "scaler_cfg": {"eps": 1e-8, "use_arcsinh": True, "binaryaware": True},
        "stack_out_norm_config": None, "recipe": ("s",), "context": 50,
    },
    "mirrored": {"tta_sign_flip": True, "recipe": ("s",), "quantiles": [0.05, 0.3, 0.5, 0.7, 0.95]},
}  # fmt: skip


def read(folder: Path) -> Checkpoint:
    return tirex2.read(Source(folder))


def feeds(targets: int, past: int, known: int, length: int, horizon: int) -> dict[str, Array]:
    random = np.random.default_rng(3)
    return {
        "context": draw_series((2, targets, length), random),
        "past_covariates": draw_series((2, past, length), random),
        "future_covariates": draw_series((2, known, length + horizon), random),
        "groups": np.zeros((2, targets + past + known), np.int64),
    }


@pytest.mark.parametrize("name", CONFIGURATIONS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_model_is_upstreams(tmp_path: Path, name: str, dtype: str) -> None:
    checkpoint = read(write_tirex2(tmp_path, **CONFIGURATIONS[name]))
    oracle = tirex2.FAMILY.oracle(checkpoint, Storage(dtype))
    model = ReferenceModel(checkpoint.spec, checkpoint.weights, dtype)
    for seed in range(2):
        for (call,) in draw_rollouts(checkpoint.spec, 5, seed):
            (wanted, _), (found, _) = oracle.run(call), model.run(call)
            size = np.abs(wanted["quantiles"]).max()
            assert np.isfinite(size)
            np.testing.assert_allclose(
                found["quantiles"], wanted["quantiles"], rtol=0, atol=1e-9 * size
            )


def test_the_oracle_leaves_upstream_as_it_was(tmp_path: Path) -> None:
    from tirex2.model.component import attention_block

    norm, stance = attention_block.norm, torch.get_default_dtype()
    checkpoint = read(write_tirex2(tmp_path))
    oracle = tirex2.FAMILY.oracle(checkpoint, Storage("float32"))
    oracle.run(feeds(1, 0, 1, 20, 8))
    assert attention_block.norm is norm
    assert torch.get_default_dtype() is stance
    assert "TORCHDYNAMO_DISABLE" not in os.environ


def test_what_is_read(tmp_path: Path) -> None:
    checkpoint = read(write_tirex2(tmp_path, slstm_heads=2))
    (mlstm,), (slstm,) = (checkpoint.spec.layers_of(kind) for kind in (MLSTM, SLSTM))
    assert (mlstm.cell.heads, mlstm.cell.qk_size, mlstm.cell.v_size) == (4, 4, 8)
    assert (mlstm.cell.gate_soft_cap, mlstm.cell.scale_side) == (15.0, 0)
    assert (slstm.heads, slstm.n_floor, slstm.head_norm_eps) == (2, 1.0, 1e-6)
    stored = load_file(tmp_path / "model.safetensors")
    cell = "stack.1.time_mixer.fwd_cell"
    weights = checkpoint.weights
    # the module called fgate feeds the input gate
    for slot, gate in (("input_gate", "fgate"), ("forget_gate", "igate")):
        found = weights[f"layers.1.slstm.cell.{slot}.weight"].load()
        np.testing.assert_array_equal(found, stored[f"{cell}.{gate}.weight"])
    bias = weights["layers.1.slstm.cell.R.bias"].load()
    np.testing.assert_array_equal(bias, stored[f"{cell}._bias_"].transpose(1, 0, 2))
    assert checkpoint.spec.forecast is not None
    assert checkpoint.spec.forecast.horizon == 24


def test_every_name_of_a_tensor_is_read(tmp_path: Path) -> None:
    """Whatever name the file stores, and all of them at once, as torch.save does."""
    folder = write_tirex2(tmp_path / "plain")
    plain = read(folder).weights
    stored = load_file(folder / "model.safetensors")
    renamed = {
        name.replace("fwd_cell", "rev_cell").replace("._recurrent_kernel_", ".recurrent_kernel"): t
        for name, t in stored.items()
    }
    for number, tensors in enumerate((renamed, stored | renamed)):
        other = write_tirex2(tmp_path / str(number))
        save_file(tensors, other / "model.safetensors")
        found = read(other).weights
        assert found.keys() == plain.keys()
        for name, weight in found.items():
            np.testing.assert_array_equal(weight.load(), plain[name].load())
    key = next(name for name in renamed if name.endswith("recurrent_kernel"))
    save_file(stored | renamed | {key: renamed[key] + 1}, other / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"_recurrent_kernel_.*differ, but are one tensor"):
        read(other)


def test_the_format_of_before(tmp_path: Path) -> None:
    """model-config.yaml and model.ckpt, a pickle of which nothing is executed."""
    folder = write_tirex2(tmp_path / "new")
    old = tmp_path / "old"
    old.mkdir()
    config = json.loads((folder / "config.json").read_text())
    (old / "model-config.yaml").write_text(yaml.safe_dump(config))
    tensors = {k: torch.from_numpy(v) for k, v in load_file(folder / "model.safetensors").items()}
    torch.save({"state_dict": tensors}, old / "model.ckpt")
    assert find_family(Source(old)) is tirex2.FAMILY
    found = read(old)
    assert found.spec == read(folder).spec
    assert [path.name for path in found.files] == ["model-config.yaml", "model.ckpt"]


def test_detection(tmp_path: Path) -> None:
    folder = write_tirex2(tmp_path / "it")
    assert find_family(Source(folder)) is tirex2.FAMILY
    (folder / "config.json").write_text('{"model_type": "xlstm"}')
    assert not tirex2.detect(Source(folder))


def _edit_config(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        change(config)
        (folder / "config.json").write_text(json.dumps(config))

    return edit


def _set(name: str, value: Any) -> Callable[[Path], None]:
    return _edit_config(lambda config: config.update({name: value}))


def _template(part: str, name: str, value: Any) -> Callable[[Path], None]:
    return _edit_config(
        lambda config: config["stack_config"]["templates"]["s"][part].update({name: value})
    )


def _edit_tensors(change: Callable[[dict[str, Array]], Any]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(
            {k: np.ascontiguousarray(v) for k, v in tensors.items()}, folder / "model.safetensors"
        )

    return edit


_KERNEL = "stack.1.time_mixer.fwd_cell._recurrent_kernel_"
_EMBEDDING = "input_patch_embedding.hidden_layer.weight"

_LOPSIDED = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.95]
BROKEN: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "no context_len": (
        _edit_config(lambda config: config.pop("context_len")), ("context_len", "missing"),
    ),
    "no recipe": (
        _edit_config(lambda config: config["stack_config"].pop("recipe")),
        ("stack_config.recipe", "missing"),
    ),
    "unknown template": (
        _edit_config(lambda config: config["stack_config"].update(recipe=["m", "x"])),
        ("stack_config.recipe", "'x'"),
    ),
    "levels without their opposites": (
        _edit_config(lambda config: config.update(tta_sign_flip=True, quantiles=_LOPSIDED)),
        ("tta_sign_flip", "0.1 without 0.9"),
    ),
    "recipe too long": (_set("num_blocks", 1), ("num_blocks is 1", "recipe has 2")),
    "future of part patches": (_set("future_len", 20), ("future_len is 20",)),
    "negative context": (_set("context_len", -1), ("context_len is -1",)),
    "patches differ": (_set("output_patch_size", 16), ("output_patch_size is 16",)),
    "other patches": (
        _edit_config(
            lambda config: config.update(
                input_patch_size=4, output_patch_size=4,
                tokenizer_cfg=dict.fromkeys(
                    ("input_patch_size", "output_patch_size", "input_patch_stride"), 4
                ),
            )
        ),
        ("input_patch_embedding",),
    ),
    "other width": (_set("input_ff_dim", 41), ("input_ff_dim is 41", _EMBEDDING)),
    "other head": (_set("h_expand", 3), ("h_expand", "output_patch_embedding")),
    "other size of a block": (
        _template("time_mixer", "embedding_dim", 64), ("time_mixer.embedding_dim is 64",),
    ),
    "heads": (
        _template("time_mixer", "num_slstm_heads", 2), ("num_slstm_heads is 2", "fgate"),
    ),
    "variate heads": (_template("variate_mixer", "num_heads", 5), ("num_heads is 5",)),
    "kind of cell": (_template("time_mixer", "model_type", "bi-gru"), ("model_type",)),
    "text for a number": (_set("context_len", "long"), ("context_len",)),
    "no quantiles": (_set("quantiles", []), ("quantiles",)),
    "quantiles": (_set("quantiles", [0.5]), ("output_patch_embedding",)),
    "unknown field": (_set("rotary", True), ("rotary",)),
    "transposed kernel": (
        _edit_tensors(lambda t: t.update({_KERNEL: t[_KERNEL].transpose(0, 2, 1, 3)})),
        (_KERNEL, "[4, 4, 8, 8]", "[4, 8, 4, 8]"),
    ),
    "missing tensor": (_edit_tensors(lambda t: t.pop(_KERNEL)), (_KERNEL, "missing")),
    "unknown tensor": (
        _edit_tensors(lambda t: t.update(extra=np.zeros(2, np.float32))), ("extra",),
    ),
    "one block more": (
        _edit_tensors(lambda t: t.update({_KERNEL.replace("k.1", "k.2"): t[_KERNEL]})),
        ("num_blocks is 2", "stack.2"),
    ),
    "the first TiRex": (
        _edit_tensors(
            lambda t: t.update({"blocks.0.slstm_layer.igate.weight": np.zeros(2, np.float32)})
        ),
        ("TiRex",),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_source_says_what_is_wrong(tmp_path: Path, name: str) -> None:
    edit, words = BROKEN[name]
    folder = write_tirex2(tmp_path)
    edit(folder)
    with pytest.raises(CheckpointError) as caught:
        read(folder)
    assert str(caught.value).startswith(str(folder))
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("edit", "word"),
    [
        (_set("act_func", "os.system"), "act_func"),
        (_set("act_func", "Hardswish"), "act_func"),
        (
            _edit_config(lambda config: config["tokenizer_cfg"].update(input_patch_stride=4)),
            "input_patch_stride",
        ),
    ],
)
def test_what_is_not_lowered_is_refused(
    tmp_path: Path, edit: Callable[[Path], None], word: str
) -> None:
    folder = write_tirex2(tmp_path)
    edit(folder)
    with pytest.raises(UnsupportedModelError, match=word):
        read(folder)


def test_no_configuration(tmp_path: Path) -> None:
    folder = write_tirex2(tmp_path)
    shutil.move(folder / "config.json", folder / "else.json")
    for source in (folder, folder / "model.safetensors"):
        assert find_family(Source(source)) is tirex2.FAMILY
        with pytest.raises(CheckpointError, match=r"config\.json: no such configuration"):
            read(source)


def test_harmless_fields(tmp_path: Path) -> None:
    """Where it runs, what the Hub adds, and what upstream takes out itself."""
    others = {"device": "cuda", "matmul_precision": "high", "transformers_version": "5"}
    folder = write_tirex2(tmp_path, **others)
    assert read(folder).spec == read(write_tirex2(tmp_path / "plain")).spec
    assert tirex2_config().keys() <= tirex2_config(**others).keys()
