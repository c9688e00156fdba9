"""A network by the name of the function that makes it, and its weights from a file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import xlstm_export as xe

EXAMPLE = torch.ones(2, 5, 3)


class Wrapping(nn.Module):
    """Its names start with what data parallelism puts before names."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Linear(3, 2)
        self.register_buffer("count", torch.tensor([4], dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


def make() -> tuple[nn.Module, Tensor]:
    return Wrapping().train(), EXAMPLE


def make_alone() -> nn.Module:
    return Wrapping()


def make_badly() -> None:
    raise ValueError("no data here\nof any kind")


HERE = f"{__name__}:"
NOT_CALLABLE = 3


def trained() -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {"model.weight": torch.randn(2, 3), "model.bias": torch.randn(2),
            "count": torch.tensor([9], dtype=torch.int64)}  # fmt: skip


def test_it_comes_in_eval_mode_with_its_examples() -> None:
    network, examples = xe.load_module(f"{HERE}make")
    assert isinstance(network, Wrapping)
    assert not network.training
    assert examples is EXAMPLE


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt", "lightning.ckpt"])
def test_weights_fill_parameters_and_buffers(tmp_path: Path, name: str) -> None:
    state, path = trained(), tmp_path / name
    if name.endswith(".safetensors"):
        save_file(state, path)
    else:
        wrapped = {f"net.{key}": value for key, value in state.items()}
        torch.save({"state_dict": wrapped} if name == "lightning.ckpt" else state, path)
    network, _ = xe.load_module(f"{HERE}make", weights=path)
    for key, value in network.state_dict().items():
        assert torch.equal(value, state[key]), key


def test_bfloat16_weights_are_read_as_they_are(tmp_path: Path) -> None:
    state = trained()
    state["model.weight"] = state["model.weight"].bfloat16()
    torch.save(state, tmp_path / "w.pt")
    network, _ = xe.load_module(f"{HERE}make", weights=tmp_path / "w.pt")
    assert torch.equal(network.model.weight, state["model.weight"].float())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model.bias": None}, "lacks model.bias of the network"),
        ({"other": torch.ones(1)}, "has unknown other of the network"),
        ({"model.bias": torch.ones(3)}, r"model.bias is \[3\], where the network has \[2\]"),
    ],
)
def test_weights_of_another_network_are_refused(
    tmp_path: Path, change: dict[str, Tensor | None], says: str
) -> None:
    state = {k: v for k, v in (trained() | change).items() if v is not None}
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(xe.CheckpointError, match=says):
        xe.load_module(f"{HERE}make", weights=tmp_path / "w.pt")


class Named(nn.Module):
    """Its tensors are called as ``names`` say."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__()
        for name in names:
            at: nn.Module = self
            *folders, leaf = name.split(".")
            for folder in folders:
                if not hasattr(at, folder):
                    at.add_module(folder, nn.Module())
                at = getattr(at, folder)
            at.register_parameter(leaf, nn.Parameter(torch.zeros(2)))


@pytest.mark.parametrize(
    "names",
    [
        ("blocks.0.lstm.weight", "output_layer.weight"),
        ("patch_embed.proj.weight", "blocks.0.attn.qkv.weight"),
        ("dense.lora_A.weight", "dense.lora_B.weight"),
    ],
    ids=lambda names: names[0],
)
def test_a_network_may_use_the_names_of_other_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]
) -> None:
    """What these names mean in a checkpoint says nothing of a network that is there itself."""
    monkeypatch.setitem(globals(), "make_named", lambda: (Named(names), EXAMPLE))
    save_file({name: torch.ones(2) for name in names}, tmp_path / "w.safetensors")
    network, _ = xe.load_module(f"{HERE}make_named", weights=tmp_path / "w.safetensors")
    assert all(value.eq(1).all() for value in network.state_dict().values())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("import torch\n\ndef make(:\n", r"\(SyntaxError: .*\), at .*faulty_0\.py:3"),
        ("def make(): pass\n\nunknown_name\n", r"\(NameError: .*\), at .*faulty_1\.py:3"),
        ("import torch\ntorch.ones(2, -1)\n", r"\(RuntimeError: .*\), at .*faulty_2\.py:2"),
        ("import no_such\n", r"\(ModuleNotFoundError: No .*\), at .*faulty_3\.py:1"),
        ("import sys\nsys.exit(3)\n", r"\(SystemExit: 3\), at .*faulty_4\.py:2"),
    ],
    ids=["syntax", "name", "within a package", "import", "exit"],
)
def test_a_faulty_file_is_the_users_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, says: str
) -> None:
    name = re.search(r"faulty_\d", says)[0]  # type: ignore[index]
    (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(xe.OptionError, match=f"{name} cannot be imported {says}"):
        xe.load_module(f"{name}:make")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("make", "write package.module:function"),
        (f"{HERE}make it", "write package.module:function"),
        ("no.such.module:make", "cannot be imported"),
        (f"{HERE}no_such", "has no function no_such"),
        (f"{HERE}NOT_CALLABLE", "has no function NOT_CALLABLE"),
        (f"{HERE}make_alone", "returns Wrapping; let it return the network and its example inputs"),
        (f"{HERE}make_badly", r"arguments \(ValueError: no data here\), at .*test_load\.py:\d+"),
    ],
)
def test_what_is_wrong_with_the_function_is_said(name: str, says: str) -> None:
    with pytest.raises(xe.OptionError, match=says):
        xe.load_module(name)
