"""Torch archives without torch: views, objects beside the tensors, and tables that lie."""

from __future__ import annotations

import argparse
import io
import os
import struct
import sys
import tracemalloc
import zipfile
from collections import OrderedDict, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from xlstm_export.checkpoint.weight_files import StoredTensors, read_weight_files
from xlstm_export.errors import CheckpointError

MIB = 1 << 20


@dataclass
class Config:
    """A configuration of the user's own, as training code keeps one."""

    width: int = 3


class Canary:
    """Code in a pickle: unpickling makes the folder "sings" in the current one."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("sings",)


class OwnTensor(torch.Tensor):
    """A class whose numbers may mean anything."""


def saved(content: object, folder: Path, name: str = "model.pt") -> Path:
    torch.save(content, folder / name)
    return folder / name


def read(content: object, folder: Path) -> StoredTensors:
    return read_weight_files([saved(content, folder)])


def repacked(path: Path, compression: int = zipfile.ZIP_STORED, **changed: bytes | None) -> Path:
    """``path`` with members (dots written as __) replaced, added, or, by None, left out."""
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    root = next(iter(members)).partition("/")[0]
    for name, content in changed.items():
        place = f"{root}/{name.replace('__', '.')}"
        members.pop(place, None)
        if content is not None:
            members[place] = content
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_views_are_what_torch_reads(tmp_path: Path) -> None:
    torch.manual_seed(0)
    base = torch.randn(6, 8)
    tensors = {
        "base": base, "transposed": base.T, "row": base[2], "column": base[:, 3],
        "steps": base[1::2, ::3], "flipped": base.unfold(0, 3, 2), "scalar": base[4, 4],
        "expanded": base[0, :1].expand(5), "empty": base[:0], "tied": base,
        "parameter": torch.nn.Parameter(base.bfloat16()), "one": base[:1].T,
    }  # fmt: skip
    path = saved(tensors, tmp_path)
    reference = torch.load(path, weights_only=True)
    weights = read_weight_files([path]).tensors
    assert list(weights) == list(tensors)
    for name, tensor in reference.items():
        loaded = weights[name].load()
        assert loaded.flags.c_contiguous
        assert loaded.flags.writeable
        assert (weights[name].shape, weights[name].dtype) == (loaded.shape, loaded.dtype.name)
        expected = tensor.detach().double().numpy()
        np.testing.assert_array_equal(loaded.astype(np.float64), expected, strict=True)


def test_a_part_of_a_large_storage_is_read_alone(tmp_path: Path) -> None:
    weights = read({"row": torch.zeros(64, MIB // 4)[7]}, tmp_path).tensors
    tracemalloc.start()
    assert weights["row"].load().nbytes == MIB
    assert tracemalloc.get_traced_memory()[1] < 2 * MIB
    tracemalloc.stop()


def test_numbers_of_a_big_endian_machine(tmp_path: Path) -> None:
    path = saved({"a": torch.arange(3.0), "b": torch.arange(2.0).bfloat16()}, tmp_path)
    with zipfile.ZipFile(path) as archive:
        a, b = (archive.read(f"model/data/{i}") for i in (0, 1))
    swapped = {
        "byteorder": b"big",
        "data/0": np.frombuffer(a, "u4").byteswap().tobytes(),
        "data/1": np.frombuffer(b, "u2").byteswap().tobytes(),
    }
    weights = read_weight_files([repacked(path, **swapped)]).tensors
    assert weights["a"].load().tolist() == [0, 1, 2]
    assert weights["b"].load().tolist() == [0, 1]


def test_objects_beside_the_tensors_are_data_and_named(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(2)).sum().backward()
    optimizer.step()
    content = {
        "state_dict": model.state_dict(), "args": argparse.Namespace(lr=0.1), "config": Config(),
        "loss": np.float64(0.5), "history": np.arange(3), "optimizer": optimizer.state_dict(),
        "log": defaultdict(list, a=[1]), "place": Path("x"), "done": {1, 2}, "pairs": {(1, 2): 3},
        "device": torch.device("cpu"), "more": OrderedDict(a=1), "bytes": b"\xff", "size": 10**30,
    }  # fmt: skip
    stored = read(content, tmp_path)
    assert set(stored.tensors) == {"weight", "bias"}
    np.testing.assert_array_equal(stored.tensors["weight"].load(), model.weight.detach().numpy())
    (note,) = stored.notes
    assert note.startswith("model.pt: Python objects beside the tensors were not built")
    assert "argparse.Namespace, " in note
    assert f"{__name__}.Config, " in note
    assert read(model.state_dict(), tmp_path).notes == ()


def test_no_module_is_imported_for_an_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "singing.py"
    package.write_text("class Song: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import singing  # type: ignore[import-not-found]

    path = saved({"state_dict": {"a": torch.ones(2)}, "song": singing.Song()}, tmp_path)
    package.write_text("raise SystemExit('imported')\n")
    monkeypatch.delitem(sys.modules, "singing")
    assert "singing.Song" in read_weight_files([path]).notes[0]
    assert "singing" not in sys.modules


def test_code_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    stored = read({"state_dict": {"a": torch.ones(2)}, "x": Canary()}, tmp_path)
    assert set(stored.tensors) == {"a"}
    with pytest.raises(CheckpointError, match=r"Python object \(\w+\.mkdir\).*nothing of it"):
        read({"a": Canary()}, tmp_path)
    assert not (tmp_path / "sings").exists()


def test_tensors_that_are_no_plain_arrays(tmp_path: Path) -> None:
    labelled = torch.nn.Parameter(torch.ones(2))
    labelled.label = "x"  # type: ignore[attr-defined]
    assert read({"a": labelled}, tmp_path).tensors["a"].load().tolist() == [1, 1]
    marked = torch.ones(2)
    marked.label = "x"  # type: ignore[attr-defined]
    assert read({"a": marked}, tmp_path).tensors["a"].load().tolist() == [1, 1]
    own = torch.ones(2).as_subclass(OwnTensor)
    conjugated = torch.ones(2, dtype=torch.complex64).conj()
    for tensor, kind in ((own, "OwnTensor"), (conjugated.imag, "negated view")):
        with pytest.raises(CheckpointError, match=f"tensor a is stored as .*{kind}"):
            read({"a": tensor}, tmp_path)


def test_other_programs_of_torch_are_named(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)
    with pytest.raises(CheckpointError, match=r"is a TorchScript program; save model\.state_dict"):
        read_weight_files([path])
    np.savez(tmp_path / "arrays.npz", a=np.ones(2))
    (tmp_path / "arrays.npz").rename(path)
    with pytest.raises(CheckpointError, match=r"a zip archive without data\.pkl"):
        read_weight_files([path])


@pytest.mark.parametrize("member", ["data.pkl", "data/0"])
def test_a_small_file_that_expands_is_refused_from_its_table(tmp_path: Path, member: str) -> None:
    path = saved({"a": torch.ones(2)}, tmp_path)
    path = repacked(path, zipfile.ZIP_DEFLATED, **{member: bytes(256 * MIB)})
    assert path.stat().st_size < MIB
    tracemalloc.start()
    with pytest.raises(CheckpointError, match=r"member model/.* is compressed"):
        read_weight_files([path])
    assert tracemalloc.get_traced_memory()[1] < MIB
    tracemalloc.stop()


def test_tables_that_lie(tmp_path: Path) -> None:
    path = saved({"a": torch.ones(2), "b": torch.ones(3)}, tmp_path)
    for changes, words in (
        ({"data/1": b"1234"}, "tensor b reaches beyond its storage"),
        ({"data/1": None}, "its member data/1 is missing"),
        ({"data.pkl": None}, "a zip archive without data.pkl"),
        ({"data.pkl": b""}, "not a readable torch file"),
        ({"inner/data.pkl": b"N."}, "a zip archive without data.pkl"),
    ):
        changed = tmp_path / "changed.pt"
        changed.write_bytes(path.read_bytes())
        with pytest.raises(CheckpointError, match=words):
            read_weight_files([repacked(changed, **changes)])
    whole = bytearray(path.read_bytes())
    table = whole.index(b"PK\x01\x02")
    struct.pack_into("<II", whole, table + 20, 1 << 30, 1 << 30)
    path.write_bytes(whole)
    with pytest.raises(CheckpointError, match="its members are larger than the file"):
        read_weight_files([path])


def test_a_tensor_that_repeats_itself_beyond_its_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"tensor a of shape .* is larger than its file"):
        read({"a": torch.ones(1).expand(1 << 40)}, tmp_path)


def test_a_file_that_became_shorter(tmp_path: Path) -> None:
    path = saved({"a": torch.ones(1000)}, tmp_path)
    weights = read_weight_files([path]).tensors
    os.truncate(path, 2000)
    with pytest.raises(CheckpointError, match="became shorter"):
        weights["a"].load()
    path.unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        weights["a"].load()


def test_a_safetensors_file_that_changed(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(1000)}, path)
    weights = read_weight_files([path]).tensors
    save_file({"b": torch.ones(1000)}, path)
    with pytest.raises(CheckpointError, match="changed while it was read"):
        weights["a"].load()
    os.truncate(path, 2000)
    with pytest.raises(CheckpointError, match="changed while it was read"):
        weights["a"].load()
    path.unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        weights["a"].load()


def test_every_storage_type_of_torch(tmp_path: Path) -> None:
    """Against torch's own list: a type we do not know would be named wrongly."""
    kinds = [kind for kind in vars(torch).values() if isinstance(kind, torch.dtype)]
    read = set[torch.dtype]()
    for kind in set(kinds):
        buffer = io.BytesIO()
        try:
            torch.save({"a": torch.zeros(2, dtype=kind)}, buffer)
        except (RuntimeError, TypeError, NotImplementedError, KeyError):
            continue  # of no tensor that torch can save, so of none in a file
        path = tmp_path / "model.pt"
        path.write_bytes(buffer.getvalue())
        found = read_weight_files([path]).tensors["a"].dtype
        assert found == str(kind).removeprefix("torch.")
        read.add(kind)
    assert read >= {
        torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16,
        torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128,
        torch.float8_e4m3fn, torch.float8_e5m2,
    }  # fmt: skip
