"""Targets and covariates as rows of one length."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from xlstm_export.model.layers.joined_variates import JoinedVariates
from xlstm_export.model.variates import CONTEXT, FUTURE, GROUPS, PAST
from xlstm_export.reference.place import Place
from xlstm_export.reference.variates import rows_of, variates_of


def evaluate(context: Tensor, layer: JoinedVariates, place: Place) -> Tensor:
    """context [B,targets,time] to rows [R,L], in the state type."""
    past, known = place.input(PAST), place.input(FUTURE)
    time = context.shape[2]
    seen = torch.cat([context, past, known[..., :time]], dim=1)[..., -layer.context_size :]
    missing = layer.context_size + layer.left_pad - seen.shape[2]
    seen = F.pad(seen, (missing, 0), value=math.nan)
    ahead = known[..., time : time + layer.future_size]
    ahead = F.pad(ahead, (0, layer.future_size - ahead.shape[2]), value=math.nan)
    ahead = F.pad(ahead, (0, 0, seen.shape[1] - ahead.shape[1], 0), value=math.nan)
    rows = torch.cat([seen, ahead], dim=2).transpose(0, 1).flatten(0, 1)
    future = rows[len(rows) - rows_of(place, FUTURE) :, -layer.future_size :]
    has_value = (~future.isnan()).any(dim=1)[:, None, None]
    place.give("variates", "k", [has_value])
    place.give("variates", "as", _sight(place))
    return rows


def _sight(place: Place) -> list[Tensor]:
    """Who has others in its group [B,1,V,1], and who sees whom [B,1,1,V,V]."""
    groups = place.input(GROUPS)
    same = groups[:, :, None] == groups[:, None, :]
    is_target = torch.arange(groups.shape[1]) < variates_of(place, CONTEXT)
    sees = same & (is_target[:, None] | ~is_target[None, :])
    return [(same.sum(dim=2) > 1)[:, None, :, None], sees[:, None, None]]
