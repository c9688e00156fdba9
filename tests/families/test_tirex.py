"""The family ``tirex``: what is read is upstream's model, and what is wrong is named."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from tests.families.tirex_checkpoints import SMALL, hyper_parameters, make_tirex
from xlstm_export.checkpoint.source import Source
from xlstm_export.errors import BackendUnavailableError, CheckpointError, UnsupportedModelError
from xlstm_export.families import tirex
from xlstm_export.families.registry import find_family
from xlstm_export.families.tirex.oracle import InDouble, TiRexOracle, build
from xlstm_export.model.numerics import rounds, with_numerics
from xlstm_export.model.storage import Storage
from xlstm_export.reference.model import ReferenceModel

PATCH, CONTEXT = SMALL["patch"], SMALL["context"]
LENGTHS = (1, 5, PATCH, CONTEXT // 2 + 3, CONTEXT, CONTEXT + 13)


def series(rows: int, length: int) -> np.ndarray[Any, Any]:
    """Random walks, with a gap where there is room for one."""
    random = np.random.default_rng(length)
    walks = random.standard_normal((rows, length)).cumsum(1)
    walks[0, length // 3 : length // 2] = np.nan
    return walks.astype(np.float32)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize(
    "sizes", [{}, {"heads": 1, "size": 64, "hidden": 33, "patch": 16}], ids=str
)
def test_the_model_read_is_upstreams(tmp_path: Path, length: int, sizes: dict[str, int]) -> None:
    made = make_tirex(tmp_path, **sizes)
    checkpoint = tirex.read(made.source)
    model = ReferenceModel(checkpoint.spec, checkpoint.weights)
    oracle = tirex.FAMILY.oracle(checkpoint, Storage("float32"))
    context = series(3, length)
    (mine, states), (exact, theirs) = (x.run({"context": context}) for x in (model, oracle))
    np.testing.assert_allclose(mine["quantiles"], exact["quantiles"], rtol=1e-9, atol=1e-9)
    assert states.keys() == theirs.keys()
    for key, value in theirs.items():
        np.testing.assert_allclose(states[key], value, rtol=1e-9, atol=1e-9, err_msg=key)
    upstream, _ = made.model._forecast_quantiles(torch.from_numpy(context))
    spread = exact["quantiles"].std()
    assert np.abs(upstream.numpy() - exact["quantiles"]).max() < 0.05 * spread  # a flip at most


@pytest.mark.parametrize("length", [5, CONTEXT // 2 + 3, CONTEXT + 5])
def test_states_carried_are_upstreams_accelerated_rollout(tmp_path: Path, length: int) -> None:
    """One forward of upstream over the window and unknown patches after it, rounding included."""
    checkpoint = tirex.read(make_tirex(tmp_path).source)
    model = ReferenceModel(checkpoint.spec, checkpoint.weights)
    oracle = build(checkpoint, Storage("float32"))
    context = series(2, length)
    first, states = model.run({"context": context})
    for patches in (2, 5, 16):
        unknown = np.full((2, (patches - 1) * PATCH), np.nan, np.float32)
        rest, _ = model.run({"context": unknown}, states)
        mine = np.concatenate([first["quantiles"], rest["quantiles"]], axis=1)
        exact = upstreams_rollout(oracle, context, patches, at_once=patches)
        np.testing.assert_allclose(mine, exact, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("length", [5, CONTEXT // 2 + 3, CONTEXT + 5])
def test_beginning_again_is_upstreams_default_rollout(tmp_path: Path, length: int) -> None:
    checkpoint = tirex.read(make_tirex(tmp_path).source)
    model = ReferenceModel(checkpoint.spec, checkpoint.weights)
    oracle = build(checkpoint, Storage("float32"))
    context = series(2, length)
    found = []
    for patches in range(5):
        unknown = np.full((2, patches * PATCH), np.nan, np.float32)
        outputs, _ = model.run({"context": np.concatenate([context, unknown], axis=1)})
        found.append(outputs["quantiles"])
    exact = upstreams_rollout(oracle, context, 5, at_once=1)
    np.testing.assert_allclose(np.concatenate(found, axis=1), exact, rtol=1e-9, atol=1e-9)
    carried = upstreams_rollout(oracle, context, 5, at_once=5)
    assert np.abs(carried - exact).max() > 1e-3 * exact.std()  # they are two things


def upstreams_rollout(
    oracle: TiRexOracle, context: np.ndarray[Any, Any], patches: int, at_once: int
) -> np.ndarray[Any, Any]:
    """Upstream's loop over ``patches``, ``at_once`` of them a forward, in the oracle's types."""
    window, found = torch.from_numpy(context.astype(np.float64)), []
    with torch.inference_mode(), InDouble(rounds=True):
        for _ in range(patches // at_once):
            part = oracle.module._forecast_single_step(window, at_once)
            found.append(part.swapaxes(1, 2).numpy())
            window = torch.cat([window, torch.full_like(part[:, 0], torch.nan)], dim=-1)
    return np.concatenate(found, axis=1)


def test_without_rounding_it_is_upstream_in_float64(tmp_path: Path) -> None:
    checkpoint = tirex.read(make_tirex(tmp_path).source)
    assert rounds(checkpoint.spec)
    plain = with_numerics(checkpoint.spec, "fp32")
    assert not rounds(plain)
    oracle = tirex.FAMILY.oracle(
        checkpoint.__class__(**{**vars(checkpoint), "spec": plain}), Storage("float32")
    )
    context = series(2, CONTEXT)
    exact = oracle.run({"context": context})[0]["quantiles"]
    mine = ReferenceModel(plain, checkpoint.weights).run({"context": context})[0]["quantiles"]
    np.testing.assert_allclose(mine, exact, rtol=1e-9, atol=1e-9)
    rounded = ReferenceModel(checkpoint.spec, checkpoint.weights).run({"context": context})
    assert np.abs(rounded[0]["quantiles"] - exact).max() > 1e-4 * exact.std()


def unpacked(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The state dict of model.ckpt, which is taken away, and its hyper-parameters."""
    content = torch.load(folder / "model.ckpt", weights_only=True)
    (folder / "model.ckpt").unlink()
    return content["state_dict"], content["hyper_parameters"]


