"""How many threads torch takes, and how Python's own take turns."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

SMALL = 20_000_000
"""Parameters up to which a step's products are too short for several threads."""


@contextmanager
def torch_threads(threads: int | None) -> Iterator[None]:
    """Let torch compute with ``threads`` in the block; None: with as many as it has."""
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


_SHORT_TURN = 1e-4
"""Seconds. A step of a small model is some dozens of calls of 10 microseconds outside the
interpreter's lock; at Python's 5 ms each would wait for the lock longer than it computes."""


@contextmanager
def short_turns() -> Iterator[None]:
    """Let Python's threads hand on the interpreter's lock soon, as many short calls need it."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SHORT_TURN)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
