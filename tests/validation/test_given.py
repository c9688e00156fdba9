"""Files of inputs: what they hold becomes rollouts, and what does not fit is told."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import xlstm_export as xe
from tests.families.tirex2_checkpoints import write_tirex2
from tests.model_cases import BY_ID, Library
from xlstm_export.checkpoint.source import Source
from xlstm_export.errors import InputError
from xlstm_export.model.spec import ModelSpec
from xlstm_export.model.weights import Weights
from xlstm_export.pipeline import read_checkpoint
from xlstm_export.reference.model import ReferenceModel
from xlstm_export.validation.given import read_inputs, real_rollouts


def read_of(source: Path) -> tuple[ModelSpec, Weights]:
    checkpoint = read_checkpoint(Source(source))
    return checkpoint.spec, checkpoint.weights


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


def test_a_table_with_times_and_another_delimiter(library: Library, tmp_path: Path) -> None:
    """The column of the time is no series, nor is a row one number."""
    case = BY_ID["tirex-small"]
    (tmp_path / "a.csv").write_text("time;load\n1;10\n2;20\n3;30\n")
    (call,) = read_inputs(
        tmp_path / "a.csv", library.bundle(case), library.checkpoint(case).spec, batch=2
    ).rollouts[0]
    np.testing.assert_array_equal(call["context"][:1], [[10, 20, 30]])
    (tmp_path / "a.csv").write_text("word\nnone\n")
    with pytest.raises(InputError, match="has no column of numbers"):
        read_inputs(tmp_path / "a.csv", tmp_path, library.checkpoint(case).spec, batch=2)


def test_columns_are_the_targets_of_a_tirex2(tmp_path: Path) -> None:
    """Side by side in one group, without covariates; an array of targets is the same."""
    spec = read_checkpoint(Source(write_tirex2(tmp_path / "source"))).spec
    numbers = np.random.default_rng(0).standard_normal((40, 2)).cumsum(0).astype(np.float32)
    np.savetxt(tmp_path / "a.csv", numbers, "%.8g", ",", header="a,b", comments="")
    np.save(tmp_path / "a.npy", numbers.T[None])
    for name in ("a.csv", "a.npy"):
        given = read_inputs(tmp_path / name, tmp_path, spec, batch=2)
        (call,) = given.rollouts[0]
        assert given.rows == 1
        np.testing.assert_allclose(call["context"][:1], numbers.T[None], rtol=1e-6)
        assert call["past_covariates"].shape[1:] == (0, 40)
        assert call["future_covariates"].shape[1] == 0
        assert call["groups"].shape[1:] == (2,)
        assert not call["groups"].any()
        outputs, _ = ReferenceModel(*read_of(tmp_path / "source")).run(call)
        assert outputs["quantiles"].shape[1] == 2


def test_every_row_of_ids_counts(library: Library, lm: Path, tmp_path: Path) -> None:
    """Rows are sequences of their own, and few of them run at once."""
    spec = library.checkpoint(BY_ID["stack-mixed"]).spec
    ids = np.random.default_rng(0).integers(0, 199, (19, 700))
    np.save(tmp_path / "a.npy", ids)
    found = real_rollouts(tmp_path / "a.npy", lm, spec)
    whole = [np.concatenate([call["input_ids"] for call in r], axis=1) for r in found]
    np.testing.assert_array_equal(np.concatenate(whole), ids)
    assert max(call["input_ids"].size for r in found for call in r) <= 8 * 512


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", b"x", "nothing to predict"),
        ("a.bin", b"x", "give a .txt, .npy, .npz, .csv, or .json"),
        ("a.npy", b"no array", "not a readable .npy file"),
        ("a.npy", b"", "not a readable .npy file"),
        ("a.npz", b"PK\x03\x04", "not a readable .npz file"),
        ("a.txt", b"\xff\xfe", "is no UTF-8 text"),
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
        (np.ones((2, 3)), "a.npy: input_ids: holds float64, expected whole numbers"),
        (np.array([["a", "b"]]), "a.npy: input_ids: holds <U1, expected whole numbers"),
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
