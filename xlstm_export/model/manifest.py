"""The manifest of a bundle, ``xlstm_export.json``: what every runtime reads before the graph."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dacite

from xlstm_export.errors import BundleError

MANIFEST_FILE = "xlstm_export.json"
MODEL_FILE = "model.onnx"
DATA_FILE = "model.onnx.data"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class TensorInfo:
    """A graph input or output: element type by numpy name, dimensions as sizes or names."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class StateInfo:
    """One carried tensor: the graph input it enters by and the output it leaves by.

    ``key`` is its name whatever ``--state-names`` chose: ``{layer}.{kind}.{letter}``.
    """

    key: str
    input: str
    output: str
    shape: tuple[int | str, ...]
    dtype: str
    init: str


@dataclass(frozen=True)
class OpsInfo:
    """The operator set the graph is written in."""

    domain: str
    version: int


@dataclass(frozen=True)
class SourceInfo:
    """Where the weights came from; ``sha256`` covers configuration and weight files."""

    name: str
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Contents of ``xlstm_export.json``."""

    format_version: int
    family: str
    dtype: str
    opset: int
    ops: OpsInfo
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    states: tuple[StateInfo, ...]
    source: SourceInfo
    versions: dict[str, str]
    runs_on: tuple[str, ...]
    logits: str = "all"
    ragged: bool = False

    @property
    def is_language_model(self) -> bool:
        """True when the graph maps token ids to logits."""
        return self.inputs[0].name == "input_ids"


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Write ``manifest`` into ``folder``."""
    text = json.dumps(dataclasses.asdict(manifest), indent=2)
    (folder / MANIFEST_FILE).write_text(text + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of the bundle ``folder``; unknown keys are ignored.

    Raises BundleError when it is missing, damaged, or of a newer format.
    """
    path = folder / MANIFEST_FILE
    if not folder.is_dir():
        raise BundleError(f"{folder}: no such folder; make a bundle with: xlstm-export export")
    if not path.is_file():
        raise BundleError(f"{folder}: no {MANIFEST_FILE}, so it is not an xlstm-export bundle")
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = content["format_version"]
        if version > FORMAT_VERSION:
            raise BundleError(
                f"{path}: format_version {version} is newer than {FORMAT_VERSION}, the newest this "
                "version reads; upgrade xlstm-export"
            )
        manifest = dacite.from_dict(Manifest, content, dacite.Config(cast=[tuple]))
        if not manifest.inputs or not manifest.outputs:
            raise ValueError("no inputs or no outputs")
        return manifest
    except (
        ValueError, KeyError, TypeError, AttributeError, RecursionError, dacite.DaciteError
    ) as error:  # fmt: skip
        raise BundleError(f"{path}: damaged manifest ({error}); export again") from error
