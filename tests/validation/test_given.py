"""Files of inputs: what they hold becomes rollouts, and what does not fit is told."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import xlstm_export as xe
from tests.model_cases import BY_ID, Library
from xlstm_export.errors import InputError
from xlstm_export.validation.given import read_inputs

DEMO = Path(__file__).resolve().parents[2] / "recipes" / "demo" / "char_lm"


@pytest.fixture
def lm(library: Library, tmp_path: Path) -> Path:
    """A bundle of a language model that has a tokenizer of 91 characters."""
    bundle = Path(shutil.copytree(library.bundle(BY_ID["stack-mixed"]), tmp_path / "lm"))
    shutil.copy(DEMO / "tokenizer.json", bundle)
    return bundle


def test_a_text_is_cut_into_rows_and_kept_whole(library: Library, lm: Path, tmp_path: Path) -> None:
    spec = library.checkpoint(BY_ID["stack-mixed"]).spec
    (tmp_path / "a.txt").write_text("The ray of light is bent. " * 4)
    given = read_inputs(tmp_path / "a.txt", lm, spec, batch=2)
    assert given.rows == 2
    assert given.text is not None
    assert given.text.shape == (104,)
    (rollout,) = given.rollouts
    whole = np.concatenate([call["input_ids"] for call in rollout], axis=1)
    assert whole.shape == (8, 104)
    assert np.array_equal(whole[0], given.text)
    assert np.array_equal(whole[1], np.roll(given.text, -13))


def test_arrays_by_name_and_alone(library: Library, lm: Path, tmp_path: Path) -> None:
    spec = library.checkpoint(BY_ID["stack-mixed"]).spec
    ids = np.arange(90).reshape(3, 30)
    np.save(tmp_path / "a.npy", ids)
    np.savez(tmp_path / "a.npz", input_ids=ids, past=np.zeros(3))
    for name in ("a.npy", "a.npz"):
        given = read_inputs(tmp_path / name, lm, spec, batch=2)
        assert given.rows == 3
        parts = [call["input_ids"] for call in given.rollouts[0]]
        whole = np.concatenate(parts, axis=1)
        assert np.array_equal(whole[:3], ids)
        assert whole.shape == (27, 30)


def test_a_table_is_series(library: Library, tmp_path: Path) -> None:
    case = BY_ID["tirex-small"]
    (tmp_path / "a.csv").write_text("day,load,price\nmon,1,5\ntue,2,6\nwed,,7\n")
    given = read_inputs(
        tmp_path / "a.csv", library.bundle(case), library.checkpoint(case).spec, batch=2
    )
    expected = np.array([[1, 2, np.nan], [5, 6, 7]], np.float32)
    np.testing.assert_array_equal(given.rollouts[0][0]["context"][:2], expected)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", b"x", "nothing to predict"),
        ("a.bin", b"x", "give a .txt, .npy, .npz, .csv, or .json"),
        ("a.npy", b"no array", "not readable as .npy"),
        ("a.json", b"{", "not inputs that Polygraphy saved"),
        ("missing.npy", None, "cannot be read"),
    ],
)
def test_what_is_no_input_is_told(
    library: Library, lm: Path, tmp_path: Path, name: str, content: bytes | None, words: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    spec = library.checkpoint(BY_ID["stack-mixed"]).spec
    with pytest.raises(InputError, match=words):
        read_inputs(tmp_path / name, lm, spec, batch=2)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((2, 3, 4), np.int64), "shape"),
        (np.full((2, 3), 10_000), "token id 10000 is outside the vocabulary"),
        (np.zeros((2, 0), np.int64), "shape"),
    ],
)
def test_arrays_that_do_not_fit_are_told(
    library: Library, lm: Path, tmp_path: Path, array: np.ndarray, words: str
) -> None:
    np.save(tmp_path / "a.npy", array)
    spec = library.checkpoint(BY_ID["stack-mixed"]).spec
    with pytest.raises(InputError, match=words):
        read_inputs(tmp_path / "a.npy", lm, spec, batch=2)


def test_polygraphy_agrees_with_what_was_saved(library: Library, lm: Path, tmp_path: Path) -> None:
    """It runs the bundle as it is, in stock ONNX Runtime, on our inputs."""
    comparator = pytest.importorskip("polygraphy.comparator")
    from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx
    from polygraphy.json import load_json

    source = library.source(BY_ID["stack-mixed"]).path
    report = xe.validate(lm, source, save_io=tmp_path / "io", upstream=False, native=False)
    feeds = load_json(str(tmp_path / "io" / "inputs.json"))
    saved = comparator.RunResults.load(str(tmp_path / "io" / "outputs.json"))
    runner = OnnxrtRunner(SessionFromOnnx(str(lm / "model.onnx")), name="ort")
    results = comparator.Comparator.run([runner], data_loader=feeds)
    results.extend(saved)
    allowed = max(r.judgement.max_allowed for r in report.results if r.kind != "operator")
    compare = comparator.CompareFunc.simple(atol=2 * allowed)
    assert bool(comparator.Comparator.compare_accuracy(results, compare_func=compare))
    again = xe.validate(lm, source, inputs=tmp_path / "io" / "inputs.json", upstream=False)
    assert again.ok, again.explanation
    assert again.fed == "4 calls of inputs.json"
