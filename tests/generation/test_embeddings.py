"""A bare stack over a file of embeddings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.families.block_stack_checkpoints import make_block_stack
from xlstm_export.errors import BundleError, TargetError
from xlstm_export.inference import run_embeddings
from xlstm_export.pipeline import export
from xlstm_export.runtime.ort import OrtSession
from xlstm_export.runtime.session import MOST_STEPS, run_split

SIZE = 16


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("embeddings")
    source, _ = make_block_stack(folder / "source", lm=False)
    return export(source.path, folder / "bundle").path


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_stretches_carry_the_state(bundle: Path, tmp_path: Path, dtype: str) -> None:
    embeds = normal(2, 1100, SIZE).astype(dtype)
    np.save(tmp_path / "in.npy", embeds)
    made = run_embeddings(bundle, tmp_path / "in.npy", tmp_path / "new" / "out.npy")
    assert made.shape == (2, 1100, SIZE)
    written = np.load(made.output)
    given = embeds.astype(np.float32)
    expected, _ = run_split(OrtSession(bundle), "inputs_embeds", given, MOST_STEPS)
    assert written.dtype == np.float32
    np.testing.assert_array_equal(written, expected["last_hidden_state"])
    assert [path.name for path in made.output.parent.iterdir()] == ["out.npy"]


def test_input_may_be_the_output(bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "x.npy"
    np.save(file, normal(1, 5, SIZE))
    expected, _ = OrtSession(bundle).run({"inputs_embeds": np.load(file)})
    run_embeddings(bundle, file, file)
    np.testing.assert_array_equal(np.load(file), expected["last_hidden_state"])


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (normal(5, SIZE), r"float64 \[5, 16\], expected floating-point \[batch, sequence, 16\]"),
        (normal(1, 5, SIZE + 1), r"\[1, 5, 17\]"),
        (normal(1, 0, SIZE), r"\[1, 0, 16\]"),
        (np.zeros((1, 5, SIZE), np.int64), "int64"),
        (np.array([{}], object), "not a readable .npy file"),
    ],
)
def test_files_that_do_not_fit(bundle: Path, tmp_path: Path, array: np.ndarray, words: str) -> None:
    np.save(tmp_path / "in.npy", array)
    with pytest.raises(BundleError, match=words):
        run_embeddings(bundle, tmp_path / "in.npy", tmp_path / "out.npy")
    assert not (tmp_path / "out.npy").exists()


def test_files_that_are_no_arrays(bundle: Path, tmp_path: Path) -> None:
    bad = {"text": b"hello", "empty": b"", "cut": b"\x93NUMPY\x01\x00v\x00{'descr'"}
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BundleError, match=f"{name}: not a readable .npy file"):
            run_embeddings(bundle, tmp_path / name, tmp_path / "out.npy")
    with pytest.raises(BundleError, match="absent: cannot be read"):
        run_embeddings(bundle, tmp_path / "absent", tmp_path / "out.npy")
    np.savez(tmp_path / "two.npz", a=normal(1, 2, SIZE), b=normal(1))
    with pytest.raises(BundleError, match="holds several arrays"):
        run_embeddings(bundle, tmp_path / "two.npz", tmp_path / "out.npy")


def test_output_that_is_a_folder(bundle: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "in.npy", normal(1, 2, SIZE))
    with pytest.raises(TargetError, match="is a folder"):
        run_embeddings(bundle, tmp_path / "in.npy", tmp_path)


def test_language_models_take_tokens(tmp_path: Path) -> None:
    source, _ = make_block_stack(tmp_path / "source")
    bundle = export(source.path, tmp_path / "bundle")
    with pytest.raises(BundleError, match="takes tokens, not embeddings"):
        run_embeddings(bundle, tmp_path / "in.npy", tmp_path / "out.npy")
