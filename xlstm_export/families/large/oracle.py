"""Upstream's modules of the xLSTM-7B architecture, made to compute in float64.

Upstream has three types of its own: float32 in norms, ``inference_state_dtype`` for C, n, m, and
the dtype of the weights. All are set on the built module's attributes; no code is replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from xlstm_export.families.oracle import FloatArray
from xlstm_export.model.layers.feed_forward import FeedForward
from xlstm_export.model.layers.logit_head import LogitHead
from xlstm_export.model.layers.mlstm import MLSTM, MLSTMCell
from xlstm_export.model.layers.norm import Norm
from xlstm_export.model.layers.token_embedding import TokenEmbedding
from xlstm_export.model.spec import ModelSpec
from xlstm_export.model.state import state_specs
from xlstm_export.model.weights import Weights

LayerState = tuple[Tensor, Tensor, Tensor]
"""Upstream's C [B,N,K,V], n [B,N,K], m [B,N,1] of one layer."""

Forward = Callable[[Tensor, list[LayerState]], tuple[Tensor, list[LayerState]]]
"""Token ids [B,T] and states to logits [B,T,vocab] and the states after; may write into these.

Of a part of a model, what comes to it and what leaves it instead.
"""

NATIVE: dict[str, Any] = {
    "chunkwise_kernel": "chunkwise--native_autograd",
    "sequence_kernel": "native_sequence__native",
    "step_kernel": "native",
    "mode": "inference",
    "autocast_kernel_dtype": "float32",  # read by CUDA kernels alone
    "norm_reduction_force_float32": False,
}
"""Configuration of both packages for the kernels written in plain torch."""

_CHUNK = 64


