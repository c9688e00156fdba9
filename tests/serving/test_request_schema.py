"""What OpenAI's clients send though nobody asked for it: null, and values that ask for nothing."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from xlstm_export.serving.schema import CompletionRequest, ForecastRequest

OPTIONAL = [name for name in CompletionRequest.model_fields if name != "prompt"]


def test_null_is_a_field_left_out() -> None:
    assert CompletionRequest(prompt="a", **dict.fromkeys(OPTIONAL)) == CompletionRequest(prompt="a")
    asked = CompletionRequest(prompt="a", stream=True, stream_options={"include_usage": None})
    assert asked.stream_options is not None
    assert not asked.stream_options.include_usage
    forecast = ForecastRequest(series=[[1, None]], horizon=1, model=None, together=None)
    assert forecast == ForecastRequest(series=[[1, None]], horizon=1)


@pytest.mark.parametrize(
    "fields",
    [
        # langchain_openai's, as it sends them
        {"temperature": 0.7, "max_tokens": 256, "top_p": 1, "frequency_penalty": 0,
         "presence_penalty": 0, "n": 1, "logit_bias": None, "seed": None, "logprobs": None},
        {"frequency_penalty": 0.0, "presence_penalty": 0.0, "logit_bias": {}, "echo": False},
        {"best_of": 1, "n": 1}, {"best_of": 3, "n": 3}, {"best_of": 1, "n": 3},
        {"suffix": "", "user": "somebody", "stop": []},
    ],
)  # fmt: skip
def test_values_that_ask_for_nothing(fields: dict[str, Any]) -> None:
    assert CompletionRequest(prompt="a", **fields).prompts() == ["a"]


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"frequency_penalty": 0.5}, "frequency_penalty"), ({"presence_penalty": -1}, "presence_"),
        ({"logit_bias": {"5": 1}}, "logit_bias"), ({"logprobs": 0}, "logprobs"),
        ({"suffix": "end"}, "suffix"), ({"echo": True}, "echo"),
        ({"best_of": 2}, "best_of"), ({"best_of": 2, "n": 3}, "best_of"),
        ({"functions": []}, "functions"), ({"functions": None}, "functions"),
        ({"prompt": None}, "prompt"), ({"max_tokens": 0}, "max_tokens"),
    ],
)  # fmt: skip
def test_what_is_not_done_is_refused_by_name(fields: dict[str, Any], name: str) -> None:
    with pytest.raises(ValidationError, match=name) as error:
        CompletionRequest(**{"prompt": "a", **fields})
    assert str(error.value.errors()[0]["loc"][0]).startswith(name)
