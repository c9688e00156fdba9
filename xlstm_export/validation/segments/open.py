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
from xlstm_export.reference.model import Form, ReferenceModel
from xlstm_export.validation.participants import (
    Both,
    Participants,
    find_oracle,
    open_subject,
)
from xlstm_export.validation.segments.plan import Part


@dataclass(frozen=True)
class Opener:
    """Loads parts of ``both``, upstream's modules by ``module`` (None: without), in ``folder``.

    ``exact`` is the form of our float64 model.
    """

    both: Both
    module: Family | None
    cutter: Cutter
    folder: Path
    exact: Form

    @contextmanager
    def open(self, part: Part) -> Iterator[Participants]:
        """Everyone who computes ``part``; afterwards its files are gone.

        Notes are those of the whole comparison, each once.
        """
        both, spec = self.both, part.spec
        folder = Path(mkdtemp(dir=self.folder))
        try:
            manifest = self.cutter.cut(part.before, spec, folder)
            weights = own_weights(spec, both.checkpoint.weights)
            checkpoint = replace(both.checkpoint, spec=spec, weights=weights)
            recurrent = ReferenceModel(spec, weights, both.storage, both.storage.dtype)
            float64 = ReferenceModel(spec, weights, both.storage, "float64", self.exact)
            notes: list[str] = []
            oracle = None
            if self.module is not None:
                oracle = find_oracle(self.module, both.checkpoint, both.storage, notes, spec)
            subject = open_subject(folder, manifest, both.execution, notes)
            both.notes.extend(note for note in notes if note not in both.notes)
            everyone = Participants(
                folder, manifest, both.execution, both.storage, checkpoint, checkpoint, subject,
                oracle, float64, recurrent, recurrent.in_form("chunkwise"), {}, both.notes,
            )  # fmt: skip
            yield everyone
            subject.close()
        finally:
            shutil.rmtree(folder)
