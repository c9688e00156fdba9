"""Where a layer stands while it is evaluated: its parameters, its states, its arithmetic types."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from xlstm_export.model.layer import Layer, file_at, result_name

ALL_STEPS = torch.tensor([-1], dtype=torch.int32)
"""``lengths`` of an operator where every row has every step."""

StateKey = tuple[str, str]
"""Path of the layer, and ``kind.letter``."""


@dataclass
class Taps:
    """What is seen of a model while it runs: the result of each layer, and what goes into its
    recurrent operators and comes out.

    ``seen`` is by name: ``result_name`` of the layer, or path, operator and tensor as in
    ``tap_name``; a layer that runs more than once a call is seen as often. ``forced``: numbers to
    go on with in place of those that were computed, so that every part gets exact inputs.
    """

    forced: Mapping[str, Any] = field(default_factory=dict)
    seen: dict[str, list[Tensor]] = field(default_factory=dict)

    def pass_on(self, name: str, value: Tensor) -> Tensor:
        """See ``value``, and return what the model goes on with."""
        self.seen.setdefault(name, []).append(value)
        if name not in self.forced:
            return value
        return torch.as_tensor(self.forced[name]).to(value.dtype)


def tap_name(path: str, op_type: str, tensor: str) -> str:
    """How a tensor of the operator in the layer at ``path`` is called."""
    return f"{path} {op_type}.{tensor}"


class Watch(Protocol):
    """Somebody who is told of every product."""

    def multiplies(self, name: str, x: Tensor) -> None:
        """``x`` [..., in] comes to the matrix ``name`` [out, in]."""
        ...


@dataclass(frozen=True)
class Place:
    """``path`` in a model with all its ``parameters``, and states ``old`` and ``new`` (filled in).

    ``old`` is None in a call that begins: states are then zero. ``inputs`` are the model's by
    name. ``layer`` is what stands here, and ``rows`` how many rows came to it. ``x_type`` is the
    type of activations, ``s_type`` that of norms, gates and states; ``mlstm`` is the form of the
    recurrence that computes; ``taps`` see what passes, ``watch`` what is multiplied.
    """

    path: str
    parameters: dict[str, Tensor]
    old: Mapping[StateKey, Tensor] | None
    new: dict[StateKey, Tensor]
    x_type: torch.dtype
    s_type: torch.dtype
    mlstm: Callable[..., Any]
    inputs: Mapping[str, Tensor]
    layer: Layer | None = None
    rows: int = 0
    taps: Taps | None = None
    watch: Watch | None = None

    @property
    def begins(self) -> bool:
        """Whether the call takes no states."""
        return self.old is None

    def input(self, name: str) -> Tensor:
        """The model's input ``name``; floating-point numbers in the state type."""
        return self.inputs[name]

    def at(self, path: str) -> Place:
        """Another place of the same model."""
        return replace(self, path=path)

    def get(self, name: str) -> Tensor | None:
        """The layer's parameter ``name``, None where it has none."""
        return self.parameters.get(f"{self.path}.{name}")

    def __getitem__(self, name: str) -> Tensor:
        return self.parameters[f"{self.path}.{name}"]

    def take(self, kind: str, letters: Sequence[str]) -> list[Tensor]:
        """States of the layer before the call, one per letter."""
        if self.old is not None:
            return [self.old[self.path, f"{kind}.{letter}"] for letter in letters]
        assert self.layer is not None
        sizes = {(s.kind, s.letter): s.sizes for s in self.layer.states()}
        return [
            torch.zeros(self.rows, *sizes[kind, letter], dtype=self.s_type) for letter in letters
        ]

    def give(self, kind: str, letters: Sequence[str], values: Sequence[Tensor]) -> None:
        """States of the layer after the call, one per letter."""
        keys = [(self.path, f"{kind}.{letter}") for letter in letters]
        self.new.update(zip(keys, values, strict=True))

    def tap(self, op_type: str, names: Sequence[str], values: Sequence[Tensor]) -> list[Tensor]:
        """Tensors of the layer's operator ``op_type``, seen where somebody looks."""
        if self.taps is None:
            return list(values)
        return [
            self.taps.pass_on(tap_name(self.path, op_type, name), value)
            for name, value in zip(names, values, strict=True)
        ]

    def given(self, path: str, kind: str, letters: Sequence[str]) -> list[Tensor]:
        """States after the call of the layer at ``path``, which came before, one per letter."""
        return [self.new[path, f"{kind}.{letter}"] for letter in letters]

    def linear(self, x: Tensor, name: str) -> Tensor:
        """x [...,in] through ``{name}.weight`` [out,in] and its bias where there is one."""
        return self.product(x, f"{self.path}.{name}.weight", self.get(f"{name}.bias"))

    def product(self, x: Tensor, matrix: str, bias: Tensor | None) -> Tensor:
        """x [...,in] by the model's ``matrix`` [out,in] plus ``bias`` [out], rounded once.

        Where processors have no product of float16, torch's own takes some four times as long as
        that of float32 with both casts, and also adds up in float32. So a matrix of float16 is
        one of float32 from its first product on.
        """
        if self.watch is not None:
            self.watch.multiplies(matrix, x)
        weight = self.parameters[matrix]
        if x.dtype != torch.float16:
            return F.linear(x, weight, bias)
        if weight.dtype == torch.float16:
            weight = self.parameters[matrix] = weight.float()
        return F.linear(x.float(), weight, None if bias is None else bias.float()).half()

    def block_diagonal(self, x: Tensor, name: str) -> Tensor:
        """Blocks [G, out, in] applied to consecutive channels of x [B,T,G*in]."""
        weight = self[f"{name}.weight"]
        y = torch.einsum("btgi,goi->btgo", by_head(x, weight.shape[0]), weight).flatten(-2)
        bias = self.get(f"{name}.bias")
        return y if bias is None else y + bias

    def affine(self, x: Tensor, name: str = "") -> Tensor:
        """x times ``weight`` plus ``bias``, each where there is one."""
        weight, bias = self.get(f"{name}weight"), self.get(f"{name}bias")
        x = x if weight is None else x * weight
        return x if bias is None else x + bias

    def head_norm(self, h: Tensor, eps: float) -> Tensor:
        """LayerNorm over each head of h [B,T,N,V], then flat affine: [B,T,N*V]."""
        h = h.to(self.s_type)
        h = h - h.mean(-1, keepdim=True)
        h = h * torch.rsqrt(h.square().mean(-1, keepdim=True) + eps)
        return self.affine(h.flatten(-2), "head_norm.").to(self.x_type)


def evaluate_layer(x: Tensor, layer: Layer, place: Place) -> Tensor:
    """The output of ``layer`` at ``place`` for x [B,T,...]."""
    here = replace(place, layer=layer, rows=len(x))
    result: Tensor = file_at("reference", layer).evaluate(x, layer, here)
    return (
        result if place.taps is None else place.taps.pass_on(result_name(place.path, layer), result)
    )


def by_head(x: Tensor, heads: int) -> Tensor:
    """[B,T,heads*size] as [B,T,heads,size]."""
    return x.reshape(*x.shape[:-1], heads, -1)
