"""Numbers recorded where a network was trained: what is written, and what it proves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import xlstm_export as xe
from tests.modules.networks import Detector, made, series


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, xe.Bundle]:
    network = made(Detector)
    return network, xe.export_module(network, series(), tmp_path_factory.mktemp("a") / "out")


def test_one_sample_and_several(tmp_path: Path) -> None:
    network = made(Detector)
    path = xe.record_samples(network, series(), tmp_path / "one.npz")
    with np.load(path) as one:
        assert sorted(one.files) == ["last", "score", "x"]
        np.testing.assert_array_equal(one["x"], series())
        with torch.no_grad():
            np.testing.assert_array_equal(one["score"], network(series())["score"])
    given = [{"x": series(1, 7)}, {"x": series(3, 4)}]
    names: dict[str, Any] = {"input_names": ["series"], "output_names": ["a", "b"]}
    with np.load(xe.record_samples(network, given, tmp_path / "two.npz", **names)) as two:
        assert sorted(two.files) == ["0/a", "0/b", "0/series", "1/a", "1/b", "1/series"]
        assert two["1/a"].shape == (3, 4, 1)


def test_a_bundle_reproduces_them(detector: tuple[Any, xe.Bundle], tmp_path: Path) -> None:
    network, bundle = detector
    given = [{"x": series(2, steps, seed)} for steps, seed in ((20, 3), (9, 4), (1, 5))]
    path = xe.record_samples(network, given, tmp_path / "samples.npz")
    report = xe.validate_module(bundle, network, series(), samples=path, threads=1)
    assert report.verdict == "validated", report.in_order()[0]
    assert {r.name for r in report.results} >= {"recorded score", "recorded last"}
    assert "recorded elsewhere" in report.explanation
    assert any(note.startswith("3 samples recorded elsewhere took part") for note in report.notes)


def test_another_model_is_seen(detector: tuple[Any, xe.Bundle], tmp_path: Path) -> None:
    """The bundle is what was read; what was read is not what was trained."""
    network, bundle = detector
    trained = made(Detector)
    trained.memory.conv_act_fn = nn.Identity()  # a setting that no shape shows
    path = xe.record_samples(trained, series(), tmp_path / "samples.npz")
    report = xe.validate_module(bundle, network, series(), samples=path, threads=1)
    assert report.verdict == "failed"
    wrong = {r.name for r in report.results if not r.judgement.ok}
    assert wrong == {"recorded score", "recorded last"}


def test_refusals(detector: tuple[Any, xe.Bundle], tmp_path: Path) -> None:
    network, bundle = detector
    with pytest.raises(xe.UnsupportedModelError, match="training mode"):
        xe.record_samples(Detector(), series(), tmp_path / "a.npz")
    with pytest.raises(xe.UnsupportedModelError, match="fails on inputs"):
        xe.record_samples(network, series()[..., :2], tmp_path / "a.npz")
    with pytest.raises(xe.InputError, match="2 names for 1 inputs"):
        xe.record_samples(network, series(), tmp_path / "a.npz", input_names=["a", "b"])
    assert not list(tmp_path.iterdir())

    def told(message: str, **arrays: Any) -> None:
        np.savez(tmp_path / "s.npz", **arrays)
        with pytest.raises(xe.InputError, match=message):
            xe.validate_module(bundle, network, series(), samples=tmp_path / "s.npz")

    x, score = series().numpy(), np.zeros((2, 20, 1), np.float32)
    told("holds ids, logits, where the bundle takes x and yields last, score", ids=x, logits=score)
    told("holds x, where the bundle", x=x)
    told("x: is missing", score=score)
    told("x: shape", x=x[..., :3], score=score)
    told("score holds what is no number", x=x, score=score * np.nan)
    told(r"score was recorded as \[2, 3, 1\]", x=x, score=score[:, :3])
    told(r"last was recorded as \[2, 20\], the bundle yields", x=x, last=score[..., 0])
    (tmp_path / "s.npz").write_bytes(b"PK no archive")
    with pytest.raises(xe.InputError, match=r"not a readable \.npz file"):
        xe.validate_module(bundle, network, series(), samples=tmp_path / "s.npz")
