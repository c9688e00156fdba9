"""How fast a bundle can decode here at most: by the bytes of a token, and the speed of memory."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xlstm_export.bundle.bundle import Bundle
from xlstm_export.runtime.ort import cpu_threads

_SHARE, _LEAST, _MOST = 8, 1 << 23, 1 << 28
"""Bytes that are read to measure: a share of what a token moves, so that an export takes little
memory. Small weights stay in caches, large ones do not; where the share alone fits into them, the
bound is too high, as a bound may be."""
_TURNS = 5


@dataclass(frozen=True)
class DecodeBound:
    """What decoding one sequence takes at least; bytes and seconds.

    ``memory``: the weights, and the states twice, before and after a step; a process takes some
    more. ``moved``: a token's, every weight that is not looked up once, the states in and out.
    ``bandwidth``: bytes a second that all processors read here, measured.
    """

    memory: int
    moved: int
    bandwidth: float

    @property
    def tokens_per_second(self) -> float:
        """At most, for one sequence."""
        return self.bandwidth / self.moved


def decode_bound(bundle: str | Path | Bundle) -> DecodeBound | None:
    """The bound of memory on decoding with ``bundle`` here; None where it is no language model.

    It takes a tenth of a second. Raises BundleError.
    """
    manifest = (bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)).manifest
    if not (manifest.is_language_model and manifest.step_bytes):
        return None
    states = 2 * manifest.state_bytes
    moved = manifest.step_bytes + states
    return DecodeBound(manifest.data_bytes + states, moved, read_bandwidth(moved, cpu_threads()))


def read_bandwidth(size: int, threads: int) -> float:
    """Bytes a second that ``threads`` threads read from a share of ``size``, again and again."""
    numbers = np.ones(min(max(size // _SHARE, _LEAST), _MOST) // 4, np.float32)
    parts = np.array_split(numbers, threads)
    with ThreadPoolExecutor(threads) as pool:

        def seconds() -> float:
            start = time.perf_counter()
            for _ in pool.map(lambda part: np.dot(part, part), parts):
                pass
            return time.perf_counter() - start

        return numbers.nbytes / min(seconds() for _ in range(_TURNS))
