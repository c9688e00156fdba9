"""Rows of several series, see ``model.variates``: where they are."""

from __future__ import annotations

from xlstm_export.model.variates import CONTEXT
from xlstm_export.reference.place import Place


def variates_of(place: Place, name: str) -> int:
    """How many variates the input ``name`` has."""
    return place.input(name).shape[1]


def rows_of(place: Place, name: str) -> int:
    """How many rows those of the input ``name`` are."""
    return len(place.input(CONTEXT)) * variates_of(place, name)
