"""Weight files: lazy tensors in every type, and files that are not what they seem."""

from __future__ import annotations

import errno
import json
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from xlstm_export.checkpoint.tensor_table import TensorTable
from xlstm_export.checkpoint.weight_files import read_weight_files
from xlstm_export.errors import BackendUnavailableError, CheckpointError, UnsupportedModelError
from xlstm_export.model.storage import Storage
from xlstm_export.model.weights import Weight

FLOATS = {
    "float64": torch.float64,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
SUFFIXES = [".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".th"]


def save(tensors: dict[str, torch.Tensor], path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path)
    return path


def tensors_of(paths: Iterable[Path], prefix: str = "") -> dict[str, Weight]:
    return read_weight_files(paths, prefix).tensors


def numpy_of(tensor: torch.Tensor) -> np.ndarray:
    wide = tensor.to(torch.float64).numpy()
    kind = str(tensor.dtype).removeprefix("torch.")
    return wide.astype(ml_dtypes.bfloat16 if kind == "bfloat16" else kind)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("dtype", FLOATS)
def test_numbers_come_back(tmp_path: Path, suffix: str, dtype: str) -> None:
    torch.manual_seed(0)
    tensors = {
        "matrix": torch.randn(3, 5).to(FLOATS[dtype]),
        "vector": torch.randn(7).to(FLOATS[dtype]),
        "scalar": torch.tensor(2.5).to(FLOATS[dtype]),
        "empty": torch.zeros(0, 4).to(FLOATS[dtype]),
    }
    weights = tensors_of([save(tensors, tmp_path / f"model{suffix}")])
    assert set(weights) == set(tensors)
    for name, weight in weights.items():
        assert weight.dtype == dtype
        assert weight.shape == tuple(tensors[name].shape)
        assert weight.sources == (name,)
        loaded = weight.load()
        np.testing.assert_array_equal(loaded, numpy_of(tensors[name]), strict=True)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_each_load_is_fresh(tmp_path: Path, suffix: str) -> None:
    weights = tensors_of([save({"a": torch.ones(4)}, tmp_path / f"model{suffix}")])
    weights["a"].load().fill(7)
    assert weights["a"].load().tolist() == [1, 1, 1, 1]


def test_strided_and_shared_torch_tensors(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    parameter = torch.nn.Parameter(base)
    torch.save({"t": base.T, "row": base[1], "p": parameter}, tmp_path / "model.pt")
    weights = tensors_of([tmp_path / "model.pt"])
    np.testing.assert_array_equal(weights["t"].load(), base.T.numpy())
    np.testing.assert_array_equal(weights["row"].load(), base[1].numpy())
    assert weights["t"].load().flags.c_contiguous


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
def test_state_dicts_inside_training_checkpoints(tmp_path: Path, key: str) -> None:
    content = {key: {"a": torch.ones(2)}, "epoch": 3, "optimizer": {"lr": 0.1}}
    torch.save(content, tmp_path / "model.ckpt")
    assert set(tensors_of([tmp_path / "model.ckpt"])) == {"a"}


@pytest.mark.parametrize("key", ["net", "weights"])
def test_the_only_state_dict_is_taken_whatever_its_name(tmp_path: Path, key: str) -> None:
    content = {key: {"a": torch.ones(2)}, "optimizer": {"state": {}, "param_groups": []}}
    torch.save(content, tmp_path / "model.pt")
    assert set(tensors_of([tmp_path / "model.pt"])) == {"a"}


@pytest.mark.parametrize("names", [("model", "model_ema"), ("ema", "state_dict"), ("a", "b")])
def test_several_state_dicts_are_a_choice_for_the_user(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    torch.save({name: {"a": torch.ones(2)} for name in names}, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=rf"several state dicts \({names[0]}, {names[1]}\)"):
        read_weight_files([tmp_path / "model.pt"])


def test_a_dict_that_holds_itself(tmp_path: Path) -> None:
    content: dict[str, object] = {}
    content["model"] = content
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="entry model is of type dict, not a tensor"):
        read_weight_files([tmp_path / "model.pt"])


@pytest.mark.parametrize(
    ("stored", "bare"),
    [
        (("_orig_mod.a", "_orig_mod.b.c"), ("a", "b.c")),
        (("module.a", "module.b.c"), ("a", "b.c")),
        (("module._orig_mod.a", "module._orig_mod.b.c"), ("a", "b.c")),
        (("_orig_mod.module.a", "_orig_mod.module.b.c"), ("a", "b.c")),
        (("a", "b._orig_mod.c"), ("a", "b.c")),  # one block was compiled
        (("model.a", "model.b.c"), ("a", "b.c")),  # Lightning
        (("net.module.a", "net.module.b.c"), ("a", "b.c")),
        (("model._orig_mod.a", "model._orig_mod.b.c"), ("a", "b.c")),
        (("model.a", "ema.a"), ("model.a", "ema.a")),
        (("module.a", "b.c"), ("module.a", "b.c")),  # a module that is called so
        (("a", "_orig_mod.a"), ("a", "_orig_mod.a")),  # bare names must not collide
    ],
)
def test_names_are_those_of_the_bare_model(
    tmp_path: Path, stored: tuple[str, ...], bare: tuple[str, ...]
) -> None:
    """As saved from DistributedDataParallel, Lightning and torch.compile, or several of them."""
    path = save({name: torch.full((2,), float(i)) for i, name in enumerate(stored)},
                tmp_path / "model.safetensors")  # fmt: skip
    weights = tensors_of([path])
    numbers = {name: weight.load()[0] for name, weight in weights.items()}
    assert numbers == dict(zip(bare, range(2), strict=True))
    # keys for rounding upstream, which is loaded by these names
    assert {name: weight.sources for name, weight in weights.items()} == {n: (n,) for n in bare}


@pytest.mark.parametrize("prefix", ["net.body", "net.body."])
def test_a_model_within_another(tmp_path: Path, prefix: str) -> None:
    names = ("net.body.model.a", "net.body.model.b.c", "net.bodyguard", "head.weight")
    path = save({name: torch.full((2,), float(i)) for i, name in enumerate(names)},
                tmp_path / "model.safetensors")  # fmt: skip
    weights = tensors_of([path], prefix)
    assert {name: w.load()[0] for name, w in weights.items()} == {"a": 0, "b.c": 1}
    assert {name: w.sources for name, w in weights.items()} == {"a": ("a",), "b.c": ("b.c",)}
    assert read_weight_files([path], prefix).left_out == ("head.weight", "net.bodyguard")
    with pytest.raises(CheckpointError, match=r"with 'tail\.'; they start with head, net$"):
        read_weight_files([path], "tail")


def test_torch_files_of_the_old_format(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"a": torch.arange(3.0)}, path, _use_new_zipfile_serialization=False)
    assert tensors_of([path])["a"].load().tolist() == [0, 1, 2]


def test_several_files_are_one_table(tmp_path: Path) -> None:
    first = save({"a": torch.ones(2)}, tmp_path / "model_0.safetensors")
    second = save({"b": torch.ones(3)}, tmp_path / "model_1.safetensors")
    assert set(tensors_of([first, second])) == {"a", "b"}
    save({"a": torch.ones(2)}, second)
    with pytest.raises(CheckpointError, match=r"model_1\.safetensors: tensor a is in another file"):
        read_weight_files([first, second])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("dtype", FLOATS)
def test_numbers_that_are_not_finite(tmp_path: Path, value: float, suffix: str, dtype: str) -> None:
    """Seen when they are stored, in any type that a bundle has."""
    tensors = {"good": torch.ones(3), "bad": torch.tensor([1.0, value]).to(FLOATS[dtype])}
    weights = tensors_of([save(tensors, tmp_path / f"model{suffix}")])
    for storage in map(Storage, ("float32", "float16", "bfloat16")):
        storage.encode(weights["good"])
        with pytest.raises(CheckpointError, match=rf"model\{suffix}: tensor bad holds NaN"):
            storage.encode(weights["bad"])


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool, torch.float8_e5m2])
def test_types_that_no_model_is_made_of(tmp_path: Path, dtype: torch.dtype) -> None:
    for suffix in (".safetensors", ".pt"):
        path = save({"a": torch.ones(2).to(dtype)}, tmp_path / f"model{suffix}")
        table = TensorTable(tensors_of([path]), "here")
        with pytest.raises(UnsupportedModelError, match="here: tensor a is stored as"):
            table.take("a", 2)


