"""Completions as OpenAI's clients read them: whole, or as a stream of events."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from xlstm_export.errors import InputError
from xlstm_export.generation.continuation import Continuation
from xlstm_export.serving.worker import Event, Job

Told = tuple[int, Event]
"""Number of a choice, and what became of it."""


class FailedError(Exception):
    """A choice went wrong after it was begun."""


class LateError(Exception):
    """The answer was not made in its time."""


@dataclass
class Choices:
    """Every continuation of one request, told of by one queue of its event loop."""

    several: Sequence[Continuation]
    id: str = field(default_factory=lambda: f"cmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        self._queue: asyncio.Queue[Told] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def job(number: int, made: Continuation) -> Job:
            def tell(event: Event) -> None:
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens
                    loop.call_soon_threadsafe(self._queue.put_nowait, (number, event))

            return Job(made, tell)

        self.jobs = [job(number, made) for number, made in enumerate(self.several)]

    async def events(self, deadline: float) -> AsyncIterator[Told]:
        """Until every choice has come to its end. Raises FailedError, InputError, LateError."""
        going = len(self.several)
        while going:
            left = deadline - asyncio.get_running_loop().time()
            try:
                number, event = await asyncio.wait_for(self._queue.get(), max(left, 0.001))
            except asyncio.TimeoutError as error:  # no builtin before Python 3.11
                raise LateError from error
            if event.is_unfit:
                raise InputError(event.error)
            if event.error:
                raise FailedError(event.error)
            going -= event.is_last
            yield number, event

    def usage(self) -> dict[str, int]:
        """Tokens of the prompts and tokens made."""
        prompt = sum(len(made.prompt.ids) for made in self.several)
        made_now = sum(len(made.ids) for made in self.several)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": made_now,
            "total_tokens": prompt + made_now,
        }

    def content(self, model: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        """The object around ``choices``."""
        return {
            "id": self.id, "object": "text_completion", "created": self.created, "model": model,
            "choices": choices,
        }  # fmt: skip


def choice(number: int, text: str, end: str | None) -> dict[str, Any]:
    """One choice: its text, or a piece of it."""
    return {"index": number, "text": text, "finish_reason": end, "logprobs": None}


async def whole(choices: Choices, model: str, deadline: float) -> dict[str, Any]:
    """The answer when all is made."""
    async for _ in choices.events(deadline):
        pass
    found = [choice(n, made.text, made.end) for n, made in enumerate(choices.several)]
    return {**choices.content(model, found), "usage": choices.usage()}


async def stream(
    choices: Choices, model: str, deadline: float, with_usage: bool
) -> AsyncIterator[str]:
    """Server-sent events as text is made; an error is one too."""
    try:
        async for number, event in choices.events(deadline):
            if event.text or event.end:
                yield _sse(choices.content(model, [choice(number, event.text, event.end)]))
        if with_usage:
            yield _sse({**choices.content(model, []), "usage": choices.usage()})
    except InputError as error:
        yield _sse(error_content(str(error), "invalid_request_error"))
    except FailedError as error:
        yield _sse(error_content(str(error), "server_error"))
    except LateError:
        yield _sse(error_content("the answer took too long", "timeout"))
    yield "data: [DONE]\n\n"


def _sse(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content)}\n\n"


def error_content(message: str, kind: str, param: str | None = None) -> dict[str, Any]:
    """An error as OpenAI's clients read it."""
    return {"error": {"message": message, "type": kind, "param": param, "code": None}}
