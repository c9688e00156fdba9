"""What clients send: OpenAI's completions, and forecasts. What is not done is refused by name."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from xlstm_export.runtime.session import Array

Ids = list[int]


class StreamOptions(BaseModel):
    """Whether the last event of a stream tells the tokens used."""

    include_usage: bool = False


class CompletionRequest(BaseModel):
    """As OpenAI's, with ``top_k`` and ``repetition_penalty``; an unknown field is an error."""

    model_config = ConfigDict(extra="forbid")

    prompt: str | Ids | list[str] | list[Ids]
    model: str | None = None
    max_tokens: Annotated[int, Field(ge=1)] = 16
    temperature: Annotated[FiniteFloat, Field(ge=0)] = 1.0
    top_p: Annotated[FiniteFloat, Field(ge=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=0)] = 0
    repetition_penalty: Annotated[FiniteFloat, Field(gt=0)] = 1.0
    seed: Annotated[int | None, Field(ge=0)] = None
    stop: str | Annotated[list[str], Field(max_length=4)] | None = None
    n: Annotated[int, Field(ge=1, le=16)] = 1
    stream: bool = False
    stream_options: StreamOptions | None = None
    user: str | None = None

    def prompts(self) -> list[str | Ids]:
        """Every prompt, each ``n`` times."""
        given = self.prompt
        one = isinstance(given, str) or all(isinstance(item, int) for item in given)
        several: list[str | Ids] = [given] if one else list(given)  # type: ignore[list-item, arg-type]
        return [prompt for prompt in several for _ in range(self.n)]

    def stops(self) -> tuple[str, ...]:
        """Stop strings."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


class ForecastRequest(BaseModel):
    """Series of numbers, null where a value is missing; quantiles of ``horizon`` steps follow."""

    model_config = ConfigDict(extra="forbid")

    series: Annotated[list[Annotated[list[FiniteFloat | None], Field(min_length=1)]],
                      Field(min_length=1)]  # fmt: skip
    horizon: Annotated[int, Field(ge=1, le=100_000)]
    model: str | None = None
    together: bool = False

    def arrays(self) -> list[Array]:
        """Each series float32 [length], NaN where a value is missing."""
        return [
            np.array([np.nan if x is None else x for x in row], np.float32) for row in self.series
        ]
