"""One prompt's continuation: the ids and the text so far, and whether it has come to its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from xlstm_export.errors import OptionError
from xlstm_export.generation.prompt import Prompt
from xlstm_export.generation.sampling import Sampling, choose, token_of
from xlstm_export.generation.text import NumberStream, TextStream
from xlstm_export.runtime.choice import Choice
from xlstm_export.runtime.session import Array

End = Literal["length", "stop"]
"""Why a continuation ended: all tokens are made, or a stop id or a stop string came."""


@dataclass(frozen=True)
class Limits:
    """When a continuation ends: after ``tokens`` ids, at a stop id, before a stop string.

    Raises OptionError for fewer than one token, and for a stop string that is empty.
    """

    tokens: int
    ids: tuple[int, ...] = ()
    strings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise OptionError("max_new_tokens", f"{self.tokens} is not 1 or more")
        if any(not string for string in self.strings):
            raise OptionError("stop", "a stop string is empty")


class Continuation:
    """``take`` takes the next id; ``ids`` and ``text`` are what it has made.

    A stop id is among the ids, not in the text; the text ends before a stop string. Raises
    OptionError for stop strings where the prompt has no tokenizer.
    """

    def __init__(self, prompt: Prompt, limits: Limits, sampling: Sampling) -> None:
        if limits.strings and prompt.codec is None:
            raise OptionError("stop", "needs text: a prompt of ids has no tokenizer")
        self.prompt = prompt
        self.ids: list[int] = []
        self.text = ""
        self.end: End | None = None
        self._limits = limits
        self._sampling = sampling
        self._random = np.random.default_rng(sampling.seed)
        self._seen = set(prompt.ids)
        self._held = ""
        self._stream: NumberStream | TextStream = NumberStream()
        if prompt.codec is not None:
            self._stream = TextStream(prompt.codec, prompt.ids, limits.ids)

    @property
    def is_greedy(self) -> bool:
        """Whether ``take`` needs no logits: a Choice is enough."""
        return self._sampling.is_greedy

    def take(self, found: Array | Choice) -> str:
        """One id more: of logits [vocab] by sampling, or the likeliest, where that is greedy.

        Returns the text that is certain with it.
        """
        if isinstance(found, Choice):
            token = token_of(found)
        else:
            token = choose(found, self._sampling, self._random, self._seen)
        self.ids.append(token)
        self._seen.add(token)
        if token in self._limits.ids:
            self.end = "stop"
        elif len(self.ids) >= self._limits.tokens:
            self.end = "length"
        new = self._stream.push(token)
        if self.end is not None:
            new += self._stream.finish()
        piece = self._until_stop(new)
        self.text += piece
        return piece

    def _until_stop(self, new: str) -> str:
        """What of the text held back and ``new`` is before a stop string, and cannot begin one."""
        text = self._held + new
        found = [at for at in (text.find(string) for string in self._limits.strings) if at >= 0]
        if found:
            self.end, self._held = "stop", ""
            return text[: min(found)]
        held = 0 if self.end else longest_start(text, self._limits.strings)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]


def longest_start(text: str, strings: Sequence[str]) -> int:
    """Length of the longest end of ``text`` that one of ``strings`` begins with, but not whole."""
    longest = max((len(string) for string in strings), default=1) - 1
    for length in range(min(longest, len(text)), 0, -1):
        if any(string.startswith(text[-length:]) for string in strings):
            return length
    return 0
