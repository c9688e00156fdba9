"""What a torch file holds beside its tensors, as plain data: dicts, lists, texts and numbers.

A configuration may be stored as an object: argparse.Namespace, a dataclass, OmegaConf's containers.
Nothing of them is built; what counts is what they would hold.
"""

from __future__ import annotations

from typing import Any

from xlstm_export.checkpoint.unpickler import Skipped

_MOST_VALUES = 1 << 18
"""A training checkpoint has some 10^4; objects that hold each other stand for any number."""

_DEEPEST = 32

_OMEGACONF = ("_content", "_val")
"""Where OmegaConf's containers and its leaves keep what they stand for."""


class _TooManyError(Exception):
    pass


def plain_entries(root: Any, tensor_types: tuple[type, ...]) -> dict[str, Any]:
    """The entries of the dict ``root`` without tensors; objects are dicts of their attributes.

    What is neither plain nor an object with attributes stays a ``Skipped``, as does what holds
    itself. Empty where there is no dict, or no end of it.
    """
    values = _Values(tensor_types)
    try:
        entries = values.plain(root, ())
    except _TooManyError:
        return {}
    return entries if isinstance(entries, dict) else {}


class _Values:
    """One walk: every value is a step, and a value that is there twice is two."""

    def __init__(self, tensor_types: tuple[type, ...]) -> None:
        self._tensor_types = tensor_types
        self._left = _MOST_VALUES

    def plain(self, value: Any, above: tuple[int, ...]) -> Any:
        self._left -= 1
        if self._left < 0:
            raise _TooManyError
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        if id(value) in above or len(above) == _DEEPEST:
            return Skipped("a value within itself")
        above = (*above, id(value))
        if isinstance(value, dict):
            return {
                str(name): self.plain(entry, above)
                for name, entry in value.items()
                if not isinstance(entry, self._tensor_types)
            }
        if isinstance(value, (list, tuple)):
            return [self.plain(entry, above) for entry in value]
        if isinstance(value, Skipped):
            return value if value.fields is None else self.plain(_held(value), above)
        return Skipped(type(value).__name__)


def _held(placeholder: Skipped) -> Any:
    fields = placeholder.fields
    if placeholder.name.startswith("omegaconf.") and isinstance(fields, dict):
        return next((fields[name] for name in _OMEGACONF if name in fields), fields)
    return fields
