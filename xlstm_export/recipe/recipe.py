"""What is known of a published model, and what to do with it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xlstm_export.errors import CheckpointError

Sizes = dict[str, int]


@dataclass(frozen=True)
class Recipe:
    """How to export one published model."""

    name: str
    title: str
    source: str
    """``org/name`` on the Hugging Face Hub, or the URL of a weights file, which is downloaded
    first."""
    family: str
    licence: str
    """Of the weights, by their publisher's word; read it there."""
    sizes: Sizes
    """Structure by name, such as model_size and blocks, as far as it is published."""
    export: dict[str, Any] = field(default_factory=dict)
    """Options of ``export`` by name, where the defaults are not what one wants."""
    notes: tuple[str, ...] = ()
    """What a user should know."""
    measured: tuple[str, ...] = ()
    """What we have measured, and on what: never on weights that we do not have."""

    @property
    def file(self) -> str | None:
        """The name of the weights file to be downloaded; None where the source is a repository."""
        return self.source.rpartition("/")[2] if self.source.startswith("https://") else None

    @property
    def commands(self) -> tuple[str, ...]:
        """From nothing to a validated bundle, in a shell."""
        out = f"out/{self.name}"
        download = [f"curl -fLO {shlex.quote(self.source)}"] if self.file else []
        return (
            *download,
            f"xlstm-export export --recipe {self.name} -o {out}",
            f"xlstm-export validate {out} --reference {self.file or self.source}",
        )

    def locate(self) -> str:
        """The source as ``export`` takes it: the repository, or the file in the current folder.

        Raises CheckpointError with the command that downloads a file which is not there.
        """
        if self.file and not Path(self.file).is_file():
            raise CheckpointError(
                f"{self.file}: not in this folder; download it first: {self.commands[0]}\n"
                "or give the file that you have as SOURCE"
            )
        return self.file or self.source