def test_tensors_without_plain_numbers(tmp_path: Path) -> None:
    for tensor, words in (
        (torch.eye(3).to_sparse(), "sparse_coo"),
        (torch.ones(2, device="meta"), "meta"),
    ):
        path = save({"a": tensor}, tmp_path / "model.pt")
        with pytest.raises(CheckpointError, match=f"tensor a is stored as {words}; save it dense"):
            read_weight_files([path])


@pytest.mark.parametrize("name", ["model.onnx", "config.json", "model", "model.gguf"])
def test_files_of_other_kinds(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"anything")
    with pytest.raises(CheckpointError, match=r"not a weights file by its name.*\.safetensors"):
        read_weight_files([tmp_path / name])


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 7, b"\0" * 8, b"garbage" * 100, struct.pack("<Q", 2) + b"{"]
)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_damaged_files(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"model\{suffix}"):
        read_weight_files([path])


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_files_that_may_not_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    path = save({"a": torch.ones(2)}, tmp_path / f"model{suffix}")
    monkeypatch.setattr(Path, "open", forbidden)
    with pytest.raises(CheckpointError, match=r"cannot be read \(Permission denied\)"):
        read_weight_files([path])


@pytest.mark.parametrize("cut", [0.02, 0.3, 0.7, 0.98])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_files_cut_anywhere(tmp_path: Path, cut: float, suffix: str) -> None:
    path = save({n: torch.randn(100) for n in "abcdefgh"}, tmp_path / f"model{suffix}")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * cut)])
    with pytest.raises(CheckpointError, match=rf"model\{suffix}: .*again"):
        read_weight_files([path])


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]},
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 1 << 60]},
        {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [1 << 63, 8], "data_offsets": [0, 8]},
        {"dtype": "F31", "shape": [2], "data_offsets": [0, 8]},
        {"dtype": "F32", "data_offsets": [0, 8]},
        [],
    ],
)
def test_headers_that_lie(tmp_path: Path, entry: object) -> None:
    header = json.dumps({"a": entry}).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        read_weight_files([path])


