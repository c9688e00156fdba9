"""Protobuf's text format, as far as a Triton model configuration needs it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Word:
    """An enumeration's value: written without quotes."""

    text: str


Value = str | int | bool | Word | Mapping[str, "Value"] | list["Value"]
"""A list repeats its field."""


def to_text(message: Mapping[str, Value]) -> str:
    """``message`` in protobuf's text format, fields in their order."""
    return "".join(f"{line}\n" for line in _fields(message, ""))


def _fields(message: Mapping[str, Value], indent: str) -> Iterator[str]:
    for name, value in message.items():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, Mapping):
                yield f"{indent}{name} {{"
                yield from _fields(item, f"{indent}  ")
                yield f"{indent}}}"
            else:
                yield f"{indent}{name}: {_scalar(item)}"


def _scalar(value: Value) -> str:
    if isinstance(value, Word):
        return value.text
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value)  # quotes and escapes are protobuf's too
