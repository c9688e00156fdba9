"""What a kind of layer says of itself, and how its three files are found.

A kind is a frozen dataclass of sizes and constants in ``model/layers/x.py``. The file of the same
name in ``lowering/layers`` emits it (``emit``), the one in ``reference/layers`` evaluates it in
torch (``evaluate``). Nothing else knows the kinds, so a new one touches no other file.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Literal, Protocol, runtime_checkable


@dataclass(frozen=True)
class WeightSpec:
    """One weight of a layer: the one place where its shape and its precision are said.

    ``stays_float32``: stored in float32 whatever the bundle's dtype, since it feeds statistics,
    gates or states, which are float32 everywhere. ``low_bit``: what ``--weight-format`` stores in
    few bits: a "matrix" [out, in] that whole inputs are multiplied by, or a "table" of rows that
    are looked up, whose numbers take 8 bits at least.
    """

    shape: tuple[int, ...]
    stays_float32: bool = False
    optional: bool = False
    low_bit: Literal["never", "matrix", "table"] = "never"


@dataclass(frozen=True)
class LayerState:
    """One tensor that a layer carries from step to step; ``sizes`` are without the batch."""

    kind: str
    letter: str
    sizes: tuple[int, ...]


class Layer(Protocol):
    """A layer as a value. ``pointwise``: it treats every step by itself.

    The first layer of a model may say ``takes_float32 = True``: a float32 input then comes to it
    as it is, not in the type of the activations.
    """

    @property
    def pointwise(self) -> bool:
        """Whether an output step depends on the same input step alone."""
        ...

    def weights(self) -> dict[str, WeightSpec]:
        """Its own weights by name; an absent optional one is not computed with."""
        ...

    def states(self) -> tuple[LayerState, ...]:
        """What it carries, in graph order."""
        ...


@runtime_checkable
class Composite(Protocol):
    """A layer made of others, which hold all its weights and states."""

    def parts(self, path: str) -> tuple[tuple[str, Layer], ...]:
        """Its layers by path, in the order they are computed, when it stands at ``path``."""
        ...


Station = str
"""``lowering`` or ``reference``."""


def file_at(station: Station, layer: Layer) -> ModuleType:
    """The module of the layer's kind at ``station``: same name, sibling folder."""
    return importlib.import_module(
        type(layer).__module__.replace(".model.layers.", f".{station}.layers.")
    )


def leaves(path: str, layer: Layer) -> Iterator[tuple[str, Layer]]:
    """The layers that ``layer`` at ``path`` is made of, composites taken apart."""
    if isinstance(layer, Composite):
        for inner_path, inner in layer.parts(path):
            yield from leaves(inner_path, inner)
    else:
        yield path, layer


def result_name(path: str, layer: Layer) -> str:
    """What the result of ``layer`` at ``path`` is called: its path; a composite may stand where
    its last part does, and has its kind beside it.
    """
    return f"{path} {type(layer).__name__}" if isinstance(layer, Composite) else path


def beside(path: str, name: str) -> str:
    """The path of ``name`` in the place where ``path`` is: a.b and c give a.c."""
    return ".".join([*path.split(".")[:-1], name])
