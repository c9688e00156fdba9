"""How a model rounds between its steps: as upstream does, or not at all."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any

from xlstm_export.bundle.manifest import Numerics
from xlstm_export.model.layers.slstm import SLSTM
from xlstm_export.model.spec import ModelSpec


def with_numerics(spec: ModelSpec, numerics: Numerics) -> ModelSpec:
    """``spec`` as it is, or with nothing rounded between its steps."""
    if numerics == "faithful":
        return spec
    layers = tuple((path, _without_rounding(layer)) for path, layer in spec.layers)
    return replace(spec, layers=layers)


def rounds(spec: ModelSpec) -> bool:
    """Whether there is anything that ``fp32`` would not round."""
    return any(layer.state_rounding for layer in spec.layers_of(SLSTM))


def _without_rounding(layer: Any) -> Any:
    if isinstance(layer, SLSTM):
        return replace(layer, state_rounding=0)
    inner = {f.name: getattr(layer, f.name) for f in fields(layer)}
    plain = {name: _without_rounding(part) for name, part in inner.items() if is_dataclass(part)}
    return replace(layer, **plain)
