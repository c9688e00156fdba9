"""A Vision-LSTM in float64: upstream's own module where it can be imported, else one assembled
from the ``xlstm`` package, whose mLSTM layer upstream's was copied from. Importing this file
imports torch.

Upstream's module is in no package index: it is the folder ``vision_lstm`` of NX-AI/vision-lstm.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from xlstm_export.checkpoint.source import Checkpoint
from xlstm_export.errors import CheckpointError
from xlstm_export.families.oracle import FloatArray
from xlstm_export.families.vil.assembled import Assembled, assembled_keys
from xlstm_export.families.vil.images import Images
from xlstm_export.families.vil.keys import TABLE, Keys, module_keys
from xlstm_export.families.vil.read import VisionFields
from xlstm_export.model.layers.end_pooling import EndPooling
from xlstm_export.model.layers.logit_head import LogitHead
from xlstm_export.model.spec import ModelSpec
from xlstm_export.model.storage import Storage, rounded_tensors

_UPSTREAM = "vision_lstm"


@dataclass(frozen=True)
class VisionOracle:
    """``module`` takes images and gives the one output of ``spec``."""

    name: str
    spec: ModelSpec
    module: nn.Module

    def run(
        self,
        feeds: Mapping[str, npt.NDArray[Any]],
        states: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
        """As ``Oracle.run``; there are no states."""
        images = torch.tensor(feeds[self.spec.inputs[0].name], dtype=torch.float64)
        with torch.inference_mode():
            output = self.module(images).numpy()
        return {self.spec.outputs[0].name: output}, {}


def build(checkpoint: Checkpoint, storage: Storage) -> VisionOracle:
    """The module of ``checkpoint``, its numbers as ``storage`` leaves them.

    Raises CheckpointError where the module does not take the weights.
    """
    fields: VisionFields = checkpoint.fields
    package = _package()
    with torch.random.fork_rng(devices=[]):  # modules initialise; callers keep their seed
        module = _upstream(package, checkpoint) if package else Assembled(checkpoint)
    if package:
        keys = module_keys(fields.keys.version, fields.keys.blocks, fields.keys.is_causal)
        name = f"{_UPSTREAM} {type(module).__name__}, mLSTM parallel, float64"
    else:
        keys = assembled_keys(fields.keys.blocks)
        name = (
            f"xlstm {version('xlstm')} mLSTMLayer, mLSTM parallel, assembled as Vision-LSTM (its "
            f"own module {_UPSTREAM} cannot be imported), float64"
        )
    module = module.double().eval().requires_grad_(False)
    _load(module, _stored(checkpoint, storage, keys), str(checkpoint.files[-1]))
    return VisionOracle(name, checkpoint.spec, module)


def _package() -> Any:
    """Upstream's package; None where it, or what it imports, is not there."""
    try:
        return importlib.import_module(_UPSTREAM)
    except ImportError:
        return None


def _upstream(package: Any, checkpoint: Checkpoint) -> nn.Module:
    """Upstream's module of the sizes of ``checkpoint``."""
    spec, fields = checkpoint.spec, checkpoint.fields
    keys: Keys = fields.keys
    patches = fields.images.patches
    named = {path for path, _ in spec.layers}
    heads, poolings = spec.layers_of(LogitHead), spec.layers_of(EndPooling)
    arguments: dict[str, Any] = {
        "dim": patches.model_size,
        "input_shape": (patches.channels, *fields.images.resolution),
        "patch_size": patches.patch,
        "stride": patches.stride,
        "output_shape": (heads[0].vocab_size,) if heads else None,
        "pooling": {"mean": "bilateral_avg", "concat": "bilateral_flatten"}[poolings[0].joined]
        if poolings
        else None,
    }
    if keys.version == 1:
        mode = "classifier" if heads else None
        first: nn.Module = package.VisionLSTM(
            depth=keys.blocks, mode=mode, legacy_norm="out_norm" in named, **arguments
        )
        return first
    second: nn.Module = package.VisionLSTM2(
        depth=keys.blocks // 2,
        mode="classifier" if heads else "features",
        legacy_norm="head_norm" in named,
        conv_kind="causal1d" if keys.is_causal else "2d",
        proj_bias=fields.has_biases,
        norm_bias=fields.has_norm_biases,
        **arguments,
    )
    return second


def _stored(checkpoint: Checkpoint, storage: Storage, keys: Keys) -> dict[str, Tensor]:
    """Every tensor in float64 as ``storage`` leaves it, under the names of ``keys``."""
    fields: VisionFields = checkpoint.fields
    left = dict(rounded_tensors(checkpoint.spec, checkpoint.weights, checkpoint.tensors, storage))
    left[TABLE] = _table(checkpoint, storage)
    places = list(zip(fields.keys.places(), keys.places(), strict=True))
    state = {}
    for name, value in left.items():
        old, new = next(pair for pair in places if name.startswith(f"{pair[0]}."))
        state[f"{new}{name.removeprefix(old)}"] = torch.from_numpy(np.ascontiguousarray(value))
    return state


def _table(checkpoint: Checkpoint, storage: Storage) -> npt.NDArray[np.float64]:
    """The position table [1,h,w,D] for the images of the bundle, then rounded as the bundle's.

    Upstream's function: bicubic, to whole patches when it loads, and on to those it has made.
    """
    images: Images = checkpoint.fields.images
    stored = checkpoint.tensors[TABLE]
    table = torch.from_numpy(stored.load().astype(np.float64)).movedim(-1, 1)
    for grid in (images.whole, images.grid):
        if tuple(table.shape[2:]) != grid:
            table = nn.functional.interpolate(table, size=grid, mode="bicubic")
    numbers = table.movedim(1, -1).numpy()
    return storage.without_blocks.round_trip(
        replace(stored, shape=numbers.shape, load=lambda: numbers)
    )


def _load(module: nn.Module, state: dict[str, Tensor], origin: str) -> None:
    """All tensors of ``state``; upstream's own way of loading would drop norms without a head."""
    table: Any = module.pos_embed
    table.embed = nn.Parameter(state[TABLE], requires_grad=False)
    try:
        nn.Module.load_state_dict(module, state)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip()
        raise CheckpointError(
            f"{origin}: upstream's module does not take these weights: {reason}"
        ) from error
