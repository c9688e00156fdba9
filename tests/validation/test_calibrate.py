"""Mixed bits under a bound, chosen on a user's own input."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import xlstm_export as xe
from tests.families.large_checkpoints import make_hf
from tests.generation.byte_tokenizer import save_byte_tokenizer
from xlstm_export.bundle.low_bit import Mixed
from xlstm_export.bundle.manifest import DATA_FILE
from xlstm_export.errors import OptionError

FORECASTER = Path(__file__).resolve().parents[2] / "recipes" / "demo" / "forecaster"
FOUR = {"weight_format": "int4", "block_size": 16}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model of random weights that reads bytes, with a text beside it."""
    folder = make_hf(tmp_path_factory.mktemp("source"), vocab_size=256).source.path
    save_byte_tokenizer(folder / "tokenizer.json")
    text = "a text of some length, and of more than one kind of word; " * 4
    (folder / "text.txt").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def narrow(source: Path, tmp_path_factory: pytest.TempPathFactory) -> xe.Bundle:
    """All in 4 bits: whatever they cost is allowed."""
    out, text = tmp_path_factory.mktemp("narrow") / "out", source / "text.txt"
    return xe.export(source, out, calibrate=text, max_kl=1e9, **FOUR)  # type: ignore[arg-type]


def mixed_of(bundle: xe.Bundle) -> Mixed:
    low_bit = bundle.manifest.low_bit
    assert low_bit is not None
    assert low_bit.mixed is not None
    return low_bit.mixed


def data_bytes(bundle: xe.Bundle) -> int:
    return (bundle.path / DATA_FILE).stat().st_size


def test_a_bound_on_kl_is_met_by_raising_what_costs_most(
    source: Path, narrow: xe.Bundle, tmp_path: Path
) -> None:
    text, loose, found = source / "text.txt", mixed_of(narrow), {}
    for name, part in (("half", 2), ("tight", 1000)):
        most = loose.narrowest / part
        made = xe.export(source, tmp_path / name, calibrate=text, max_kl=most, **FOUR)  # type: ignore[arg-type]
        found[name] = mixed_of(made)
        assert found[name].error <= most
        assert found[name].measure == "kl"
        assert data_bytes(made) > data_bytes(narrow)
    assert not loose.raised
    assert loose.error == loose.narrowest
    errors = [choice.error for choice in found["half"].choices]
    assert errors == sorted(errors, reverse=True)
    assert found["half"].raised
    assert 0 < len(found["half"].raised) < len(found["tight"].raised)
    report = xe.validate(tmp_path / "half", source, batch=1)
    assert report.verdict == "validated", "the graph is exact for what it holds"
    notes = " ".join(report.notes)
    assert "bits are mixed: KL divergence" in notes
    assert found["half"].raised[0].words in notes
    assert found["half"].raised[0].words in xe.inspect(tmp_path / "half").words["weights"]


def test_a_size_is_filled_and_not_exceeded(source: Path, narrow: xe.Bundle, tmp_path: Path) -> None:
    target = int(1.3 * data_bytes(narrow))
    text = source / "text.txt"
    made = xe.export(source, tmp_path / "out", calibrate=text, target_size=target, **FOUR)  # type: ignore[arg-type]
    assert data_bytes(narrow) < data_bytes(made) <= target
    assert mixed_of(made).error < mixed_of(made).narrowest
    assert mixed_of(made).raised
    stored = json.loads((made.path / "xlstm_export.json").read_text(encoding="utf-8"))
    assert stored["low_bit"]["mixed"]["choices"][0]["names"]


def test_bounds_that_cannot_be_met_say_what_can(source: Path, narrow: xe.Bundle) -> None:
    text, out = source / "text.txt", source / "never"
    cases = [
        ({"target_size": "9kB"}, "target_size", r"9\.00 kB is less than the .* of all weights"),
        ({"target_size": "9GB"}, "target_size", r"9\.00 GB holds all weights as they are"),
        ({"max_kl": 1e-30}, "max_kl", "leaves no weight in few bits"),
        (
            {"max_kl": mixed_of(narrow).narrowest / 1000, "target_size": data_bytes(narrow) + 4096},
            "max_kl", r" takes .*; in .* it is ",
        ),
    ]  # fmt: skip
    for given, option, message in cases:
        with pytest.raises(OptionError, match=message) as caught:
            xe.export(source, out, calibrate=text, **FOUR, **given)  # type: ignore[arg-type]
        assert caught.value.option == option
        assert not out.exists()


def test_every_row_of_an_array_counts(source: Path, tmp_path: Path) -> None:
    """The first alone would choose other scales, and measure another error."""
    ids = np.random.default_rng(0).integers(97, 123, (12, 90))
    ids[1:] = ids[1:] % 5
    found = {}
    for name, rows in (("all", ids), ("first", ids[:1])):
        np.save(tmp_path / f"{name}.npy", rows)
        given = {"calibrate": tmp_path / f"{name}.npy", "max_kl": 1e9}
        found[name] = xe.export(source, tmp_path / name, **given, **FOUR)  # type: ignore[arg-type]
    digests = [made.manifest.low_bit.calibration for made in found.values()]  # type: ignore[union-attr]
    assert digests[0] != digests[1]
    assert mixed_of(found["all"]).narrowest != mixed_of(found["first"]).narrowest


def test_a_tokenizer_one_folder_up_reads_the_text(source: Path, tmp_path: Path) -> None:
    """Where training writes one for all of its checkpoints, as the bundle's copy comes from."""
    run = tmp_path / "run"
    shutil.copytree(source, run / "checkpoint-5")
    (run / "checkpoint-5" / "tokenizer.json").rename(run / "tokenizer.json")
    made = xe.export(
        run / "checkpoint-5", tmp_path / "out", calibrate=source / "text.txt",
        weight_format="int4", block_size=16,
    )  # fmt: skip
    assert (made.path / "tokenizer.json").is_file()
    assert (made.path / "calibration.safetensors").is_file()


def test_a_forecaster_is_measured_by_its_quantiles(tmp_path: Path) -> None:
    series = np.random.default_rng(0).standard_normal((504, 2)).cumsum(0)
    np.savetxt(tmp_path / "series.csv", series, "%.5g", ",", header="a,b", comments="")
    given = {**FOUR, "calibrate": tmp_path / "series.csv"}
    made = xe.export(FORECASTER, tmp_path / "out", target_size="300kB", **given)  # type: ignore[arg-type]
    assert mixed_of(made).measure == "distance"
    assert mixed_of(made).error < mixed_of(made).narrowest
    with pytest.raises(OptionError, match="yield no logits; give target_size"):
        xe.export(FORECASTER, tmp_path / "never", max_kl=1.0, **given)  # type: ignore[arg-type]
