"""Words of the command line to values of the pipeline; a wrong word names the right ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeVar, cast

import typer

from xlstm_export.engine.backend import BACKENDS, BackendName
from xlstm_export.families.registry import FAMILIES
from xlstm_export.lowering.options import OPSETS
from xlstm_export.model.precision import BundleDtype
from xlstm_export.model.state import StateNaming

_DTYPES: dict[str, BundleDtype] = {
    "fp32": "float32", "float32": "float32",
    "fp16": "float16", "float16": "float16",
    "bf16": "bfloat16", "bfloat16": "bfloat16",
}  # fmt: skip

T = TypeVar("T")


def parse_family(word: str) -> str:
    """The family that a source is read as, or auto."""
    return _choose("--family", word, {name: name for name in ("auto", *FAMILIES)})


def parse_dtype(word: str) -> BundleDtype:
    """fp32, fp16, bf16, or their long names."""
    return _choose("--dtype", word, _DTYPES)


def parse_opset(number: int) -> int:
    """An opset every supported runtime loads."""
    return _choose("--opset", number, {n: n for n in OPSETS})


def parse_logits(word: str) -> Literal["all", "last"]:
    """Which steps the graph computes logits for."""
    choices: dict[str, Literal["all", "last"]] = {"all": "all", "last": "last"}
    return _choose("--logits", word, choices)


def parse_state_names(word: str) -> StateNaming:
    """How states are named."""
    names: dict[str, StateNaming] = {"native": "native", "genai": "genai", "edgellm": "edgellm"}
    return _choose("--state-names", word, names)


def parse_backend(word: str) -> BackendName:
    """The builder of an engine; rtx is short for tensorrt_rtx."""
    names: dict[str, BackendName] = {name: name for name in BACKENDS}
    return _choose("--backend", word.replace("-", "_"), names | {"rtx": "tensorrt_rtx"})


def _choose(
    option: str, word: object, choices: Mapping[object, T] | Mapping[str, T] | Mapping[int, T]
) -> T:
    table = cast(Mapping[object, T], choices)
    if word not in table:
        names = ", ".join(str(c) for c in table)
        raise typer.BadParameter(f"{word} is not one of {names}", param_hint=option)
    return table[word]
