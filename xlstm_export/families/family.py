"""What every family offers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from xlstm_export.checkpoint.source import Checkpoint, Source
from xlstm_export.families.oracle import Oracle
from xlstm_export.model.storage import Storage


@dataclass(frozen=True)
class Family:
    """One layout of checkpoints.

    A value that holds the functions, not the package: importing its file ``oracle`` would put that
    module in the place of a function of this name.
    """

    detect: Callable[[Source], bool]
    """True when the source has this family's files."""

    read: Callable[[Source], Checkpoint]
    """Structure and lazy weights. Raises CheckpointError, UnsupportedModelError."""

    oracle: Callable[[Checkpoint, Storage], Oracle]
    """The upstream module on numbers as stored. Raises BackendUnavailableError."""
