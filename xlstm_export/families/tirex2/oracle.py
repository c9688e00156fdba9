"""The package tirex-2's ``TiRex2.predict`` as reference. Importing it imports torch and tirex2."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tirex2._state_dict import expand_shared_duplicates
from tirex2.model import TiRex2
from tirex2.model.component import attention_block
from tirex2.model.types import TimeseriesType
from torch import Tensor, nn
from torch.nn import functional as F

from xlstm_export.checkpoint.source import Checkpoint
from xlstm_export.errors import CheckpointError
from xlstm_export.families.oracle import FloatArray
from xlstm_export.families.tensors import float64_tensors
from xlstm_export.families.tirex2.config import Config
from xlstm_export.model.storage import Storage
from xlstm_export.model.variates import CONTEXT, FUTURE, GROUPS, PAST

_QK_EPS = torch.finfo(torch.float32).eps
"""What upstream's inference, in float32, takes for the norm of queries and keys."""


class Tirex2Oracle:
    """Implements ``families.oracle.Oracle`` around upstream's forecaster."""

    def __init__(self, config: Config, module: nn.Module) -> None:
        self.name = (
            f"tirex-2 {version('tirex-2')} TiRex2.predict (mlstm_kernels "
            f"{version('mlstm_kernels')}, flashrnn {version('flashrnn')} vanilla), float64"
        )
        self._count = len(config.quantiles)
        self._longest = config.future_len
        self._module: Any = module

    def run(
        self,
        feeds: Mapping[str, npt.NDArray[Any]],
        states: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
        """As ``Oracle.run``; every group of a batch entry is one series of upstream's."""
        context, future = feeds[CONTEXT], feeds[FUTURE]
        horizon = min(future.shape[2] - context.shape[2], self._longest)
        shape = (*context.shape[:2], horizon, self._count)
        quantiles = np.full(shape, np.nan)
        where, series = zip(*_series(feeds), strict=True)
        with _in_float64():
            forecasts = self._module.predict(list(series), horizon)
        for (row, targets), forecast in zip(where, forecasts, strict=True):
            quantiles[row, targets] = forecast.numpy().transpose(0, 2, 1)
        return {"quantiles": quantiles}, {}


def _series(
    feeds: Mapping[str, npt.NDArray[Any]],
) -> Iterator[tuple[tuple[int, npt.NDArray[Any]], TimeseriesType]]:
    """Each group with a target: its batch entry and targets, and upstream's form of it."""
    kinds = [feeds[name] for name in (CONTEXT, PAST, FUTURE)]
    borders = np.cumsum([kind.shape[1] for kind in kinds])[:-1]
    for row, numbers in enumerate(feeds[GROUPS]):
        own = np.split(numbers, borders)
        for group in np.unique(own[0]):
            members = [kind[row, number == group] for kind, number in zip(kinds, own, strict=True)]
            target, *covariates = (_tensor(values) for values in members)
            given = [values if len(values) else None for values in covariates]
            yield (row, np.flatnonzero(own[0] == group)), TimeseriesType(target, *given)


def _tensor(values: npt.NDArray[Any]) -> Tensor:
    return torch.from_numpy(values.astype(np.float64))


@contextmanager
def _in_float64() -> Iterator[None]:
    """Without compilation, and with the epsilon of float32 where torch would take float64's."""
    before = attention_block.norm
    attention_block.norm = lambda x: F.rms_norm(x, (x.size(-1),), eps=_QK_EPS)
    try:
        with torch.inference_mode(), torch.compiler.set_stance("force_eager"):
            yield
    finally:
        attention_block.norm = before


def build(checkpoint: Checkpoint, storage: Storage) -> Tirex2Oracle:
    """The model of ``checkpoint``, its numbers as ``storage`` leaves them."""
    config: Config = checkpoint.fields
    arguments = dataclasses.asdict(config)
    del arguments["path"]
    arguments["act_func"] = config.act_func.rpartition(".")[2]  # imports nothing
    module: Any = TiRex2(**arguments, device="cpu").double().eval()
    norm = config.stack_out_norm_config
    if norm is not None:  # upstream's own would compute in float32
        module.stack_out_norm = nn.RMSNorm(config.embedding_dim, eps=norm.eps).double()
    for part in module.modules():
        if hasattr(part, "force_float32_reductions"):
            part.force_float32_reductions = False
    tensors = float64_tensors(checkpoint, storage)
    try:
        module.load_state_dict(expand_shared_duplicates(module, tensors))
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip()
        raise CheckpointError(
            f"{config.path.parent}: upstream's module does not take these weights: {reason}"
        ) from error
    return Tirex2Oracle(config, module)
