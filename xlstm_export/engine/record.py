"""What lies beside an engine: its JSON, which says what it was built for and by what."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dacite

from xlstm_export.engine.profiles import Profile, ShapeRange
from xlstm_export.errors import EngineError

FORMAT_VERSION = 1
ENGINE_SUFFIX, RECORD_SUFFIX = ".engine", ".json"


@dataclass(frozen=True)
class PluginInfo:
    """One recurrence of the engine and what computes it."""

    node: str
    op_type: str
    implementation: str


@dataclass(frozen=True)
class PluginLibrary:
    """The library the plugins came from; ``embedded``: the engine carries it."""

    name: str
    version: str
    sha256: str
    embedded: bool


@dataclass(frozen=True)
class EngineRecord:
    """Contents of ``engines/<target>.json``."""

    format_version: int
    backend: str
    builder_version: str
    compute_capability: list[str]
    """Such as 8.9; empty: those the builder takes by default."""
    profiles: list[dict[str, ShapeRange]]
    plugins: list[PluginInfo]
    plugin_library: PluginLibrary
    bundle_sha256: str
    engine_sha256: str


def record_path(engine: Path) -> Path:
    """Where the record of ``engine`` lies."""
    return engine.with_name(engine.name.removesuffix(ENGINE_SUFFIX) + RECORD_SUFFIX)


def to_json(record: EngineRecord) -> str:
    """The record as text."""
    return json.dumps(dataclasses.asdict(record), indent=2) + "\n"


def read_record(path: Path) -> EngineRecord:
    """Read the record at ``path``, or beside the engine at ``path``; unknown keys are ignored.

    Raises EngineError when it is missing, damaged, or of a newer format.
    """
    path = record_path(path) if path.suffix == ENGINE_SUFFIX else path
    if not path.is_file():
        raise EngineError(f"{path}: no such file; make it with: xlstm-export build")
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = content["format_version"]
        if version > FORMAT_VERSION:
            raise EngineError(
                f"{path}: format_version {version} is newer than {FORMAT_VERSION}, the newest this "
                "version reads; upgrade xlstm-export"
            )
        return dacite.from_dict(EngineRecord, content, dacite.Config(cast=[tuple]))
    except (
        ValueError, KeyError, TypeError, AttributeError, RecursionError, dacite.DaciteError
    ) as error:  # fmt: skip
        raise EngineError(f"{path}: damaged engine record ({error}); build again") from error


def describe_engine(record: EngineRecord) -> dict[str, str | list[str]]:
    """Facts about an engine, for people."""
    library = record.plugin_library
    kept = "embedded in the engine" if library.embedded else "must be loaded beside the engine"
    return {
        "backend": f"{record.backend} {record.builder_version}",
        "GPUs": ", ".join(record.compute_capability) or "the builder's default set",
        "plugin library": f"{library.name} {library.version}, {kept}",
        "bundle": f"sha256 {record.bundle_sha256[:16]}…",
        "profiles": [_profile_line(i, p) for i, p in enumerate(record.profiles)],
        "plugins": [f"{p.node}  {p.op_type}  {p.implementation}" for p in record.plugins],
    }


def _profile_line(index: int, profile: Profile) -> str:
    """The first input stands for all: states follow its batch."""
    name, shapes = next(iter(profile.items()))
    ends = " to ".join("x".join(map(str, shape)) for shape in (shapes.min, shapes.max))
    return f"{index}: {name} {ends}, tuned for {'x'.join(map(str, shapes.opt))}"
