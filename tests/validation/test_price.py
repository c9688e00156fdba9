"""What few bits cost, measured against the checkpoint's own numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import xlstm_export as xe
from tests.families.large_checkpoints import make_hf
from tests.generation.byte_tokenizer import save_byte_tokenizer
from tests.model_cases import BY_ID, Library
from xlstm_export.bundle.calibration import CALIBRATION_FILE
from xlstm_export.errors import BundleError
from xlstm_export.lowering.options import LoweringOptions
from xlstm_export.reference.model import ReferenceModel
from xlstm_export.runtime.open import open_session
from xlstm_export.validation import price as price_module
from xlstm_export.validation.price import STEPS, measure_price

DEMO = Path(__file__).resolve().parents[2] / "recipes" / "demo"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The trained language model, in every number of bits."""
    folder = tmp_path_factory.mktemp("demo")
    chosen = {"fp32": {}, "int8": {"weight_format": "int8"}, "int4": {"weight_format": "int4"}}
    return {
        name: xe.export(DEMO / "char_lm", folder / name, **options).path  # type: ignore[arg-type]
        for name, options in chosen.items()
    }


def test_wide_weights_cost_nothing(library: Library) -> None:
    case = BY_ID["hf-plain"]
    checkpoint, bundle = library.checkpoint(case), library.bundle(case, LoweringOptions())
    session = open_session(bundle)
    model = ReferenceModel(checkpoint.spec, checkpoint.weights, form="chunkwise")
    ids = np.random.default_rng(0).integers(0, 199, (1, 200))
    price = measure_price(session, model, checkpoint.spec, session.manifest, 0, ids)
    assert price.distance < 1e-4
    assert price.language is not None
    assert price.perplexity is not None
    assert price.language.positions == price.perplexity.tokens == 199
    assert abs(price.perplexity.change) < 1e-4


def test_fewer_bits_cost_more_and_a_report_says_so(demo: dict[str, Path]) -> None:
    """The whole way: the verdict is of the graph, the price stands beside it."""
    found = {}
    for name, bundle in demo.items():
        report = xe.validate(bundle, DEMO / "char_lm", upstream=False, batch=1)
        assert report.verdict == "self-consistent"
        found[name] = report.price
        told = [note for note in report.notes if "against the checkpoint's own numbers" in note]
        assert len(told) == (name != "fp32")
        assert '"kl_mean"' in report.to_json()
    assert found["fp32"] is None
    eight, four = found["int8"], found["int4"]
    assert 1e-3 < eight.distance < four.distance < 0.3
    assert eight.language.kl_mean < four.language.kl_mean
    assert eight.by_step[-1][0] == STEPS
    late = np.mean([x for _, x in four.by_step[-4:]])
    assert late < 3 * np.mean([x for _, x in four.by_step[:4]]), "the error grows with the steps"


def test_a_long_text_is_read_in_part(
    demo: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float64 all of a large file would take days."""
    monkeypatch.setattr(price_module, "MOST_TOKENS", 100)
    (tmp_path / "a.txt").write_text("The ray of light is bent. " * 20)
    report = xe.validate(
        demo["int8"], DEMO / "char_lm", upstream=False, batch=1, inputs=tmp_path / "a.txt"
    )
    assert report.price is not None
    assert report.price.perplexity is not None
    assert report.price.perplexity.tokens == 100
    told = "on the first 100 of the 520 tokens of the given text"
    assert any(told in note for note in report.notes)


def test_calibrated_scales_are_judged_by_what_the_bundle_holds(tmp_path: Path) -> None:
    """Upstream's module gets the same numbers; without the file of the calibration nothing does."""
    source = make_hf(tmp_path / "source", vocab_size=256).source.path
    save_byte_tokenizer(source / "tokenizer.json")
    (tmp_path / "text.txt").write_text("a text of some length, and of more than one kind of word")
    made = [
        xe.export(source, tmp_path / name, weight_format="int4", block_size=16, calibrate=text)
        for name, text in (("plain", None), ("calibrated", tmp_path / "text.txt"))
    ]
    data = [(bundle.path / "model.onnx.data").read_bytes() for bundle in made]
    assert data[0] != data[1]
    assert xe.validate(made[1], source).verdict == "validated"
    calibration = made[1].path / CALIBRATION_FILE
    calibration.write_bytes(calibration.read_bytes()[:-4] + b"abcd")
    with pytest.raises(BundleError, match="is not the one that the weights were stored by"):
        xe.validate(made[1], source)
    calibration.unlink()
    with pytest.raises(BundleError, match=r"calibration\.safetensors: missing"):
        xe.validate(made[1], source)
