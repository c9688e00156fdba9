"""numpy's files: what they hold, and what is damaged or another kind is told with the cure."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from xlstm_export.errors import InputError
from xlstm_export.validation.array_files import read_array, read_arrays


def saved(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def one(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


NUMBERS = np.arange(6).reshape(2, 3)


def test_what_was_saved_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(one(NUMBERS))
    (tmp_path / "a.npz").write_bytes(saved(x=NUMBERS, y=NUMBERS[0]))
    np.testing.assert_array_equal(read_array(tmp_path / "a.npy"), NUMBERS)
    found = read_arrays(tmp_path / "a.npz")
    assert sorted(found) == ["x", "y"]
    np.testing.assert_array_equal(found["y"], NUMBERS[0])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not a readable .npy file of numbers"),
        (b"no array", "not a readable .npy file of numbers"),
        (one(NUMBERS)[:-8], "not a readable .npy file of numbers"),
        (saved(x=NUMBERS)[:-30], "not a readable .npy file of numbers"),
        (saved(x=NUMBERS), "name it .npz"),
        (None, "cannot be read"),
    ],
)
def test_what_is_no_array(tmp_path: Path, content: bytes | None, says: str) -> None:
    if content is not None:
        (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(InputError, match=says) as told:
        read_array(tmp_path / "a.npy")
    assert str(tmp_path / "a.npy") in str(told.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not a readable .npz file of numbers"),
        (saved(x=NUMBERS)[:-30], "not a readable .npz file of numbers"),
        (saved(x=np.array([{}])), "not a readable .npz file of numbers"),
        (one(NUMBERS), "holds one array without a name"),
        (saved(), "holds no arrays"),
    ],
)
def test_what_is_no_file_of_arrays(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(InputError, match=f"{says}.*numpy.savez writes one"):
        read_arrays(tmp_path / "a.npz")