def test_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    safe = save({"a": torch.ones(2)}, tmp_path / "model.safetensors")
    archive = save({"a": torch.ones(2)}, tmp_path / "model.pt")
    old = tmp_path / "old.pt"
    torch.save({"a": torch.ones(2)}, old, _use_new_zipfile_serialization=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert tensors_of([safe])["a"].load().tolist() == [1, 1]
    assert tensors_of([archive])["a"].load().tolist() == [1, 1]
    with pytest.raises(BackendUnavailableError, match=r"pip install torch.*safetensors"):
        read_weight_files([old])


def test_tables_account_for_every_tensor() -> None:
    weight = Weight((2, 3), "float32", ("a",), lambda: np.zeros((2, 3), np.float32))
    table = TensorTable(dict.fromkeys("abcdefgh", weight), "here")
    assert table.take("a", 2, None) is weight
    with pytest.raises(CheckpointError, match="here: unknown tensors: b, c, d, e, f and 2 more"):
        table.finish()
    with pytest.raises(CheckpointError, match=r"here: tensor absent is missing$"):
        table.take("absent", 2)
    with pytest.raises(CheckpointError, match=r"a has shape \[2, 3\], expected \[3, any\]"):
        table.take("a", 3, None)
    with pytest.raises(CheckpointError, match=r"expected \[2\]"):
        table.take("a", 2)


def test_a_prefix_of_its_own_is_named() -> None:
    weight = Weight((2,), "float32", ("a",), lambda: np.zeros(2, np.float32))
    table = TensorTable({"student.encoder.weight": weight}, "here")
    with pytest.raises(CheckpointError) as caught:
        table.take("encoder.weight", 2)
    assert str(caught.value) == (
        "here: tensor encoder.weight is missing, but student.encoder.weight is there: "
        "give --prefix student."
    )


def forbidden(path: Path, *_: object, **__: object) -> None:
    raise PermissionError(errno.EACCES, "Permission denied", str(path))
