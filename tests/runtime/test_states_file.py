"""States on disk: the bundle they are of is known, and a file that is none is an error."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.runtime.test_states import MANIFEST
from xlstm_export.errors import InputError, TargetError
from xlstm_export.runtime.states import States

OURS = replace(MANIFEST, sha256="a" * 64)
ABOUT = {"xlstm_export.states": "1", "bundle_sha256": "a" * 64}


def some_states(batch: int = 2) -> States:
    random = np.random.default_rng(0)
    zeros = States.zeros(OURS, batch)
    return States({k: random.standard_normal(a.shape).astype(a.dtype) for k, a in zeros.items()})


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "deep" / "states.safetensors"
    some_states().save(path, OURS)
    return path


def test_what_is_saved_comes_back(saved: Path) -> None:
    restored = States.load(str(saved), OURS)
    expected = some_states()
    assert list(restored) == list(expected)
    for key in expected:
        np.testing.assert_array_equal(restored[key], expected[key])
    assert list(saved.parent.iterdir()) == [saved]


def test_states_of_another_bundle_are_refused(saved: Path) -> None:
    with pytest.raises(InputError, match=r"states of another bundle \(sha256 aaaaaaaaaaaa, not b"):
        States.load(saved, replace(OURS, sha256="b" * 64))


def test_a_damaged_file_is_named(saved: Path) -> None:
    content = saved.read_bytes()
    for damaged in (content[:-1], content[:40], b"", b"not safetensors"):
        saved.write_bytes(damaged)
        with pytest.raises(InputError, match=f"{saved.name}: .*no saved states"):
            States.load(saved, OURS)


def test_tensors_of_something_else_are_no_states(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({"w": np.zeros(2, np.float32)}, path)
    with pytest.raises(InputError, match="no saved states of version 1"):
        States.load(path, OURS)


def test_a_state_too_many_or_too_few_is_named(tmp_path: Path) -> None:
    path = tmp_path / "states.safetensors"
    arrays = dict(some_states())
    save_file({**arrays, "9.mlstm.C": np.zeros((2, 1), np.float32)}, path, ABOUT)
    with pytest.raises(InputError, match=r"states\.safetensors: state 9\.mlstm\.C"):
        States.load(path, OURS)
    save_file({k: a for k, a in arrays.items() if k != "0.mlstm.m"}, path, ABOUT)
    with pytest.raises(InputError, match=r"state 0\.mlstm\.m is missing"):
        States.load(path, OURS)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.safetensors: cannot be read"):
        States.load(tmp_path / "none.safetensors", OURS)


def test_states_that_are_not_the_bundles_are_not_saved(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is missing"):
        States({}).save(tmp_path / "states.safetensors", OURS)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_what_was_there(saved: Path) -> None:
    before = saved.read_bytes()

    def no_space(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "write_bytes", no_space)
        with pytest.raises(TargetError, match="No space left"):
            some_states().save(saved, OURS)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]
