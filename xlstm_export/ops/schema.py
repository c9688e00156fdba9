"""Data types that describe an operator.

Dimension letters, used everywhere in this project:
B batch, T time, N heads, K query/key size per head, V value size per head,
H sLSTM head size, D model size, W convolution width, G gates (i, f, z, o).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

TypeVar = Literal["TX", "TS", "lengths"]
"""TX: activation type. TS: state type (float32, or double where TX is double). lengths: int32."""

TX_DTYPES = ("float32", "float16", "bfloat16", "float64")
"""Element types TX ranges over, by numpy name."""

INT32_MAX = 2**31 - 1


def state_dtype(tx: str) -> str:
    """Element type TS that goes with the activation type ``tx``."""
    return "float64" if tx == "float64" else "float32"


@dataclass(frozen=True)
class TensorSpec:
    """One operand. ``dims`` are letters, digits, or ``W-1``."""

    name: str
    dims: tuple[str, ...]
    type: TypeVar
    meaning: str = ""


@dataclass(frozen=True)
class Attribute:
    """One attribute. INT attributes lie within int32 (TensorRT truncates to it)."""

    name: str
    kind: Literal["int", "float"]
    default: int | float
    meaning: str
    choices: tuple[int, ...] = ()
    least: int | None = None

    def check(self, value: int | float) -> int | float:
        """Return ``value`` in the declared kind; raise ValueError when it does not fit."""
        is_finite = math.isfinite(value)
        if self.kind == "int" and not (
            is_finite and int(value) == value and -INT32_MAX - 1 <= value <= INT32_MAX
        ):
            raise ValueError(f"attribute {self.name} takes an int32, not {value!r}")
        if not is_finite:
            raise ValueError(f"{self.name} is {value!r}, expected a finite number")
        if self.choices and value not in self.choices:
            raise ValueError(f"attribute {self.name} is one of {self.choices}, not {value!r}")
        if self.least is not None and value < self.least:
            raise ValueError(f"{self.name} is {value!r}, expected at least {self.least}")
        return int(value) if self.kind == "int" else float(value)


@dataclass(frozen=True)
class OpSchema:
    """One operator: signature, attributes, and which outputs continue which inputs."""

    name: str
    meaning: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    attributes: tuple[Attribute, ...]
    states: tuple[tuple[str, str], ...]
    """Pairs (input, output): the output is the input carried on; a kernel may alias them."""

    def complete_attributes(self, given: Mapping[str, int | float]) -> dict[str, int | float]:
        """Every attribute of the operator, defaults filled in and values checked."""
        unknown = set(given) - {a.name for a in self.attributes}
        if unknown:
            raise ValueError(f"{self.name} has no attribute {', '.join(sorted(unknown))}")
        return {a.name: a.check(given.get(a.name, a.default)) for a in self.attributes}
