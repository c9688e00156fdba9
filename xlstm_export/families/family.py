"""What every family offers."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

from xlstm_export.checkpoint.source import Checkpoint, Source
from xlstm_export.families.oracle import Oracle, unavailable
from xlstm_export.model.spec import ModelSpec
from xlstm_export.model.storage import Storage


@dataclass(frozen=True)
class Family:
    """One layout of checkpoints.

    ``package`` is its folder, whose file ``oracle.py`` has ``build(checkpoint, storage)``; torch
    and upstream's packages are imported there, which happens only where an oracle is asked for.
    """

    package: str

    detect: Callable[[Source], bool]
    """True when the source has this family's files."""

    read: Callable[[Source], Checkpoint]
    """Structure and lazy weights. Raises CheckpointError, UnsupportedModelError."""

    def oracle(
        self, checkpoint: Checkpoint, storage: Storage, part: ModelSpec | None = None
    ) -> Oracle:
        """Upstream's own module in float64, on the checkpoint's numbers as ``storage`` leaves them.

        ``part``: of a model of sequences, the modules of that part alone; nothing else is read.
        Raises BackendUnavailableError where torch or an upstream package is missing,
        CheckpointError where upstream's module does not take the weights.
        """
        try:
            build = importlib.import_module(f"{self.package}.oracle").build
            # upstream imports as it goes
            given = (checkpoint, storage) if part is None else (checkpoint, storage, part)
            oracle: Oracle = build(*given)
        except ImportError as error:
            raise unavailable(error) from error
        return oracle
