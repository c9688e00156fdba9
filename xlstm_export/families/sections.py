"""Where the fields of a model stand in a configuration that holds other things too."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from xlstm_export.errors import CheckpointError

BLOCKS = ("mlstm_block", "slstm_block")
"""A block stack has one of these fields; no other model has."""

_USUAL = ("model",)
"""The section of upstream's training configurations: it is taken where there are several."""


def block_sections(document: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Paths of the sections of ``document`` that hold a block stack's fields; () is the top."""
    return sections(document, lambda fields: any(name in fields for name in BLOCKS), BLOCKS)


def sections(
    document: Mapping[str, Any],
    is_one: Callable[[Mapping[str, Any]], bool],
    closed: Collection[str] = (),
) -> list[tuple[str, ...]]:
    """Paths of the sections of ``document`` that ``is_one`` says; ``closed`` are not entered."""
    return list(_sections(document, is_one, closed, (), ()))


def block_section(document: Mapping[str, Any]) -> tuple[str, ...]:
    """The path of the only such section, or of ``model``.

    Raises CheckpointError where there is none, or no telling which.
    """
    found = block_sections(document)
    if _USUAL in found:
        return _USUAL
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(".".join(path) or "the top level" for path in found)
        raise CheckpointError(
            f"{' or '.join(BLOCKS)} stand in several places ({names}); write the fields of the "
            "one to be exported into a file of their own, and name it with --config"
        )
    inner = document.get(_USUAL[0], document)
    if not isinstance(inner, Mapping):
        raise CheckpointError(f"{_USUAL[0]} holds no fields")
    raise CheckpointError(f"{missing_blocks(document)}; add them, with the sizes of the model")


def missing_blocks(document: Mapping[str, Any]) -> str:
    """That ``document`` is no block stack's, and what it holds instead."""
    names = ", ".join(list(map(str, document))[:6]) + (", ..." if len(document) > 6 else "")
    return f"has neither {' nor '.join(BLOCKS)}, at the top or in a section; it holds {names}"


def _sections(
    fields: Mapping[str, Any],
    is_one: Callable[[Mapping[str, Any]], bool],
    closed: Collection[str],
    path: tuple[str, ...],
    above: tuple[int, ...],
) -> Iterator[tuple[str, ...]]:
    if id(fields) in above:  # a YAML file can contain itself
        return
    if is_one(fields):
        yield path
    for name, value in fields.items():
        if isinstance(value, Mapping) and name not in closed:
            yield from _sections(value, is_one, closed, (*path, str(name)), (*above, id(fields)))