@pytest.mark.parametrize("name", ["config.json", "hyper_parameters.json", "hparams.yaml"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_safetensors_beside_their_hyper_parameters(
    tmp_path: Path, name: str, wrapped: bool
) -> None:
    source = make_tirex(tmp_path).source
    spec = tirex.read(source).spec
    tensors, hyper = unpacked(tmp_path)
    save_file(tensors, tmp_path / "model.safetensors")
    values = {"hyper_parameters": hyper} if wrapped else hyper
    write = json.dumps if name.endswith(".json") else yaml.safe_dump
    (tmp_path / name).write_text(write(values), encoding="utf-8")
    assert find_family(source) is tirex.FAMILY
    assert tirex.read(source).spec == spec
    (tmp_path / name).rename(tmp_path / "else.yaml")
    given = Source(tmp_path / "model.safetensors", config=tmp_path / "else.yaml")
    assert tirex.read(given).spec == spec


def test_names_without_the_prefix_of_training(tmp_path: Path) -> None:
    made = make_tirex(tmp_path)
    wanted = tirex.read(made.source)
    content = torch.load(tmp_path / "model.ckpt", weights_only=True)
    content["state_dict"] = made.model.state_dict()
    torch.save(content, tmp_path / "model.ckpt")
    found = tirex.read(made.source)
    assert found.spec == wanted.spec
    assert found.weights.keys() == wanted.weights.keys()
    content["state_dict"] |= {f"block_stack.{k}": v for k, v in made.model.state_dict().items()}
    torch.save(content, tmp_path / "model.ckpt")
    with pytest.raises(CheckpointError, match=r"is there without block_stack\. as well"):
        tirex.read(made.source)


Change = Callable[[dict[str, Any]], object]
CONFIG = "model_config"
KERNEL = "block_stack.blocks.1.slstm_layer.slstm_cell._recurrent_kernel_"
BIAS = "block_stack.blocks.0.slstm_layer.slstm_cell._bias_"

WRONG: list[tuple[Change, str]] = [
    (lambda c: c.pop("hyper_parameters"), "the hyper-parameters of TiRex are missing"),
    (lambda c: c["hyper_parameters"].pop("train_ctx_len"), "train_ctx_len is missing"),
    (lambda c: c["hyper_parameters"].pop(CONFIG), "model_config is missing"),
    *(
        (lambda c, n=name: c["hyper_parameters"][CONFIG].pop(n), f"model_config.{name} is missing")
        for name in ("input_patch_size", "output_patch_size", "quantiles", "input_ff_dim")
    ),
    (
        lambda c: c["hyper_parameters"][CONFIG]["block_kwargs"].pop("num_heads"),
        "model_config.block_kwargs.num_heads is missing",
    ),
    (
        lambda c: c["hyper_parameters"].update(train_ctx_len=100),
        "train_ctx_len is 100, which is no multiple of model_config.input_patch_size 8",
    ),
    (lambda c: c["hyper_parameters"].update(train_ctx_len=0), "train_ctx_len is 0"),
    (lambda c: c["hyper_parameters"].update(train_ctx_len="long"), "train_ctx_len is long"),
    (lambda c: c["hyper_parameters"].update(rope=True), "unknown fields: rope"),
    (
        lambda c: c["hyper_parameters"][CONFIG].update(nan_mask_value=1),
        "unknown fields: model_config.nan_mask_value",
    ),
    (
        lambda c: c["hyper_parameters"][CONFIG].update(quantiles=[0.9, 0.5]),
        "model_config.quantiles is [0.9, 0.5]",
    ),
    (
        lambda c: c["hyper_parameters"][CONFIG].update(quantiles=[0.1, 0.5]),
        "output_patch_size is 16, but tensor output_patch_embedding.output_layer.weight says 40",
    ),
    (
        lambda c: c["hyper_parameters"][CONFIG].update(input_patch_size=4, output_patch_size=4),
        "input_patch_size is 8, but tensor input_patch_embedding.hidden_layer.weight says 16",
    ),
    (
        lambda c: c["hyper_parameters"][CONFIG].update(input_ff_dim=64),
        "model_config.input_ff_dim is 64",
    ),
    *(
        (
            lambda c, n=name: c["hyper_parameters"][CONFIG]["block_kwargs"].update({n: 4}),
            f"model_config.block_kwargs.{name} is 4",
        )
        for name in ("embedding_dim", "num_heads", "num_blocks")
    ),
    (
        lambda c: c["state_dict"].update({KERNEL: c["state_dict"][KERNEL].mT.contiguous()}),
        "_recurrent_kernel_ has shape [2, 128, 32], expected [2, 32, 128]",
    ),
    (lambda c: c["state_dict"].pop(BIAS), "blocks.0.slstm_layer.slstm_cell._bias_ is missing"),
    (lambda c: c["state_dict"].pop("block_stack.out_norm.weight"), "out_norm.weight"),
    (lambda c: c["state_dict"].update(extra=torch.ones(3)), "unknown tensors: extra"),
    (
        lambda c: c["state_dict"].update({BIAS: c["state_dict"][BIAS].to(torch.int32)}),
        "_bias_ is stored as int32",
    ),
]


@pytest.mark.parametrize(("change", "words"), WRONG, ids=[words for _, words in WRONG])
def test_what_is_wrong_is_named(tmp_path: Path, change: Change, words: str) -> None:
    source = make_tirex(tmp_path).source
    content = torch.load(tmp_path / "model.ckpt", weights_only=True)
    change(content)
    torch.save(content, tmp_path / "model.ckpt")
    with pytest.raises((CheckpointError, UnsupportedModelError), match=re.escape(words)) as caught:
        tirex.read(source)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_patches_of_two_sizes_are_refused(tmp_path: Path) -> None:
    source = make_tirex(tmp_path).source
    tensors, hyper = unpacked(tmp_path)
    hyper["model_config"]["output_patch_size"] = 16
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(hyper))
    with pytest.raises(UnsupportedModelError, match="output_patch_size is 16"):
        tirex.read(source)


def test_another_checkpoint_is_none(tmp_path: Path) -> None:
    torch.save({"state_dict": {"decoder.weight": torch.ones(3)}}, tmp_path / "model.ckpt")
    source = Source(tmp_path)
    assert not tirex.detect(source)
    with pytest.raises(CheckpointError, match=r"is no TiRex: .*input_patch_embedding"):
        tirex.read(source)


def test_detection_leaves_other_folders_alone(tmp_path: Path) -> None:
    assert not tirex.detect(Source(tmp_path))
    (tmp_path / "model.onnx").write_bytes(b"\x08\x08")
    assert not tirex.detect(Source(tmp_path))
    assert not tirex.detect(Source(tmp_path / "nothing"))


def test_pickled_objects_are_not_built(tmp_path: Path) -> None:
    """Beside the tensors they are skipped, in place of the hyper-parameters they are named."""
    source = make_tirex(tmp_path).source
    content = torch.load(tmp_path / "model.ckpt", weights_only=True)
    content["hyper_parameters"] = {"model_config": Path("x"), "train_ctx_len": 96}
    torch.save(content, tmp_path / "model.ckpt")
    with pytest.raises(CheckpointError, match="model_config is"):
        tirex.read(source)


def test_hyper_parameters_are_the_reference(tmp_path: Path) -> None:
    fields = tirex.read(make_tirex(tmp_path).source).fields
    hyper = hyper_parameters(**SMALL)
    assert fields.train_ctx_len == hyper["train_ctx_len"]
    assert fields.model_config.quantiles == hyper["model_config"]["quantiles"]


def test_oracle_without_upstream_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = tirex.read(make_tirex(tmp_path).source)
    monkeypatch.delitem(sys.modules, "xlstm_export.families.tirex.oracle", raising=False)
    monkeypatch.setitem(sys.modules, "tirex.models.tirex", None)
    with pytest.raises(BackendUnavailableError, match=r"pip install 'torch\S+ 'tirex-ts>=1\.4'"):
        tirex.FAMILY.oracle(checkpoint, Storage("float32"))
