"""The steps and rows of a model of several series that are its forecast."""

from __future__ import annotations

from torch import Tensor

from xlstm_export.model.layers.forecast_window import ForecastWindow
from xlstm_export.model.variates import CONTEXT
from xlstm_export.reference.place import Place
from xlstm_export.reference.variates import rows_of


def evaluate(x: Tensor, layer: ForecastWindow, place: Place) -> Tensor:
    """x [R,T,D] to [targets,N,D]."""
    return x[: rows_of(place, CONTEXT), -1 - layer.patches : -1]
