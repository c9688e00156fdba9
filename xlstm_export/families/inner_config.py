"""A configuration that a training checkpoint holds beside its tensors."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from xlstm_export.checkpoint.locate import find_weight_files
from xlstm_export.checkpoint.source import Source
from xlstm_export.checkpoint.weight_files import StoredTensors, read_weight_files
from xlstm_export.errors import BackendUnavailableError, CheckpointError, UnsupportedModelError

Sections = Callable[[Mapping[str, Any]], list[tuple[str, ...]]]
"""Finds the paths of a family's sections in a document."""

Parse = Callable[[Mapping[str, Any], str], tuple[Any, Collection[str]]]
"""A document and its origin -> a dataclass, and the dotted names of the fields that it states."""

_SHOWN = 5


@dataclass(frozen=True)
class Document:
    """Fields as they were found, sections and all; ``origin`` is where, for messages."""

    fields: Mapping[str, Any]
    origin: str


def inner_documents(stored: StoredTensors, sections: Sections) -> list[Document]:
    """What stands beside the tensors and has a section of the family's."""
    return [Document(f, origin) for origin, f in stored.beside.items() if sections(f)]


def has_inner_config(source: Source, sections: Sections) -> bool:
    """Whether the weights of ``source`` can be read and hold a configuration of the family's."""
    try:
        stored = read_weight_files(find_weight_files(source.path), source.prefix)
    except (CheckpointError, BackendUnavailableError):
        return False
    return bool(inner_documents(stored, sections))


def only_document(documents: Iterable[Document], sections: Sections) -> Document | None:
    """The one of ``documents`` to be read; None without any.

    Raises CheckpointError where several differ.
    """
    found = list(documents)
    if any(_sections_of(d, sections) != _sections_of(found[0], sections) for d in found):
        raise CheckpointError(
            f"{' and '.join(d.origin for d in found)}: configurations that differ; write the one "
            "that is meant into a YAML file, and name it with --config"
        )
    return found[0] if found else None


def note_on_origin(document: Document) -> str:
    """That the configuration was not in a file of its own."""
    return f"the configuration was found in {document.origin}"


def notes_on_others(
    config: Path, used: Any, stated: Collection[str], others: Iterable[Document], parse: Parse
) -> tuple[str, ...]:
    """What ``others``, beside the weights, say otherwise than ``config``, which is ``used``.

    Fields that only one of them states are no contradiction.
    """
    notes = []
    for document in others:
        try:
            other, names = parse(document.fields, document.origin)
        except (CheckpointError, UnsupportedModelError) as error:
            notes.append(f"{error} (not used: {config} is)")
            continue
        ours = dict(_leaves(asdict(used)))
        differing = [
            f"{name} is {value}, not {ours.get(name)}"
            for name, value in _leaves(asdict(other))
            if name in names and name in stated and ours.get(name) != value
        ]
        if differing:
            shown, more = differing[:_SHOWN], len(differing) - _SHOWN
            words = ", ".join(shown) + (f", and {more} more" if more > 0 else "")
            notes.append(f"{document.origin}: contradicts {config}, which is used: {words}")
    return tuple(notes)


def section_at(document: Mapping[str, Any], path: tuple[str, ...]) -> Mapping[str, Any]:
    """The section of ``document`` at ``path``."""
    fields: Any = document
    for name in path:
        fields = fields[name]
    section: Mapping[str, Any] = fields
    return section


def _sections_of(document: Document, sections: Sections) -> list[Mapping[str, Any]]:
    return [section_at(document.fields, path) for path in sections(document.fields)]


def _leaves(fields: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in fields.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{at}{name}.")
        else:
            yield f"{at}{name}", value