class LargeOracle:
    """Implements ``families.source.Oracle`` around a module of either package."""

    def __init__(self, name: str, spec: ModelSpec, module: nn.Module, forward: Forward) -> None:
        self.name = name
        self._spec = spec
        self._states = state_specs(spec)
        self._module = module
        self._forward = forward

    def run(
        self,
        feeds: Mapping[str, npt.NDArray[Any]],
        states: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
        """As ``Oracle.run``: ids int64 [B,T], T >= 1; of a part, vectors [B,T,D]."""
        (given,) = self._spec.inputs
        kind = np.int64 if given.dtype == "int64" else np.float64
        tokens = torch.from_numpy(np.array(feeds[given.name], dtype=kind))
        with torch.inference_mode():
            state = self._to_upstream(states, tokens.shape[0])
            outputs = []
            for start, stop, chunk in _pieces(tokens.shape[1]):
                _set_chunk(self._module, chunk)
                part, state = self._forward(tokens[:, start:stop], state)
                outputs.append(part)
            output = torch.cat(outputs, dim=1).numpy()
            return {self._spec.outputs[0].name: output}, self._from_upstream(state)

    def _to_upstream(
        self, states: Mapping[str, npt.NDArray[Any]] | None, batch: int
    ) -> list[LayerState]:
        """Copies: upstream writes into the states it is given."""
        flat = []
        for entry in self._states:
            if states is None:
                shape = [batch, *(int(size) for size in entry.shape[1:])]
                value = torch.zeros(shape, dtype=torch.float64)
            else:
                value = torch.from_numpy(np.array(states[entry.key], dtype=np.float64))
            flat.append(value)
        layers = zip(flat[0::3], flat[1::3], flat[2::3], strict=True)
        return [(c, n, m[..., None]) for c, n, m in layers]

    def _from_upstream(self, state: list[LayerState]) -> dict[str, FloatArray]:
        flat = [part for c, n, m in state for part in (c, n, m[..., 0])]
        return {e.key: x.numpy().copy() for e, x in zip(self._states, flat, strict=True)}


def part_forward(
    part: ModelSpec, embedding: nn.Module, blocks: Sequence[Any], norm: nn.Module,
    head: Callable[[Tensor], Tensor],
) -> Forward:  # fmt: skip
    """The modules of ``part`` one after the other, of all ``blocks`` and both ends of a model."""
    kinds = {type(layer) for _, layer in part.layers}
    own = blocks[part.states_before : part.states_before + len(part.layers_of(MLSTM))]

    def forward(x: Tensor, state: list[LayerState]) -> tuple[Tensor, list[LayerState]]:
        x = embedding(x) if TokenEmbedding in kinds else x
        after = []
        for block, before in zip(own, state, strict=True):
            x, new = block(x, before)
            after.append(new)
        x = norm(x) if Norm in kinds else x
        return head(x) if LogitHead in kinds else x, after

    return forward


def load_in_float64(module: nn.Module, values: Mapping[str, Tensor], is_part: bool = False) -> None:
    """Fill ``module`` (on the meta device) with ``values``, and let it compute in float64.

    Of a part the rest of the module stays unfilled.
    """
    found = module.load_state_dict(dict(values), strict=not is_part, assign=True)
    assert not found.unexpected_keys
    module.eval()
    part: Any
    for part in module.modules():
        if hasattr(part, "force_float32_reductions"):
            part.force_float32_reductions = False
        if hasattr(part, "_inference_fn"):
            part._inference_fn = _with_float64_state(part._inference_fn)


def size_arguments(spec: ModelSpec) -> dict[str, Any]:
    """Configuration fields by which upstream builds tensors of exactly the sizes of ``spec``."""
    cell, ffn = first_cell(spec), spec.layers_of(FeedForward)[0]
    size = spec.layers_of(TokenEmbedding)[0].model_size
    # upstream takes int(size * factor): half a row more stays clear of rounding
    return {
        "vocab_size": spec.vocab_size,
        "embedding_dim": size,
        "num_heads": cell.heads,
        "num_blocks": len(spec.layers_of(MLSTM)),
        "qk_dim_factor": (cell.heads * cell.qk_size + 0.5) / size,
        "v_dim_factor": (cell.heads * cell.v_size + 0.5) / size,
        "ffn_proj_factor": (ffn.hidden_size + 0.5) / size,
        "ffn_round_up_to_multiple_of": 1,
    }


def first_cell(spec: ModelSpec) -> MLSTMCell:
    """The cell of the first block: the blocks of this architecture are alike."""
    return spec.layers_of(MLSTM)[0].cell


def norm_eps(spec: ModelSpec) -> float:
    """That of every norm."""
    return spec.layers_of(Norm)[0].eps


def logit_cap(spec: ModelSpec) -> float | None:
    """Soft cap of the logits, None where there is none."""
    heads = spec.layers_of(LogitHead)
    return (heads[0].soft_cap or None) if heads else None


def weight_mode(tensors: Weights) -> str:
    """How the checkpoint stores its projections, in upstream's words."""
    return "fused" if any(".qkv_opreact." in key for key in tensors) else "single"


def oracle_name(package: str, class_name: str, kernels: str) -> str:
    """Package, version, class and kernels, as reports show them."""
    return (
        f"{package} {version(package)} {class_name} ({kernels}), "
        "chunkwise native_autograd / step native, float64"
    )


def _with_float64_state(call: partial[Any]) -> partial[Any]:
    """``call`` with every ``dtype_state``, its own and those of the kernels in it, float64."""
    keywords = {}
    for name, value in call.keywords.items():
        if name == "dtype_state":
            value = torch.float64
        keywords[name] = _with_float64_state(value) if isinstance(value, partial) else value
    return partial(call.func, *call.args, **keywords)


def _pieces(length: int) -> Iterator[tuple[int, int, int]]:
    """(start, stop, chunk size) such that upstream pads nothing.

    It pads with f = 25, i = -25, and logsigmoid(25) = -1.4e-11 a step shows in float64.
    """
    whole = length // _CHUNK * _CHUNK
    if whole:
        yield 0, whole, _CHUNK
    if whole < length:
        yield whole, length, length - whole


def _set_chunk(module: nn.Module, chunk: int) -> None:
    part: Any
    for part in module.modules():
        if hasattr(part, "_inference_fn"):
            part._inference_fn.keywords["chunk_size"] = chunk
