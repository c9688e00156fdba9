"""What a user points at, and what a family makes of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xlstm_export.bundle.checksum import sha256
from xlstm_export.errors import CheckpointError, OptionError
from xlstm_export.model.spec import ModelSpec
from xlstm_export.model.weights import Weights, count_parameters


@dataclass(frozen=True)
class Source:
    """A checkpoint on disk: a folder, or a weights file with ``config`` beside it or elsewhere."""

    path: Path
    config: Path | None = None
    repository: str | None = None
    """``org/name`` where it was downloaded from the Hugging Face Hub."""

    prefix: str = ""
    """What the names of the model's tensors start with where the model is a part of another; the
    others are left out."""

    resolution: tuple[int, int] | None = None
    """Height and width of the images, for a model of images; None: the checkpoint's own."""

    @property
    def name(self) -> str:
        """What it is called where no path is of use: in a bundle."""
        return self.repository or self.path.resolve().name


@dataclass(frozen=True)
class Checkpoint:
    """A source that was read: structure, lazy tensors, and the files they come from."""

    spec: ModelSpec
    weights: Weights
    files: tuple[Path, ...]
    """Configuration and weight files, in a stable order; their hash identifies the source."""
    tensors: Weights
    """As stored, by key."""
    fields: Any = None
    """The family's configuration, for its oracle."""
    left_out: tuple[str, ...] = ()
    """Names of the tensors that are outside the source's prefix."""
    notes: tuple[str, ...] = ()
    """What a reader of the checkpoint should be told."""
    published: str = ""
    """The published model that has these sizes, where one is known by them."""

    @property
    def parameters(self) -> int:
        """How many numbers the model has."""
        return count_parameters(self.weights.values())


def parse_resolution(given: str | tuple[int, int] | None) -> tuple[int, int] | None:
    """Height and width, from words such as 384x384 too. Raises OptionError."""
    parts = given.lower().split("x") if isinstance(given, str) else [str(n) for n in given or ()]
    if given is None:
        return None
    if len(parts) != 2 or not all(part.isascii() and part.isdecimal() for part in parts):
        raise OptionError("resolution", f"{given} is not HEIGHTxWIDTH, such as 224x224")
    return int(parts[0]), int(parts[1])


def read_text(path: Path, kind: str) -> str:
    """The text of ``path``, a file of ``kind``. Raises CheckpointError with the true reason."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file") from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path}: not a readable {kind} file ({error})") from error


def fingerprint(checkpoint: Checkpoint) -> str:
    """SHA-256 over the source's files in order, each by its own hash.

    Then over the names of the tensors outside the prefix, where there are some: of one file
    several models can be read.
    """
    total = hashlib.sha256()
    for path in checkpoint.files:
        total.update(bytes.fromhex(sha256(path)))
    total.update("\n".join(checkpoint.left_out).encode("utf-8", "surrogatepass"))
    return total.hexdigest()
