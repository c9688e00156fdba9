"""Upstream's TiRexZero with its float32 in float64; what it rounds to bfloat16 is rounded here.

Upstream computes nothing from a state it is given, and gives none back. Its cell does both: the
states go in and come out by hooks of that module, everything else is upstream's own call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tirex.models.tirex import TiRexZero
from torch import Tensor
from torch.overrides import TorchFunctionMode

from xlstm_export.checkpoint.source import Checkpoint
from xlstm_export.errors import CheckpointError
from xlstm_export.families.oracle import FloatArray
from xlstm_export.families.tirex.fields import TiRexFields
from xlstm_export.model.layers.feed_forward import FeedForward
from xlstm_export.model.layers.slstm import SLSTM
from xlstm_export.model.numerics import rounds
from xlstm_export.model.spec import ModelSpec
from xlstm_export.model.storage import Storage, rounded_tensors

_SCALER = ("0.scaler.loc", "0.scaler.scale")


class TiRexOracle:
    """Implements ``families.oracle.Oracle`` around a TiRexZero.

    Where the spec rounds nothing (``--numerics fp32``), neither does this.
    """

    def __init__(self, spec: ModelSpec, module: Any) -> None:
        self._spec = spec
        self._rounds = rounds(spec)
        arithmetic = "float64, bfloat16 where it forces that" if self._rounds else "float64"
        self.name = f"tirex-ts {version('tirex-ts')} TiRexZero (torch), {arithmetic}"
        self.module = module
        self._cells = spec.layers_of(SLSTM)

    def run(
        self,
        feeds: Mapping[str, npt.NDArray[Any]],
        states: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
        """As ``Oracle.run``: ``context`` [B,L]; with ``states`` L is a multiple of the patch."""
        context = torch.tensor(feeds["context"], dtype=torch.float64)
        given = {k: torch.tensor(v, dtype=torch.float64) for k, v in (states or {}).items()}
        with torch.inference_mode(), InDouble(self._rounds), self._carried(given) as after:
            quantiles, scale = self._forward(context, given)
        after = dict(zip(_SCALER, scale, strict=True)) | after
        return (
            {"quantiles": quantiles.numpy()},
            {key: value.to(torch.float64).numpy() for key, value in after.items()},
        )

    def _forward(self, context: Tensor, given: Mapping[str, Tensor]) -> tuple[Tensor, Any]:
        """Quantiles [B,steps,Q], and loc and scale."""
        tokenizer, length = self.module.tokenizer, self.module.config.train_ctx_len
        if given:
            scale = type(tokenizer.scaler.get_loc_scale(context))(*(given[k] for k in _SCALER))
            scaled = (context - scale.loc) / scale.scale
            tokens = scaled.unflatten(-1, (-1, tokenizer.patch_size))
        else:
            window, _ = self.module._adjust_context_length(context, length, length)
            tokens, scale = tokenizer.input_transform(window)
        predicted = self.module._forward_model_tokenized(tokens)
        if not given:
            predicted = predicted[:, :, -1:]
        return tokenizer.output_transform(predicted, scale).swapaxes(1, 2), scale

    @contextmanager
    def _carried(self, given: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
        """Cells that begin with the states ``given``; yields what they are after the call."""
        after: dict[str, Tensor] = {}
        handles = []
        for index, block in enumerate(self.module.blocks):
            cell, layer = block.slstm_layer.slstm_cell, self._cells[index]
            keys = [f"{index + 1}.slstm.{letter}" for letter in "ycnm"]
            if given:
                before = torch.stack([given[key].flatten(1) for key in keys])
                handles.append(cell.register_forward_pre_hook(_giving(before), with_kwargs=True))
            handles.append(cell.register_forward_hook(_taking(after, keys, layer)))
        try:
            yield after
        finally:
            for handle in handles:
                handle.remove()


class InDouble(TorchFunctionMode):
    """What upstream computes in float32 by its own word is computed in float64.

    ``rounds``: what it holds in bfloat16 stays so, and a product of two such matrices is rounded
    once, as its hardware kernels do; else that is float64 too.
    """

    def __init__(self, rounds: bool) -> None:
        super().__init__()
        self._rounds = rounds

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is Tensor.float:
            return args[0].double()
        if func is Tensor.to and kwargs.get("dtype") is torch.bfloat16 and not self._rounds:
            return args[0]
        if func is Tensor.matmul and args[0].dtype is torch.bfloat16:
            return args[0].double().matmul(args[1].double()).to(torch.bfloat16)
        return func(*args, **kwargs)


def _giving(state: Tensor) -> Callable[..., Any]:
    def hook(module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        return args, kwargs | {"state": state}

    return hook


def _taking(after: dict[str, Tensor], keys: list[str], layer: SLSTM) -> Callable[..., Any]:
    def hook(module: Any, args: Any, result: Any) -> None:
        parts = (part.unflatten(-1, (layer.heads, layer.head_size)) for part in result[1])
        after.update(zip(keys, parts, strict=True))

    return hook


def build(checkpoint: Checkpoint, storage: Storage) -> TiRexOracle:
    """The module of ``checkpoint``, its numbers as ``storage`` leaves them.

    Raises CheckpointError where upstream's module does not take the weights.
    """
    spec, fields = checkpoint.spec, checkpoint.fields
    left = rounded_tensors(spec, checkpoint.weights, checkpoint.tensors, storage)
    values = {key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in left.items()}
    with torch.device("meta"):
        module: Any = TiRexZero(
            backend="torch", model_config=_arguments(fields, spec),
            train_ctx_len=fields.train_ctx_len,
        )  # fmt: skip
    try:
        module.load_state_dict(values, strict=True, assign=True)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip()
        raise CheckpointError(
            f"{checkpoint.files[-1]}: upstream's module does not take these weights: {reason}"
        ) from error
    return TiRexOracle(spec, module.eval())


def _arguments(fields: TiRexFields, spec: ModelSpec) -> dict[str, Any]:
    config, hidden = fields.model_config, spec.layers_of(FeedForward)[0].hidden_size
    # upstream rounds up to a multiple of 64
    factor = {"ffn_proj_factor": hidden / config.block_kwargs.embedding_dim}
    return {**vars(config), "block_kwargs": {**vars(config.block_kwargs), **factor}}
