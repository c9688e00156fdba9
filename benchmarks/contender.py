"""A contender of a benchmark, before and after it is built. Needs nothing: a GPU machine may have
little installed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tests.cases import Array


@dataclass(frozen=True)
class Side:
    """A contender before its numbers are compared: ``call`` does its work ``repeats`` times.

    On a GPU a call queues the work on the stream that all contenders share.
    """

    call: Callable[[], object]
    results: Callable[[], Mapping[str, Array]] | None = None
    """By output name, after a call. None: a limit, which computes something else."""
    repeats: int = 1
    work: float | None = None
    """Bytes or FLOP of one call where it is not the workload's."""


@dataclass(frozen=True)
class Maker:
    """A contender before it is built, which it may not be able to."""

    name: str
    build: Callable[[], Side]
    mode: str = "stream"
    """"stream", or "graph": replayed, and a call is one of its layers."""
