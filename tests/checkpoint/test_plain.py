"""What stands beside the tensors of a torch file, as plain data."""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from xlstm_export.checkpoint import plain
from xlstm_export.checkpoint.plain import plain_entries
from xlstm_export.checkpoint.unpickler import Skipped
from xlstm_export.checkpoint.weight_files import read_weight_files


@dataclass
class Layer:
    """A part of a configuration of the user's own."""

    heads: int = 4


@dataclass
class Config:
    """A configuration of the user's own, with what it computes at its end."""

    width: int = 3
    layer: Layer = field(default_factory=Layer)
    at: list[int] = field(default_factory=lambda: [1, 2])


class Attributes(dict[str, Any]):
    """As Lightning keeps hyper-parameters: a dict of a class of its own."""


class Listing:
    """An object with another state than its attributes."""

    def __getstate__(self) -> list[int]:
        return [1, 2]

    def __setstate__(self, state: object) -> None:
        raise AssertionError("called")


PLAIN = {"width": 3, "layer": {"heads": 4}, "at": [1, 2]}

FORMS = {
    "dict": PLAIN,
    "tuple": PLAIN | {"at": (1, 2)},
    "dataclass": Config(),
    "namespace": argparse.Namespace(**PLAIN),
    "namespaces": SimpleNamespace(width=3, layer=argparse.Namespace(heads=4), at=[1, 2]),
    "dict of a class": Attributes(PLAIN | {"layer": Attributes(heads=4)}),
    "omegaconf": OmegaConf.create(PLAIN),
    "omegaconf, structured": OmegaConf.structured(Config),
}


def beside(folder: Path, **entries: object) -> dict[str, Any]:
    path = folder / "last.ckpt"
    torch.save({"state_dict": {"a": torch.ones(2)}, **entries}, path)
    return dict(read_weight_files([path]).beside)


@pytest.mark.parametrize("form", FORMS)
def test_a_configuration_is_read_in_whatever_form(tmp_path: Path, form: str) -> None:
    found = beside(tmp_path, hyper_parameters=FORMS[form], epoch=3, optimizer={"lr": {}})
    assert found[f"{tmp_path / 'last.ckpt'}: hyper_parameters"] == PLAIN


def test_references_and_what_is_missing_stay_as_omegaconf_writes_them(tmp_path: Path) -> None:
    config = OmegaConf.create({"a": "${b.c}", "b": {"c": "???"}, "none": None})
    (found,) = beside(tmp_path, cfg=config).values()
    assert found == {"a": "${b.c}", "b": {"c": "???"}, "none": None}


def test_what_is_not_plain_stays_a_placeholder(tmp_path: Path) -> None:
    values = {
        "path": Path("x"), "loss": np.float64(0.5), "dtype": torch.float32, "list": Listing(),
        "bytes": b"x", "tensor": torch.ones(2), "tensors": {"a": torch.ones(2), "b": 1},
    }  # fmt: skip
    (found,) = beside(tmp_path, cfg=values).values()
    for name in ("path", "loss", "dtype", "bytes"):
        assert isinstance(found[name], Skipped)
    assert found["list"] == [1, 2]
    assert "tensor" not in found
    assert found["tensors"] == {"b": 1}


def test_values_that_hold_each_other_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    loop: dict[str, Any] = {"size": 1}
    loop["itself"] = loop
    found = plain_entries({"loop": loop}, ())
    assert found["loop"]["size"] == 1
    assert isinstance(found["loop"]["itself"], Skipped)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert "size" in plain_entries({"deep": deep, "size": 1}, ())
    many: list[Any] = []
    for _ in range(30):
        many = [many, many]  # 2^30 values
    start = time.monotonic()
    assert plain_entries({"many": many, "size": 1}, ()) == {}
    assert time.monotonic() - start < 20
    monkeypatch.setattr(plain, "_MOST_VALUES", 1 << 10)
    assert plain_entries({"few": [0] * 1000}, ()) == {"few": [0] * 1000}
    assert plain_entries({"more": [0] * 1100}, ()) == {}


def test_a_file_of_something_else_than_a_dict() -> None:
    assert plain_entries([1, 2], ()) == {}
    assert plain_entries(Skipped("os.mkdir"), ()) == {}
