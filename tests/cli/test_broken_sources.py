"""What cannot be exported: a short error with a name in it, and nothing left behind."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from tests.cli.conftest import Made
from tests.cli.terminal import OWN_PROCESS, assert_short_error, run_cli, run_process
from tests.families.block_stack_checkpoints import edit_config
from xlstm_export.checkpoint.source import Source

Break = Callable[[Path], object]

NORM = "xlstm_block_stack.blocks.0.xlstm_norm.weight"
KERNEL = "xlstm_block_stack.blocks.1.xlstm.slstm_cell._recurrent_kernel_"
HEAD = "lm_head.weight"
QUERY = "backbone.blocks.1.mlstm_layer.q.weight"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


class Case(NamedTuple):
    """A checkpoint, what is done to it, and what the error must say."""

    base: str
    damage: Break
    words: tuple[str, ...]
    options: tuple[str, ...] = ()
    file: str = ""
    """SOURCE below the checkpoint's folder."""


def write(name: str, content: str | bytes) -> Break:
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data)


def remove(*names: str) -> Break:
    return lambda folder: [(folder / name).unlink() for name in names]


def cut(name: str, size: int) -> Break:
    return lambda folder: os.truncate(folder / name, size)


def header(text: str, length: int | None = None) -> Break:
    """model.safetensors of a header alone, with a true length or a wrong one."""
    size = len(text) if length is None else length
    return write("model.safetensors", struct.pack("<Q", size) + text.encode() + bytes(12))


def yaml_field(**changes: Any) -> Break:
    return lambda folder: edit_config(Source(folder), **changes)


