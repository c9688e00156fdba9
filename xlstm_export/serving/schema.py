"""What clients send: OpenAI's completions, and forecasts. What is not done is refused by name."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationInfo,
    field_validator,
    model_validator,
)

from xlstm_export.runtime.session import Array

Ids = list[int]


def _only(*neutral: Any) -> AfterValidator:
    """Refuses a field that is not done here, but for values that ask for nothing."""

    def check(given: Any) -> Any:
        if given not in neutral:
            raise ValueError(f"{given!r} is not done here: leave the field out")
        return given

    return AfterValidator(check)


class _Fields(BaseModel):
    """An unknown field is an error; null is a field left out, which OpenAI's clients send."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _left_out(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        known = cls.model_fields
        return {name: v for name, v in given.items() if v is not None or name not in known}


class StreamOptions(_Fields):
    """Whether the last event of a stream tells the tokens used."""

    model_config = ConfigDict(extra="ignore")

    include_usage: bool = False


class CompletionRequest(_Fields):
    """As OpenAI's, with ``top_k`` and ``repetition_penalty``.

    The last fields are OpenAI's that ask for what is not done here: values are taken that ask for
    nothing, since clients send them.
    """

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

    best_of: int = 1
    echo: Annotated[Any, _only(False)] = False
    frequency_penalty: Annotated[Any, _only(0)] = 0
    presence_penalty: Annotated[Any, _only(0)] = 0
    logit_bias: Annotated[Any, _only({})] = None
    logprobs: Annotated[Any, _only()] = None
    suffix: Annotated[Any, _only("")] = None

    @field_validator("best_of")
    @classmethod
    def _all_are_answered(cls, given: int, info: ValidationInfo) -> int:
        n = info.data.get("n", 1)
        if given not in (1, n):
            raise ValueError(f"{given} is not done here: every one of n is answered, which is {n}")
        return given

    def prompts(self) -> list[str | Ids]:
        """Every prompt; ``n`` choices of each are asked for."""
        given = self.prompt
        one = isinstance(given, str) or all(isinstance(item, int) for item in given)
        return [given] if one else list(given)  # type: ignore[list-item, arg-type]

    def stops(self) -> tuple[str, ...]:
        """Stop strings."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


class ForecastRequest(_Fields):
    """Series of numbers, null where a value is missing; quantiles of ``horizon`` steps follow."""

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
