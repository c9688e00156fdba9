"""The signals that end a program: answered, turned into an exception, put off."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STOPPING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
"""Signals that end a program, and that it can answer."""


@contextmanager
def on_stop(handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Answer the stopping signals with ``handler``; does nothing outside the main thread.

    ``with on_stop(handler):`` is about SIGINT, SIGTERM and SIGHUP, as far as the system has them.
    ``handler`` is called as one of ``signal.signal``; afterwards the handlers of before are back.
    One that was ignored stays so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in STOPPING}
    # one that is ignored (nohup) or set outside Python (None) stays as it is
    before = {n: old for n, old in before.items() if old not in (signal.SIG_IGN, None)}
    try:
        for number in before:
            signal.signal(number, handler)
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextmanager
def terminated_as_exception() -> Iterator[None]:
    """Let every stopping signal unwind the stack as Ctrl-C does, so that clean-up runs."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    is_default = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    with on_stop(interrupt) if is_default else contextlib.nullcontext():
        yield


@contextmanager
def undisturbed() -> Iterator[None]:
    """Put signals off to the end of the block: a second Ctrl-C must not stop the clean-up."""
    pending: list[int] = []
    with on_stop(lambda number, _: pending.append(number)):
        yield
    for number in pending[:1]:
        signal.raise_signal(number)
