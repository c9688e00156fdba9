"""What a validation found: what was compared with what, the numbers, and one verdict."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from xlstm_export.validation.tally import TensorResult, ratio

Verdict = Literal["validated", "self-consistent", "failed"]

_EXPLANATION = {
    "validated": (
        "Every output and every state is within the tolerance rule of the upstream module."
    ),
    "self-consistent": (
        "Every output and every state is within the tolerance rule of this toolkit's own "
        "float64 reference. The upstream package took no part: an error in reading the "
        "checkpoint cannot be seen this way. For a validation install "
        "the packages that doctor names."
    ),
}
RECORDED = "recorded "
"""In front of the names of outputs that are compared with numbers recorded elsewhere."""
_REPRODUCED = " It reproduces the numbers that were recorded elsewhere."


@dataclass(frozen=True)
class Report:
    """Everything ``reports/validation.json`` holds."""

    verdict: Verdict
    bundle: str
    bundle_sha256: str
    """Of the graph and its data, as in the records of engines."""
    manifest_sha256: str
    """Of the manifest's file."""
    source: str
    source_matches_bundle: bool
    subject: str
    subject_ops: dict[str, str]
    reference: str
    baselines: tuple[str, str]
    """The torch references whose errors set the allowance: recurrent, chunkwise."""
    reader_distance: float | None
    """Relative distance of our float64 model from upstream's, None without upstream."""
    batch: int
    fed: str
    """The calls of the rollouts, in words."""
    seed: int
    notes: tuple[str, ...]
    versions: dict[str, str]
    results: tuple[TensorResult, ...]

    @property
    def ok(self) -> bool:
        """False only when the verdict is ``failed``."""
        return self.verdict != "failed"

    @property
    def explanation(self) -> str:
        """What the verdict says; of a failure, how many tensors are outside the rule."""
        if self.ok:
            recorded = any(result.name.startswith(RECORDED) for result in self.results)
            return _EXPLANATION[self.verdict] + (_REPRODUCED if recorded else "")
        count = len(self.results)
        outside = sum(not result.judgement.ok for result in self.results)
        unbounded = sum(not result.finite for result in self.results)
        nan = f"; the bundle computed NaN or infinity in {unbounded}" if unbounded else ""
        return f"{outside} of {count} tensors are outside the tolerance rule{nan}."

    def in_order(self) -> list[TensorResult]:
        """What broke the rule first, then the model's outputs, then the rest; the worst ahead."""
        return sorted(
            self.results, key=lambda r: (r.judgement.ok, r.kind != "output", -ratio(r.judgement))
        )


def decide(results: Iterable[TensorResult], against_upstream: bool) -> Verdict:
    """The verdict of a comparison; ``validated`` needs the upstream module as the reference."""
    if not all(result.judgement.ok for result in results):
        return "failed"
    return "validated" if against_upstream else "self-consistent"
