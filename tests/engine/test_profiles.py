"""Shapes from words and numbers to profiles; every contradiction is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from xlstm_export.bundle.manifest import Manifest, read_manifest
from xlstm_export.engine.profiles import (
    Shape,
    ShapeOptions,
    ShapeRange,
    input_dims,
    make_profiles,
    parse_shapes,
    trtexec_shapes,
)
from xlstm_export.errors import EngineError


@pytest.fixture
def manifest(bundles: Path) -> Manifest:
    return read_manifest(bundles / "stack-fp16")


@pytest.mark.parametrize(
    ("words", "shapes"),
    [
        (["x:1x512"], {"x": (1, 512)}),
        (["x:[1,512]"], {"x": (1, 512)}),
        (["x:[1, 512]"], {"x": (1, 512)}),
        (["x:1x512,past.0.C:1x4"], {"x": (1, 512), "past.0.C": (1, 4)}),
        (["x:[1,512] past.0.C:[1,4]"], {"x": (1, 512), "past.0.C": (1, 4)}),
        (["x:[1,512],past.0.C:1x4"], {"x": (1, 512), "past.0.C": (1, 4)}),
        (["x:7", "y:[8]"], {"x": (7,), "y": (8,)}),
        (["'a:0':[1,2]"], {"a:0": (1, 2)}),
        (["x:[]"], {"x": ()}),
        ([], {}),
    ],
)
def test_shapes_as_trtexec_and_polygraphy_write_them(
    words: list[str], shapes: dict[str, Shape]
) -> None:
    assert parse_shapes(words) == shapes


@pytest.mark.parametrize(
    "word",
    ["x", "1x2", ":1x2", "x:", "x:1x", "x:1y2", "x:[1,2", "x:-1x2", "x:1.5", "x:1 x:2",
     "'x':1 'x':2", "'':1"],
)  # fmt: skip
def test_shapes_that_are_none(word: str) -> None:
    with pytest.raises(EngineError):
        parse_shapes([word])


def test_decode_and_prefill(manifest: Manifest) -> None:
    decode, prefill = make_profiles(manifest, ShapeOptions(max_batch_size=4, max_input_len=64))
    assert list(decode) == list(prefill) == list(input_dims(manifest))
    assert decode["input_ids"] == ShapeRange((1, 1), (4, 1), (4, 1))
    assert prefill["input_ids"] == ShapeRange((1, 1), (4, 64), (4, 64))
    for state in manifest.states:
        rest = tuple(state.shape[1:])
        assert decode[state.input] == ShapeRange((1, *rest), (4, *rest), (4, *rest))
        assert prefill[state.input] == decode[state.input]


def test_without_a_batch_asked_for_they_are_tuned_for_one_row(manifest: Manifest) -> None:
    decode, prefill = make_profiles(manifest, ShapeOptions(max_input_len=64))
    assert decode["input_ids"] == ShapeRange((1, 1), (1, 1), (8, 1))
    assert prefill["input_ids"] == ShapeRange((1, 1), (1, 64), (8, 64))


def test_lengths_of_a_ragged_bundle_follow_the_batch(bundles: Path) -> None:
    manifest = read_manifest(bundles / "ragged")
    decode, prefill = make_profiles(manifest, ShapeOptions(max_batch_size=3))
    for profile in (decode, prefill):
        assert profile["sequence_lengths"] == ShapeRange((1,), (3,), (3,))


def test_one_step_needs_one_profile(manifest: Manifest) -> None:
    assert len(make_profiles(manifest, ShapeOptions(max_input_len=1))) == 1


def test_explicit_shapes_fill_the_others(manifest: Manifest) -> None:
    options = ShapeOptions(
        min_shapes={"input_ids": (1, 1)},
        opt_shapes={"input_ids": (2, 16)},
        max_shapes={"input_ids": (8, 32)},
    )
    (profile,) = make_profiles(manifest, options)
    assert profile["input_ids"] == ShapeRange((1, 1), (2, 16), (8, 32))
    for state in manifest.states:
        rest = tuple(state.shape[1:])
        assert profile[state.input] == ShapeRange((1, *rest), (2, *rest), (8, *rest))


def test_missing_kinds_follow_those_given(manifest: Manifest) -> None:
    shape: Shape = (2, 16)
    for kind in ("min_shapes", "opt_shapes", "max_shapes"):
        (profile,) = make_profiles(manifest, ShapeOptions(**{kind: {"input_ids": shape}}))
        assert profile["input_ids"] == ShapeRange(shape, shape, shape)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (ShapeOptions(max_batch_size=0), "--max-batch-size 0"),
        (ShapeOptions(max_input_len=-1), "--max-input-len -1"),
        (ShapeOptions(max_input_len=2**31), "--max-input-len"),
        (ShapeOptions(max_batch_size=1, max_shapes={"input_ids": (1, 1)}), "leave them out"),
        (ShapeOptions(max_shapes={"nope": (1, 1)}), "nope: no input"),
        (ShapeOptions(max_shapes={"input_ids": (1, 1, 1)}), "rank 3"),
        (ShapeOptions(max_shapes={"input_ids": (0, 1)}), "no shape of"),
        (ShapeOptions(max_shapes={"past.0.conv.x": (1, 3, 5)}), "no shape of"),
        (ShapeOptions(max_shapes={"past.0.conv.x": (1, 3, 32)}), "how large sequence is"),
        (
            ShapeOptions(max_shapes={"input_ids": (1, 1), "past.0.conv.x": (2, 3, 32)}),
            "batch is 2",
        ),
        (
            ShapeOptions(min_shapes={"input_ids": (2, 1)}, max_shapes={"input_ids": (1, 1)}),
            "not in order",
        ),
    ],
)
def test_contradiction(manifest: Manifest, options: ShapeOptions, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        make_profiles(manifest, options)


def test_printed_shapes_read_back(manifest: Manifest) -> None:
    for profile in make_profiles(manifest, ShapeOptions()):
        text = trtexec_shapes(profile)
        for kind in ("min", "opt", "max"):
            shapes = {name: getattr(ranges, kind) for name, ranges in profile.items()}
            assert parse_shapes([text[f"--{kind}Shapes"]]) == shapes
