"""Everyone who takes part in the comparison of one part of a model, loaded for it alone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import mkdtemp

from xlstm_export.families.family import Family
from xlstm_export.lowering.cut import Cutter
from xlstm_export.model.spec import own_weights
from xlstm_export.reference.model import ReferenceModel
from xlstm_export.validation.participants import (
    Both,
    Participants,
    find_oracle,
    open_subject,
)
from xlstm_export.validation.segments.plan import Part


@dataclass(frozen=True)
class Opener:
    """Loads parts of ``both``, upstream's modules by ``module`` (None: without), in ``folder``."""

    both: Both
    module: Family | None
    cutter: Cutter
    folder: Path

    @contextmanager
    def open(self, part: Part) -> Iterator[Participants]:
        """Everyone who computes ``part`` but for upstream; afterwards its files are gone."""
        both, spec = self.both, part.spec
        folder = Path(mkdtemp(dir=self.folder))
        try:
            manifest = self.cutter.cut(part.before, spec, folder)
            weights = own_weights(spec, both.checkpoint.weights)
            checkpoint = replace(both.checkpoint, spec=spec, weights=weights)
            recurrent = ReferenceModel(spec, weights, both.storage, both.storage.dtype)
            float64 = ReferenceModel(spec, weights, both.storage, "float64", "chunkwise")
            notes: list[str] = []
            subject = open_subject(folder, manifest, both.execution, notes)
            self._note(notes)
            everyone = Participants(
                folder, manifest, both.execution, both.storage, checkpoint, checkpoint, subject,
                None, float64, recurrent, recurrent.in_form("chunkwise"), {}, both.notes,
            )  # fmt: skip
            yield everyone
            subject.close()
        finally:
            shutil.rmtree(folder)

    def with_upstream(self, everyone: Participants) -> Participants:
        """The same with upstream's module of their part, where it is to take part and is there."""
        if self.module is None:
            return everyone
        notes: list[str] = []
        checkpoint, storage = self.both.checkpoint, self.both.storage
        oracle = find_oracle(self.module, checkpoint, storage, notes, everyone.spec)
        self._note(notes)
        return replace(everyone, oracle=oracle)

    def _note(self, notes: list[str]) -> None:
        """Notes of the whole comparison, each once."""
        self.both.notes.extend(note for note in notes if note not in self.both.notes)
