"""Sessions that foretell by simple sums, to see what a forecast feeds and keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from xlstm_export.bundle.manifest import (
    Continuation,
    ForecastInfo,
    Manifest,
    OpsInfo,
    SourceInfo,
    StateInfo,
    TensorInfo,
)

LEVELS = (0.1, 0.5, 0.9)
PATCH = 4

_BEGUN = Manifest(
    1, "tirex", "float32", 18, OpsInfo("ai.xlstm", 1),
    (TensorInfo("context", "float32", ("batch", "length")),),
    (TensorInfo("quantiles", "float32", ("batch", PATCH, len(LEVELS))),),
    (StateInfo("0.sum.y", "past.0.sum.y", "present.0.sum.y", ("batch", 1), "float32", "zeros"),),
    SourceInfo("none", ""), {}, ("onnxruntime-cpu",),
    forecast=ForecastInfo(LEVELS, context=12, patch=PATCH, horizon=PATCH),
)  # fmt: skip
ONE_BY_ONE = replace(
    _BEGUN,
    continuation=Continuation(
        "continue.onnx", _BEGUN.inputs,
        (TensorInfo("quantiles", "float32", ("batch", "length", len(LEVELS))),),
    ),
)  # fmt: skip
TOGETHER = replace(
    _BEGUN,
    family="tirex2",
    inputs=(
        TensorInfo("context", "float32", ("batch", "targets", "length")),
        TensorInfo("past_covariates", "float32", ("batch", "past", "length")),
        TensorInfo("future_covariates", "float32", ("batch", "known", "length+horizon")),
        TensorInfo("groups", "int64", ("batch", "targets+past+known")),
    ),
    outputs=(TensorInfo("quantiles", "float32", ("batch", "targets", "horizon", len(LEVELS))),),
    states=(),
    forecast=ForecastInfo(LEVELS, context=12, patch=PATCH, horizon=10),
)


@dataclass
class Sums:
    """Foretells, at step s of patch p, the sum of the last 12 values + 100 p + s, by level + l.

    p counts the missing patches at the end of what a row has seen.
    """

    manifest: Manifest
    calls: list[dict[str, Any]] = field(default_factory=list)
    bundle: Path = Path("forecaster")
    name: str = "sums"
    most_steps: int = 512

    def describe(self) -> dict[str, str]:
        return {"ai.xlstm": "sums"}

    def close(self) -> None: ...

    def run(
        self, feeds: Mapping[str, Any], states: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        self.calls.append({**feeds, "states": states})
        context = feeds["context"]
        if context.ndim == 3:
            return self._together(feeds), {}
        if states is None:
            total = np.nansum(context[:, -12:], axis=1)
            missing = np.isnan(context[:, ::-1]).cumprod(axis=1).sum(axis=1) // PATCH
            quantiles = self._patch(total, missing)
            return {"quantiles": quantiles}, {"0.sum.y": np.stack([total, missing], axis=1)}
        total, missing = states["0.sum.y"].T
        patches = range(1, context.shape[1] // PATCH + 1)
        quantiles = np.concatenate([self._patch(total, missing + p) for p in patches], axis=1)
        return {"quantiles": quantiles}, {"0.sum.y": np.stack([total, missing], axis=1)}

    def _patch(self, total: Any, missing: Any) -> Any:
        base = (total + 100 * missing)[:, None, None]
        steps = np.arange(PATCH)[None, :, None]
        return (base + steps + np.array(LEVELS)).astype(np.float32)

    def _together(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """The sum of each target, of all covariates, and the step."""
        context, future = feeds["context"], feeds["future_covariates"]
        horizon = future.shape[-1] - context.shape[-1]
        beside = sum(
            np.nansum(feeds[name], axis=(1, 2)) for name in ("past_covariates", "future_covariates")
        )
        base = np.nansum(context, axis=2) + np.asarray(beside)[:, None]
        steps = np.arange(horizon)[None, None, :, None]
        return {"quantiles": (base[..., None, None] + steps + np.array(LEVELS)).astype(np.float32)}
