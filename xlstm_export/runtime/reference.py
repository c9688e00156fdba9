"""The readable model: a ModelSpec evaluated in torch, in any precision and either mLSTM form.

In float64 it is the standard every other session is held to; in float32, float16 or bfloat16 it
is the yardstick of ``validation.tolerance``. The arithmetic types follow the exported graph:
norms, gates and states in float32 (float64 in float64), the rest in the model's dtype.
Equations: xLSTM paper (Beck et al. 2024), fig. 10-11, and xLSTM-7B (Beck et al. 2025), fig. 2.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from xlstm_export.model.precision import stays_float32, storage_dtype
from xlstm_export.model.spec import (
    Block,
    FeedForward,
    MLSTMCell,
    MLSTMMixer,
    ModelSpec,
    Norm,
    SLSTMMixer,
    UpProjectedMLSTMMixer,
)
from xlstm_export.model.state import state_specs
from xlstm_export.model.weights import Weights
from xlstm_export.ops.reference import causal_conv1d, mlstm_chunkwise, mlstm_recurrent, slstm
from xlstm_export.ops.schema import state_dtype

Form = Literal["recurrent", "chunkwise"]
Array = npt.NDArray[np.generic]
Params = dict[str, Tensor]
States = dict[str, Tensor]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "relu": F.relu,
    "relu^2": lambda x: F.relu(x).square(),
    "selu": F.selu,
    "sigmoid": torch.sigmoid,
    "swish": F.silu,
}

_ALL_STEPS = torch.tensor([-1], dtype=torch.int32)


class ReferenceModel:
    """Evaluates ``spec`` with ``weights`` rounded as a ``dtype`` bundle stores them.

    ``compute`` is the arithmetic type: ``dtype`` itself, or "float64" for the exact result on
    the rounded weights.
    """

    def __init__(
        self,
        spec: ModelSpec,
        weights: Weights,
        dtype: str = "float32",
        compute: str = "float64",
        form: Form = "recurrent",
    ) -> None:
        self.spec = spec
        self._compute = compute
        self._use_form(form)
        self.states = state_specs(spec)
        self._x_type: torch.dtype = getattr(torch, compute)
        self._s_type: torch.dtype = getattr(torch, state_dtype(compute))
        self._params: Params = {}
        for name, weight in weights.items():
            rank = len(weight.shape)
            stored = getattr(torch, storage_dtype(name, rank, dtype))
            working = self._s_type if stays_float32(name, rank) else self._x_type
            numbers = torch.from_numpy(weight.load().astype(np.float64))
            self._params[name] = numbers.to(stored).to(working)

    def _use_form(self, form: Form) -> None:
        self.name = f"xlstm-export torch reference, {form}, {self._compute}"
        self._mlstm = mlstm_recurrent if form == "recurrent" else mlstm_chunkwise

    def in_form(self, form: Form) -> ReferenceModel:
        """The same model, on the same weights, with the mLSTM computed in ``form``."""
        other = copy.copy(self)
        other._use_form(form)
        return other

    def run(
        self, inputs: Array, states: Mapping[str, Array] | None = None
    ) -> tuple[Array, dict[str, Array]]:
        """Continue from ``states`` (None = zero) over ids [B,T] or embeddings [B,T,D].

        Returns logits [B,T,vocab] (or hidden states [B,T,D]) in the state type, and every
        state by ``StateSpec.key``.
        """
        with torch.inference_mode():
            return self._run(inputs, states)

    def _run(
        self, inputs: Array, states: Mapping[str, Array] | None
    ) -> tuple[Array, dict[str, Array]]:
        old = (
            self._initial(inputs.shape[0])
            if states is None
            else {key: torch.tensor(value).to(self._s_type) for key, value in states.items()}
        )
        new: States = {}
        tokens = torch.tensor(inputs)
        is_lm = self.spec.vocab_size is not None
        x = self._params["embedding.weight"][tokens] if is_lm else tokens.to(self._x_type)
        for layer, block in enumerate(self.spec.blocks):
            x = self._block(x, block, layer, old, new)
        if self.spec.out_norm is not None:
            x = self._norm(x, self.spec.out_norm, "out_norm").to(self._x_type)
        if is_lm:
            x = self._head(x)
        return x.to(self._s_type).numpy(), {key: value.numpy() for key, value in new.items()}

    def _initial(self, batch: int) -> States:
        return {
            s.key: torch.zeros(batch, *(int(d) for d in s.shape[1:]), dtype=self._s_type)
            for s in self.states
        }

    def _head(self, x: Tensor) -> Tensor:
        head = "embedding.weight" if self.spec.tied_head else "head.weight"
        logits = F.linear(x, self._params[head], self._params.get("head.bias")).to(self._s_type)
        cap = self.spec.logit_soft_cap
        return cap * torch.tanh(logits / cap) if cap > 0 else logits

    def _block(self, x: Tensor, block: Block, layer: int, old: States, new: States) -> Tensor:
        path = f"blocks.{layer}"
        normed = self._norm(x, block.mixer_norm, f"{path}.mixer_norm")
        mix = {
            MLSTMMixer: self._mlstm_mixer,
            UpProjectedMLSTMMixer: self._up_projected_mixer,
            SLSTMMixer: self._slstm_mixer,
        }[type(block.mixer)]
        x = x + mix(normed, block.mixer, path, layer, old, new)  # type: ignore[operator]
        if block.ffn is not None and block.ffn_norm is not None:
            normed = self._norm(x, block.ffn_norm, f"{path}.ffn_norm")
            x = x + self._feed_forward(normed.to(self._x_type), block.ffn, f"{path}.ffn")
        return x

    def _norm(self, x: Tensor, norm: Norm, path: str) -> Tensor:
        """Result in the state type; ``weight`` and ``bias`` are plain."""
        x = x.to(self._s_type)
        if norm.kind == "layer":
            x = x - x.mean(-1, keepdim=True)
        x = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + norm.eps)
        return self._affine(x, path)

    def _affine(self, x: Tensor, path: str) -> Tensor:
        weight, bias = self._params.get(f"{path}.weight"), self._params.get(f"{path}.bias")
        x = x if weight is None else x * weight
        return x if bias is None else x + bias

    def _head_norm(self, h: Tensor, eps: float, path: str) -> Tensor:
        """LayerNorm over each head of h [B,T,N,V], then flat affine: [B,T,N*V]."""
        h = h.to(self._s_type)
        h = h - h.mean(-1, keepdim=True)
        h = h * torch.rsqrt(h.square().mean(-1, keepdim=True) + eps)
        return self._affine(h.flatten(-2), path).to(self._x_type)

    def _linear(self, x: Tensor, path: str) -> Tensor:
        return F.linear(x, self._params[f"{path}.weight"], self._params.get(f"{path}.bias"))

    def _block_diagonal(self, x: Tensor, path: str) -> Tensor:
        """Blocks [G, out, in] applied to consecutive channels of x [B,T,G*in]."""
        weight = self._params[f"{path}.weight"]
        y = torch.einsum("btgi,goi->btgo", _by_head(x, weight.shape[0]), weight)
        bias = self._params.get(f"{path}.bias")
        return y.flatten(-2) if bias is None else y.flatten(-2) + bias

    def _feed_forward(self, x: Tensor, ffn: FeedForward, path: str) -> Tensor:
        gate = ACTIVATIONS[ffn.activation](self._linear(x, f"{path}.gate"))
        return self._linear(gate * self._linear(x, f"{path}.up"), f"{path}.down")

    def _cell(
        self, q: Tensor, k: Tensor, v: Tensor, gates: tuple[Tensor, Tensor],
        cell: MLSTMCell, layer: int, old: States, new: States,
    ) -> Tensor:  # fmt: skip
        keys = [f"{layer}.mlstm.{letter}" for letter in "Cnm"]
        C, n, m = (old[key] for key in keys)
        q, k, v = (_by_head(x, cell.heads) for x in (q, k, v))
        h, *state = self._mlstm(
            q, k, v, gates[0], gates[1], C, n, m, _ALL_STEPS,
            gate_soft_cap=cell.gate_soft_cap, eps=cell.eps,
            scale_side=cell.scale_side, chunk_size=cell.chunk_size,
        )  # fmt: skip
        new.update(zip(keys, state, strict=True))
        return h

    def _mlstm_mixer(
        self, normed: Tensor, mixer: MLSTMMixer, path: str, layer: int, old: States, new: States
    ) -> Tensor:
        x, path = normed.to(self._x_type), f"{path}.mixer"
        q, k, v = (self._linear(x, f"{path}.{name}") for name in "qkv")
        i, f = (self._linear(normed, f"{path}.{gate}_gate") for gate in ("input", "forget"))
        h = self._cell(q, k, v, (i, f), mixer.cell, layer, old, new)
        output_gate = torch.sigmoid(self._linear(x, f"{path}.output_gate"))
        h = output_gate * self._head_norm(h, mixer.head_norm_eps, f"{path}.head_norm")
        return self._linear(h, f"{path}.out")

    def _conv(self, x: Tensor, path: str, layer: int, old: States, new: States) -> Tensor:
        key = f"{layer}.conv.x"
        weight, bias = (self._params[f"{path}.conv.{leaf}"] for leaf in ("weight", "bias"))
        y, new[key] = causal_conv1d(x, weight, bias, old[key], _ALL_STEPS, activation=1)
        return y

    def _up_projected_mixer(
        self, normed: Tensor, mixer: UpProjectedMLSTMMixer, path: str, layer: int,
        old: States, new: States,
    ) -> Tensor:  # fmt: skip
        x, path = normed.to(self._x_type), f"{path}.mixer"
        inner, z = self._linear(x, f"{path}.up"), self._linear(x, f"{path}.z")
        has_conv = mixer.conv_width > 0
        conv = self._conv(inner, path, layer, old, new) if has_conv else F.silu(inner)
        q, k = self._block_diagonal(conv, f"{path}.q"), self._block_diagonal(conv, f"{path}.k")
        v = self._block_diagonal(inner, f"{path}.v")
        qkv = torch.cat([q, k, v], dim=-1).to(self._s_type)
        i, f = (self._linear(qkv, f"{path}.{gate}_gate") for gate in ("input", "forget"))
        h = self._cell(q, k, v, (i, f), mixer.cell, layer, old, new)
        h = self._head_norm(h, mixer.head_norm_eps, f"{path}.head_norm")
        h = (h + self._params[f"{path}.skip.weight"] * conv) * F.silu(z)
        return self._linear(h, f"{path}.out")

    def _slstm_mixer(
        self, normed: Tensor, mixer: SLSTMMixer, path: str, layer: int, old: States, new: States
    ) -> Tensor:
        x, path = normed.to(self._x_type), f"{path}.mixer"
        conv = self._conv(x, path, layer, old, new) if mixer.conv_width else x
        slots = {"input_gate": conv, "forget_gate": conv, "cell_input": x, "output_gate": x}
        gates = [
            _by_head(self._block_diagonal(source, f"{path}.{slot}"), mixer.heads)
            for slot, source in slots.items()
        ]
        keys = [f"{layer}.slstm.{letter}" for letter in "ycnm"]
        y, c, n, m = (old[key] for key in keys)
        y_all, *state = slstm(
            torch.stack(gates, dim=2).to(self._s_type), self._params[f"{path}.R.weight"],
            self._params[f"{path}.R.bias"], y, c, n, m, _ALL_STEPS,
            n_floor=mixer.n_floor, f_clamp=mixer.f_clamp, state_rounding=mixer.state_rounding,
        )  # fmt: skip
        new.update(zip(keys, state, strict=True))
        return self._head_norm(y_all, mixer.head_norm_eps, f"{path}.head_norm")


def _by_head(x: Tensor, heads: int) -> Tensor:
    """[B,T,heads*size] as [B,T,heads,size]."""
    return x.reshape(*x.shape[:-1], heads, -1)
