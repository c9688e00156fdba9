"""The way through a model that does not fit: one part after the other, everyone over each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from xlstm_export.families.family import Family
from xlstm_export.lowering.cut import Cutter
from xlstm_export.progress import Progress
from xlstm_export.reference.threads import SINGLE, Sharing
from xlstm_export.validation.inputs import Rollout
from xlstm_export.validation.participants import Both, Participants
from xlstm_export.validation.segments.chain import Chain, Keep
from xlstm_export.validation.segments.open import Opener
from xlstm_export.validation.segments.plan import Division, Part
from xlstm_export.validation.tally import Interrupted

Look = Callable[[Part, Participants], None]
After = Callable[[Participants, Chain], None]


@dataclass(frozen=True)
class Walk:
    """How the parts of ``both`` are gone through, with upstream's ``module`` or without.

    Subject and reference see the first ``batch`` rows; ``sharing`` says how many compute at once.
    """

    both: Both
    module: Family | None
    division: Division
    progress: Progress | None
    batch: int = 2
    sharing: Sharing = SINGLE

    @contextmanager
    def through(
        self, rollouts: Sequence[Rollout], what: str = "layer by layer", *,
        before: Look | None = None, after: After | None = None, keep: Keep | None = None,
    ) -> Iterator[Chain]:  # fmt: skip
        """Everyone over ``rollouts``, part by part; what ``keep`` leaves can be had within.

        ``before`` looks at each part while upstream's module takes no memory, ``after`` when
        everyone is through. Raises Interrupted, with the results so far, where a keyboard interrupt
        comes.
        """
        both, parts = self.both, self.division.parts
        with TemporaryDirectory(prefix="xlstm-validate-") as name:
            folder = Path(name)
            cutter = Cutter(both.bundle, both.manifest)
            opener = Opener(both, self.module, cutter, folder)
            chain = Chain(both.manifest, rollouts, self.batch, self.sharing, folder, keep)
            try:
                for number, part in enumerate(parts):
                    if self.progress is not None:
                        self.progress(what, number, len(parts), "parts")
                    _take_through(opener, part, chain, before, after)
            except KeyboardInterrupt:
                raise Interrupted(chain.results()) from None
            yield chain


def _take_through(
    opener: Opener, part: Part, chain: Chain, before: Look | None, after: After | None
) -> None:
    """One part, of which nothing stays in memory."""
    with opener.open(part) as everyone:
        everyone = replace(everyone, stream=chain.stream(everyone))
        if before is not None:
            before(part, everyone)
        everyone = opener.with_upstream(everyone)
        chain.run(everyone)
        if after is not None:
            after(everyone, chain)