def json_field(**changes: Any) -> Break:
    def damage(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return damage


def tensor(key: str, change: Callable[[torch.Tensor], torch.Tensor] | None) -> Break:
    """The tensor ``key`` changed, wherever it is stored; None removes it."""

    def damage(folder: Path) -> None:
        for path in folder.glob("*.safetensors"):
            tensors = load_file(path)
            if key in tensors:
                old = tensors.pop(key)
                if change is not None:
                    tensors[key] = change(old).contiguous()
                save_file(tensors, path)
                return
        raise AssertionError(f"no {key}")

    return damage


def extra_tensor(folder: Path) -> None:
    path = folder / "model.safetensors"
    save_file(load_file(path) | {"dora.weight": torch.ones(3)}, path)


def duplicated_shard(folder: Path) -> None:
    shutil.copyfile(folder / SHARDS[0], folder / SHARDS[1])


def torch_file(content: object) -> Break:
    """model.pt in place of model.safetensors."""

    def damage(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        torch.save(content, folder / "model.pt")

    return damage


def plain_pickle(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.pt").write_bytes(pickle.dumps(Canary()))


def cut_torch_file(folder: Path) -> None:
    torch_file(load_file(folder / "model.safetensors"))(folder)
    os.truncate(folder / "model.pt", 5000)


class Canary:
    """Code in a pickle: unpickling makes the folder "sings" in the current one."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("sings",)


OVERLAP = json.dumps(
    {
        "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
        "b": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]},
    }
)
NAN, INF = (lambda t: t * float("nan")), (lambda t: t.index_fill(0, torch.tensor(0), torch.inf))
WEIGHTS, PT, YAML, JSON = "model.safetensors", "model.pt", "config.yaml", "config.json"

CASES = {
    "missing path": Case("large", shutil.rmtree, ("src: no such file or folder",)),
    "empty folder": Case(
        "large", remove(YAML, WEIGHTS),
        ("not recognised", JSON, YAML, "a Vision-LSTM (ViL)", "a TiRex: model.ckpt"),
    ),
    "another model": Case(
        "hf", json_field(model_type="llama", architectures=None), ("model_type llama",)
    ),
    "config.json damaged": Case("hf", write(JSON, '{"model_type": '), (JSON, "line 1")),
    "config.json a list": Case("hf", write(JSON, "[1]"), (JSON, "no fields")),
    "config.json deep": Case("hf", write(JSON, "[" * 200_000), (JSON, "not a readable JSON")),
    "config.yaml damaged": Case("large", write(YAML, "a: [1"), (YAML, "line 1")),
    "config.yaml in itself": Case("stack", write(YAML, "mlstm_block: &a\n  mlstm: *a\n"), (YAML,)),
    "config.yaml with code": Case(
        "stack",
        write(YAML, "mlstm_block: !!python/object/apply:os.mkdir [sings]"),
        (YAML, "python/object/apply"),
    ),
    "unknown field": Case("stack", yaml_field(slstm_block__slstm__foo=1), (YAML, "foo")),
    "unknown field, large": Case("large", yaml_field(foo=1), (YAML, "foo")),
    "weights missing": Case("large", remove(WEIGHTS), (WEIGHTS,)),
    "weights empty": Case("large", cut(WEIGHTS, 0), (WEIGHTS,)),
    "weights cut in the header": Case("stack", cut(WEIGHTS, 3000), (WEIGHTS,)),
    "weights cut in the data": Case("large", cut(WEIGHTS, 60_000), (WEIGHTS,)),
    "header too long": Case("stack", header("{}", 1 << 60), (WEIGHTS, "header")),
    "header no JSON": Case("large", header('{"a": [1'), (WEIGHTS, "JSON")),
    "header overlapping": Case("stack", header(OVERLAP), (WEIGHTS, "offset")),
    "Git LFS pointer": Case(
        "large", write(WEIGHTS, "version https://git-lfs.github.com/spec/v1\n"), (WEIGHTS,)
    ),
    "tensor missing": Case("hf", tensor(QUERY, None), (QUERY, "missing")),
    "tensor unknown": Case("stack", extra_tensor, (WEIGHTS, "dora.weight")),
    "tensor of wrong shape": Case("stack", tensor(KERNEL, lambda t: t[:1]), (KERNEL, "[1, 32, 8]")),
    "tensor of wrong rank": Case("large", tensor(QUERY, lambda t: t[0, 0]), (QUERY, "[]")),
    "wrong head count": Case("hf", json_field(num_heads=8), (JSON, "num_heads is 8")),
    "NaN": Case("stack", tensor(KERNEL, NAN), (KERNEL, "NaN", WEIGHTS)),
    "NaN in a small tensor": Case("stack", tensor(NORM, NAN), (NORM, "NaN", WEIGHTS)),
    "infinite": Case("hf", tensor(QUERY, INF), (QUERY, "infinite", SHARDS[1])),
    "int8": Case("large", tensor(QUERY, lambda t: t.to(torch.int8)), (QUERY, "int8")),
    "float8": Case("large", tensor(QUERY, lambda t: t.to(torch.float8_e4m3fn)), (QUERY, "F8_E4M3")),
    "quantised by configuration": Case(
        "hf", json_field(quantization_config={"bits": 4}), (JSON, "quantization_config")
    ),
    "too large for fp16": Case(
        "hf", tensor(HEAD, lambda t: t * 1e6), (HEAD, "float16", "bf16"), ("--dtype", "fp16")
    ),
    "small one too large for fp16": Case(
        "stack", tensor(KERNEL, lambda t: t * 1e6), (KERNEL, "float16"), ("--dtype", "fp16")
    ),
    "float64 too large for fp32": Case(
        "large", tensor(QUERY, lambda t: t.double() * 1e200), (QUERY, "float32")
    ),
    "shard missing": Case("hf", remove(SHARDS[1]), ("index.json", SHARDS[1])),
    "shard twice": Case("hf", duplicated_shard, (SHARDS[1], "in another file as well")),
    "index damaged": Case("hf", write("model.safetensors.index.json", "{"), ("index.json",)),
    "index leads elsewhere": Case(
        "hf", write("model.safetensors.index.json", '{"weight_map": {"a": "../a.safetensors"}}'),
        ("index.json", "../a.safetensors"),
    ),
    "pickle with code": Case("stack", torch_file({"a": Canary()}), (PT, "nothing", "executed")),
    "plain pickle with code": Case("stack", plain_pickle, (PT, "nothing", "executed")),
    "whole module": Case("stack", torch_file(torch.nn.Linear(2, 2)), (PT, "state_dict()")),
    "list of tensors": Case("stack", torch_file([torch.ones(2)]), (PT, "no state dict")),
    "state dict of numbers": Case("stack", torch_file({"lr": 0.1}), (PT, "lr", "float")),
    "sparse tensor": Case("stack", torch_file({"a": torch.eye(3).to_sparse()}), (PT, "sparse_coo")),
    "torch file cut": Case("stack", cut_torch_file, (PT, "not a readable torch file")),
    "weights without configuration": Case(
        "stack", remove(YAML), (WEIGHTS, "--config"), file=WEIGHTS
    ),
    "configuration missing": Case(
        "stack", remove(), ("nowhere.yaml: no such file",), ("--config", "nowhere.yaml"), WEIGHTS
    ),
    "configuration as weights": Case("stack", remove(), (YAML, "not a weights file"), file=YAML),
    "another family": Case("stack", remove(), (JSON, "no such file"), ("--family", "hf")),
    "sLSTM function lstm": Case(
        "stack", yaml_field(slstm_block__slstm__function="lstm"), (YAML, "function: lstm")
    ),
    "sigmoid input gate": Case(
        "large", yaml_field(step_kernel="native_siging"), (YAML, "native_siging")
    ),
    "query and key norm": Case("hf", json_field(add_qk_norm=True), (JSON, "add_qk_norm: true")),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A current folder of its own, in which a canary would be seen."""
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_broken_source(made: Made, tmp_path: Path, case: Case) -> None:
    source = tmp_path / "src"
    shutil.copytree(made.checkpoints / case.base, source)
    case.damage(source)
    before = listing(tmp_path)
    outcome = run_cli("export", source / case.file, "-o", tmp_path / "new" / "out", *case.options)
    assert_short_error(outcome, *case.words)
    assert listing(tmp_path) == before


@pytest.mark.parametrize("name", ["empty folder", "pickle with code", "NaN in a small tensor"])
def test_broken_source_in_a_process_of_its_own(made: Made, tmp_path: Path, name: str) -> None:
    case, source = CASES[name], tmp_path / "src"
    shutil.copytree(made.checkpoints / case.base, source)
    case.damage(source)
    before = listing(tmp_path)
    assert_short_error(run_process("export", source, "-o", tmp_path / "out"), *case.words)
    assert listing(tmp_path) == before


def test_an_absurd_size_takes_no_memory(made: Made, tmp_path: Path) -> None:
    shutil.copytree(made.checkpoints / "stack", tmp_path / "src")
    edit_config(Source(tmp_path / "src"), num_blocks=10**12)
    limited = "import resource; resource.setrlimit(resource.RLIMIT_AS, (8 << 30,) * 2)"
    outcome = run_process("inspect", tmp_path / "src", program=f"{limited}; {OWN_PROCESS}")
    assert_short_error(outcome, YAML, "num_blocks is 1000000000000")


def test_the_pickle_with_code_would_have_run(tmp_path: Path) -> None:
    with pytest.raises(TypeError):  # a folder is made; its None is no state dict
        dict(pickle.loads(pickle.dumps(Canary())))
    assert (tmp_path / "cwd" / "sings").is_dir()


def test_names_from_a_file_do_not_reach_the_terminal_raw(made: Made, tmp_path: Path) -> None:
    shutil.copytree(made.checkpoints / "large", tmp_path / "src")
    path = tmp_path / "src" / WEIGHTS
    save_file(load_file(path) | {"\x1b[2Jgone\nerror: all is well": torch.ones(1)}, path)
    outcome = run_cli("export", tmp_path / "src", "-o", tmp_path / "out")
    assert_short_error(outcome, "unknown tensors", "[2Jgone")
    assert "\x1b" not in outcome.err


def test_unknown_fields_are_listed_by_the_configuration_given(made: Made, tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    fields = yaml.safe_load((made.checkpoints / "stack" / YAML).read_text())
    config.write_text(yaml.safe_dump(fields | {"foo": 1}))
    source = made.checkpoints / "stack" / WEIGHTS
    outcome = run_cli("export", source, "-o", tmp_path / "out", "--config", config)
    assert_short_error(outcome, "mine.yaml: unknown fields: foo")


def listing(folder: Path) -> list[str]:
    """Everything below ``folder``."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
