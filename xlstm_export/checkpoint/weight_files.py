"""Weight files as lazy tensors, under the names of the bare model."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from xlstm_export.checkpoint.foreign import (
    ForeignError,
    foreign_content,
    foreign_model,
    foreign_name,
)
from xlstm_export.checkpoint.safetensors_file import read_safetensors
from xlstm_export.checkpoint.torch_file import FileContent, read_torch
from xlstm_export.errors import CheckpointError
from xlstm_export.model.weights import Weight

_TORCH_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".th")
WEIGHT_SUFFIXES = (".safetensors", *_TORCH_SUFFIXES)

_WRAPPERS = ("module.", "model.", "net.")
"""Before every name in what data parallelism and Lightning modules save; no model has them."""
_COMPILED = "_orig_mod."
"""Where a module went through torch.compile: the whole model, or a part of it."""

_START_BYTES = 64


@dataclass(frozen=True)
class StoredTensors:
    """What weight files hold: ``tensors`` by name, and what a reader should be told of the rest."""

    tensors: dict[str, Weight]
    left_out: tuple[str, ...] = ()
    """Names of the tensors that are outside the prefix."""
    notes: tuple[str, ...] = ()
    beside: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What else stands there, by "file: entry": configurations, for instance, as plain data."""


def read_weight_files(paths: Iterable[Path], prefix: str = "") -> StoredTensors:
    """The tensors of ``paths`` (.safetensors, .pt, .pth, .ckpt, .bin, .th) by name.

    Names are those of the bare model: what torch.compile, data parallelism and Lightning add is
    taken off, then ``prefix``, and what does not start with that is left out. Raises
    CheckpointError for a missing or damaged file, for a name found twice, and where nothing starts
    with ``prefix``; ForeignError for files and tensors of another kind. Whether numbers are finite
    is seen when they are stored (``Storage.encode``).
    """
    files = list(paths)
    found = read_tensors(files)
    if prefix:
        found = _below(found, prefix, files[0])
    if what := foreign_model(found.tensors):
        raise ForeignError(f"{files[0]}: holds {what}")
    return found


def _below(found: StoredTensors, prefix: str, path: Path) -> StoredTensors:
    tensors, start = found.tensors, _start(prefix)
    inner = {name.removeprefix(start): w for name, w in tensors.items() if name.startswith(start)}
    if not inner:
        there = ", ".join(sorted({name.partition(".")[0] for name in tensors})[:5])
        raise CheckpointError(
            f"{path}: no tensor's name starts with {start!r}; they start with {there}"
        )
    return StoredTensors(
        {name: replace(weight, sources=(name,)) for name, weight in _unwrapped(inner).items()},
        tuple(sorted(name for name in tensors if not name.startswith(start))),
        found.notes,
        found.beside,
    )


def _start(prefix: str) -> str:
    """``prefix`` up to the dot, which may be given or not."""
    return prefix.rstrip(".") + "."


def read_tensors(paths: Iterable[Path]) -> StoredTensors:
    """``read_weight_files`` of any model, whole: what its tensors are called is not judged."""
    tensors: dict[str, Weight] = {}
    notes: list[str] = []
    beside: dict[str, Mapping[str, Any]] = {}
    for path in paths:
        if not path.is_file():
            raise CheckpointError(f"{path}: no such file")
        _require_weights(path)
        found = _read(path)
        notes += found.notes
        entries = found.beside.items()
        beside |= {f"{path}: {name}": e for name, e in entries if isinstance(e, Mapping) and e}
        for name, weight in found.tensors.items():
            if name in tensors:
                raise CheckpointError(f"{path}: tensor {name} is in another file as well")
            tensors[name] = weight
    return StoredTensors(_unwrapped(tensors), notes=tuple(notes), beside=beside)


def _unwrapped(tensors: dict[str, Weight]) -> dict[str, Weight]:
    bare = {name.replace(_COMPILED, ""): weight for name, weight in tensors.items()}
    while wrapper := _shared_wrapper(bare):
        bare = {name.removeprefix(wrapper): weight for name, weight in bare.items()}
    if len(bare) < len(tensors):
        return tensors
    return {name: replace(weight, sources=(name,)) for name, weight in bare.items()}


def _shared_wrapper(names: Collection[str]) -> str | None:
    """The wrapper that every one of ``names`` starts with."""
    shared = (w for w in _WRAPPERS if names and all(name.startswith(w) for name in names))
    return next(shared, None)


def _require_weights(path: Path) -> None:
    """Raise CheckpointError with the true reason: the libraries call any failure damage."""
    try:
        with path.open("rb") as file:
            start = file.read(_START_BYTES)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    if what := foreign_content(start):
        raise ForeignError(f"{path}: is {what}")


def _read(path: Path) -> FileContent:
    if path.suffix == ".safetensors":
        return FileContent(read_safetensors(path), {}, ())
    if path.suffix in _TORCH_SUFFIXES:
        return read_torch(path)
    known = ", ".join(WEIGHT_SUFFIXES)
    if what := foreign_name(path):
        raise ForeignError(f"{path}: not a weights file by its name, but {what} (in {known})")
    raise CheckpointError(f"{path}: not a weights file by its name; known endings: {known}")
