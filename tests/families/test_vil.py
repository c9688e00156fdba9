"""Vision-LSTM: three layouts of one model, its sizes from its tensors, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from tests.families.vil_checkpoints import make_vil
from tests.model_cases import ONE_PER_FAMILY, VIL, Library, ModelCase
from xlstm_export import pipeline
from xlstm_export.errors import CheckpointError, OptionError, UnsupportedModelError
from xlstm_export.families.registry import find_family
from xlstm_export.families.vil.positions import resized
from xlstm_export.families.vil.variants import variant
from xlstm_export.inspection import inspect
from xlstm_export.model.layers.end_pooling import EndPooling
from xlstm_export.model.layers.flipped import Flipped
from xlstm_export.model.layers.patch_convolution import PatchConvolution
from xlstm_export.model.layers.residual import Residual
from xlstm_export.model.layers.up_projected_mlstm import UpProjectedMLSTM
from xlstm_export.model.storage import Storage
from xlstm_export.reference.model import ReferenceModel

Tensors = dict[str, torch.Tensor]
LAYER = "blocks.0.rowwise_from_top_left.layer"


@pytest.mark.parametrize("version", [1, 2])
def test_the_published_layout_is_the_modules(tmp_path: Path, version: Any) -> None:
    trained, module = (
        pipeline.read_checkpoint(make_vil(tmp_path / layout, version=version, layout=layout))
        for layout in ("trained", "module")
    )
    assert trained.spec == module.spec
    assert trained.tensors.keys() != module.tensors.keys()
    for name, weight in trained.weights.items():
        np.testing.assert_array_equal(weight.load(), module.weights[name].load())


@pytest.mark.parametrize("case", VIL, ids=str)
def test_our_model_is_the_module(library: Library, case: ModelCase) -> None:
    """Apart from eps, whose weight is relative to a maximum that the parallel form has not."""
    source, checkpoint = library.source(case), library.checkpoint(case)
    assert find_family(source).package.endswith(".vil")
    oracle = find_family(source).oracle(checkpoint, Storage("float32"))
    ours = ReferenceModel(checkpoint.spec, checkpoint.weights)
    shape = checkpoint.spec.inputs[0].shape[1:]
    feeds = {"pixel_values": np.random.default_rng(0).standard_normal((3, *shape), np.float32)}
    (name,) = (output.name for output in checkpoint.spec.outputs)
    wanted = oracle.run(feeds)[0][name]
    assert wanted.shape[1:] == checkpoint.spec.outputs[0].shape[1:]
    assert wanted.std() > 0.3
    difference = np.abs(ours.run(feeds)[0][name] - wanted).max()
    assert difference < 1e-5 * np.abs(wanted).max()


def test_what_the_tensors_say(tmp_path: Path) -> None:
    spec = pipeline.read_checkpoint(make_vil(tmp_path, version=1, blocks=3)).spec
    assert [spec.inputs[0].shape, spec.outputs[0].shape] == [("batch", 3, 12, 20), ("batch", 7)]
    assert spec.recurrence == "inner"
    assert spec.layers_of(EndPooling) == [EndPooling("mean")]
    blocks = [layer for _, layer in spec.layers if isinstance(layer, Residual)]
    assert [isinstance(block.inner, Flipped) for block in blocks] == [False, True, False]
    assert {(m.cell.heads, m.block_size, m.grid) for m in spec.layers_of(UpProjectedMLSTM)} == {
        (4, 4, None)
    }
    second = pipeline.read_checkpoint(make_vil(tmp_path / "two")).spec
    assert {m.grid for m in second.layers_of(UpProjectedMLSTM)} == {(3, 5)}
    assert second.layers_of(EndPooling) == [EndPooling("concat")]


def test_a_published_name_says_the_stride(tmp_path: Path) -> None:
    source = make_vil(tmp_path, version=1, patch=16, grid=(2, 2), file="vil_x16_in1k_stride8.th")
    named = make_vil(
        tmp_path / "vil_stride8", version=1, patch=16, grid=(2, 2), file="model.safetensors"
    )
    for found in (source, replace(source, path=tmp_path), replace(named, path=named.path.parent)):
        (patches,) = pipeline.read_checkpoint(found).spec.layers_of(PatchConvolution)
        assert patches.stride == (8, 8)
    (tmp_path / "no.yaml").write_text("stride: 16\n")
    said = pipeline.read_checkpoint(replace(source, config=tmp_path / "no.yaml"))
    assert said.spec.layers_of(PatchConvolution)[0].stride == (16, 16)


@pytest.mark.parametrize("grid", [(14, 14), (5, 9), (28, 3), (1, 1), (24, 24)])
def test_positions_are_resized_as_torch_resizes(grid: tuple[int, int]) -> None:
    table = np.random.default_rng(0).standard_normal((14, 6, 5))
    image = torch.from_numpy(table).permute(2, 0, 1)[None]
    wanted = F.interpolate(image, size=grid, mode="bicubic")[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(resized(table, grid), wanted, rtol=0, atol=1e-13)


def test_published_sizes() -> None:
    assert variant(2, 192, 24, (16, 16), (16, 16)) == "vil2-tiny"
    assert variant(1, 768, 24, (16, 16), (8, 8)) == "vil-base-stride8"
    assert variant(1, 192, 24, (8, 8), (8, 8)) == ""
    assert variant(2, 192, 29, (16, 16), (16, 16)) == ""


def test_inspect(tmp_path: Path) -> None:
    source = make_vil(tmp_path, version=2, size=192, blocks=24, patch=16, grid=(2, 2))
    facts = inspect(source.path)
    assert facts.data["published"] == "vil2-tiny"
    assert facts.words["family"] == "vil, of the sizes of vil2-tiny"
    assert facts.words["layers"] == [
        "patches of 16x16, one every 16x16",
        "   0-23  mLSTM 4 heads of 96x96, inner size 384, convolution 3x3 over 2x2",
    ]
    assert facts.words["state"] == "none: every call begins anew"


def _without(key: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name: t for name, t in tensors.items() if name != key}


def _with(key: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {**tensors, key: change(tensors[key]).contiguous()}


BROKEN: dict[str, tuple[Callable[[Tensors], Tensors], str]] = {
    "no gate": (
        _without(f"{LAYER}.mlstm_cell.fgate.weight"),
        rf"tensor {LAYER}\.mlstm_cell\.fgate\.weight is missing",
    ),
    "no convolution's bias": (_without(f"{LAYER}.conv.bias"), rf"{LAYER}\.conv\.bias is missing"),
    "one bias less": (_without(f"{LAYER}.q_proj.bias"), rf"{LAYER}\.q_proj\.bias is missing"),
    "one norm's bias less": (
        _without("blocks.1.rowwise_from_top_left.norm.bias"),
        r"blocks\.1\.rowwise_from_top_left\.norm\.bias is missing",
    ),
    "no norm": (_without("norm.weight"), r"tensor norm\.weight is missing"),
    "no patches": (_without("patch_embed.proj.bias"), r"patch_embed\.proj\.bias is missing"),
    "transposed projection": (
        _with(f"{LAYER}.proj_down.weight", torch.t),
        rf"{LAYER}\.proj_down\.weight",
    ),
    "transposed head": (_with("head.weight", torch.t), r"head\.weight has shape \[32, 7\]"),
    "flat positions": (
        _with("pos_embed.embed", lambda t: t.flatten(1, 2)),
        r"pos_embed\.embed has shape \[1, 15, 16\]",
    ),
    "positions of another size": (
        _with("pos_embed.embed", lambda t: t[..., :8]),
        r"disagree on the model size: pos_embed\.embed",
    ),
    "another number of heads": (
        _with(f"{LAYER}.mlstm_cell.igate.bias", lambda t: t[:3]),
        r"disagree on the number of heads: .*igate\.bias \[3\]",
    ),
    "even convolution": (
        _with(f"{LAYER}.conv.weight", lambda t: t[..., :2, :2]),
        rf"{LAYER}\.conv\.weight is 2 wide",
    ),
    "oblong convolution": (
        _with(f"{LAYER}.conv.weight", lambda t: t[..., :2, :]),
        rf"{LAYER}\.conv\.weight has shape \[32, 1, 2, 3\]",
    ),
    "a token for the class": (
        lambda tensors: {**tensors, "cls_tokens.tokens": torch.ones(1, 1, 16)},
        r"unknown tensors: cls_tokens\.tokens",
    ),
    "no blocks' convolutions": (
        lambda tensors: {n: t for n, t in tensors.items() if ".conv." not in n},
        r"no block has a convolution",
    ),
    "inside another model": (
        lambda tensors: {f"backbone.{n}": t for n, t in tensors.items()},
        r"patch_embed\.proj\.weight is missing, but backbone\.patch_embed\.proj\.weight is there: "
        r"give --prefix backbone\.",
    ),
    "not a number": (
        _with("head.bias", lambda t: t * float("nan")),
        r"tensor head\.bias holds NaN",
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_broken_sources(tmp_path: Path, fault: str) -> None:
    source = make_vil(tmp_path, layout="module", file="vil.safetensors")
    change, words = BROKEN[fault]
    save_file(change(load_file(source.path)), source.path)
    with pytest.raises(CheckpointError, match=words) as told:
        pipeline.export(source.path, tmp_path / "out")
    assert str(source.path) in str(told.value)
    assert not (tmp_path / "out").exists()


def test_a_part_of_another_model(tmp_path: Path) -> None:
    source = make_vil(tmp_path, layout="module", file="vil.safetensors")
    tensors = {f"backbone.{n}": t for n, t in load_file(source.path).items()}
    save_file({**tensors, "decoder.weight": torch.ones(2)}, source.path)
    assert pipeline.export(source.path, tmp_path / "out", prefix="backbone").left_out == (
        "decoder.weight",
    )


SETTINGS = {
    "stride: 0": "stride [0, 0] is not 2",
    "stride: [2, 2, 2]": "stride [2, 2, 2] is not 2",
    "input_shape: [12, 20]": "input_shape [12, 20] is not 3",
    "input_shape: [3, 12, 21]": "12x21 is not a multiple of the patches' 4x4",
    "resolution: 224": "unknown fields: resolution",
    "stride: 2": "patches that do not overlap",
}


@pytest.mark.parametrize("text", SETTINGS)
def test_wrong_settings(tmp_path: Path, text: str) -> None:
    source = make_vil(tmp_path)
    config = tmp_path / "settings.yaml"
    config.write_text(text)
    with pytest.raises((CheckpointError, UnsupportedModelError), match=re.escape(SETTINGS[text])):
        pipeline.read_checkpoint(replace(source, config=config))


@pytest.mark.parametrize("words", ["13x20", "0x4", "4", "4x4x4", "axb", "-4x4", ""])
def test_wrong_resolutions(tmp_path: Path, words: str) -> None:
    with pytest.raises(OptionError) as told:
        pipeline.export(make_vil(tmp_path).path, tmp_path / "out", resolution=words)
    assert told.value.option == "resolution"


def test_a_language_model_has_no_resolution(library: Library) -> None:
    source = library.source(ONE_PER_FAMILY[0])
    with pytest.raises(OptionError, match="takes no images"):
        pipeline.export(source.path, library.root / "none", resolution=(32, 32))
