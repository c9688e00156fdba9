"""How long work tells how far it is."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called as work goes on; ``unit`` is "bytes" where done and total count bytes."""

    def __call__(self, what: str, done: int, total: int, unit: str = "") -> object:
        """``what`` is going on, ``done`` of ``total`` (0: unknown); ``unit`` is that of both."""
        ...
