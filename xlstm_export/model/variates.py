"""The inputs and the output of a model of several series at once.

Inside such a model the series are rows, one below the other: every batch entry's first variate,
then every entry's second, and so on; targets come first, then past covariates, then those known
ahead. R rows in all.
"""

from __future__ import annotations

from xlstm_export.bundle.manifest import TensorInfo
from xlstm_export.model.spec import BATCH

CONTEXT, PAST, FUTURE, GROUPS = "context", "past_covariates", "future_covariates", "groups"


def variate_inputs() -> tuple[TensorInfo, ...]:
    """Targets and past covariates over the context, covariates over context and horizon, groups.

    Covariates may be none. NaN is a missing value. Variates of one batch entry that have the same
    number in ``groups`` (targets, past, known ahead, in this order) see each other.
    """
    return (
        TensorInfo(CONTEXT, "float32", (BATCH, "targets", "length")),
        TensorInfo(PAST, "float32", (BATCH, "past", "length")),
        TensorInfo(FUTURE, "float32", (BATCH, "known", "length+horizon")),
        TensorInfo(GROUPS, "int64", (BATCH, "targets+past+known")),
    )


def variate_quantiles(count: int) -> TensorInfo:
    """The forecast of each target."""
    return TensorInfo("quantiles", "float32", (BATCH, "targets", "horizon", count))
