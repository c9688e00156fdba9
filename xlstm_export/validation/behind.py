"""Work that is done while the next of its kind is being prepared."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

Later = Callable[..., None]


@contextmanager
def behind() -> Iterator[Later]:
    """``later(function, *arguments)`` waits for the call before it, and runs this one in a thread.

    What a call raises comes out of the next one, or at the end of the block.
    """
    with ThreadPoolExecutor(1) as pool:
        running: Future[Any] | None = None

        def later(function: Callable[..., object], *arguments: object) -> None:
            nonlocal running
            if running is not None:
                running.result()
            running = pool.submit(function, *arguments)

        yield later
        if running is not None:
            running.result()
