"""How many threads torch takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

SMALL = 20_000_000
"""Parameters up to which a step's products are too short for several threads."""


def is_small(parameters: int) -> bool:
    """Whether a model of so many is one for a single thread."""
    return parameters <= SMALL


@dataclass(frozen=True)
class Sharing:
    """Threads of torch: ``alone`` where one model computes, ``each`` where ``workers`` do."""

    alone: int = 1
    workers: int = 1
    each: int = 1


SINGLE = Sharing()
"""One after the other, on one thread."""


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
