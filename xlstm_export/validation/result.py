"""What a validation found: what was compared with what, the numbers, and one verdict."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from xlstm_export.validation.against import Against
from xlstm_export.validation.price import Price
from xlstm_export.validation.speed import Speeds
from xlstm_export.validation.tally import TensorResult, ratio

Verdict = Literal["validated", "self-consistent", "failed", "unfinished"]
Outcome = Literal["passed", "failed", "skipped"]
Mode = Literal["whole", "layer by layer"]
WHOLE: Mode = "whole"
IN_PARTS: Mode = "layer by layer"

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
    "unfinished": "The comparison was interrupted before its first rollout was done.",
}
RECORDED = "recorded "
"""In front of the names of outputs that are compared with numbers recorded elsewhere."""
_LAYERS = " It was compared layer by layer: each layer by itself on exact inputs, and all in a row."
_REPRODUCED = " It reproduces the numbers that were recorded elsewhere."


@dataclass(frozen=True)
class Check:
    """What one check found: its outcome, and in words what was done and seen.

    ``series`` are numbers over steps, for a plot: by name, pairs of a step and a value. ``axis``
    says what the values are.
    """

    name: str
    outcome: Outcome
    reason: str
    series: dict[str, tuple[tuple[int, float], ...]] = field(default_factory=dict)
    axis: str = ""

    @property
    def ok(self) -> bool:
        """False only where it failed; what was skipped proves nothing and breaks nothing."""
        return self.outcome != "failed"


@dataclass(frozen=True)
class Location:
    """Where a bundle first goes wrong, and what would explain it.

    ``layer`` is the path of the layer, ``operator`` what computes the wrong tensor, ``tensor`` its
    name; ``error`` and ``allowed`` are of it alone, on exact inputs. ``others`` are further places
    that are wrong by themselves.
    """

    layer: str
    operator: str
    tensor: str
    error: float
    allowed: float
    cause: str
    others: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """One sentence."""
        off = f"off by {self.error:.1e}" if math.isfinite(self.error) else "no number"
        return (
            f"first wrong in {self.layer}, {self.operator}: {self.tensor} is {off} where the rule "
            f"allows {self.allowed:.1e}"
        )


@dataclass(frozen=True)
class Continuation:
    """One prompt, and how subject and reference go on from it by their likeliest tokens.

    ``same`` counts the tokens before the first that differs. ``beside`` is who stands in the place
    of the reference.
    """

    prompt: str
    subject: str
    reference: str
    tokens: int
    same: int
    beside: str = "reference"


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
    checks: tuple[Check, ...] = ()
    location: Location | None = None
    continuations: tuple[Continuation, ...] = ()
    machine: dict[str, str] = field(default_factory=dict)
    command: str = ""
    """What makes this report again."""
    budget: str = "fast"
    price: Price | None = None
    """Of weights in 8 or 4 bits: how far the bundle as it runs is from the checkpoint's own."""
    speeds: Speeds | None = None
    against: Against | None = None
    """The bundle beside another one, where one was given."""
    mode: Mode = WHOLE
    """Whether the model was in memory as a whole, or in parts that follow each other."""
    complete: bool = True
    """False where it was interrupted: what is there is true, and not all."""
    engine: str = ""
    """The engine that ran, by name or file; empty where the bundle ran in ONNX Runtime."""

    @property
    def ok(self) -> bool:
        """False when the verdict is ``failed``, or there is none yet."""
        return self.verdict in ("validated", "self-consistent")

    @property
    def explanation(self) -> str:
        """What the verdict says; of a failure, how many tensors are outside the rule."""
        if self.verdict != "failed":
            recorded = any(result.name.startswith(RECORDED) for result in self.results)
            layers = _LAYERS if self.mode == IN_PARTS else ""
            return _EXPLANATION[self.verdict] + layers + (_REPRODUCED if recorded else "")
        count = len(self.results)
        outside = sum(not result.judgement.ok for result in self.results)
        unbounded = sum(not result.finite for result in self.results)
        nan = f"; the bundle computed NaN or infinity in {unbounded}" if unbounded else ""
        failed = [check.name for check in self.checks if not check.ok]
        layers = " Compared layer by layer." if self.mode == IN_PARTS else ""
        checks = f"; failed checks: {', '.join(failed)}" if failed else ""
        return f"{outside} of {count} tensors are outside the tolerance rule{nan}{checks}.{layers}"

    def to_html(self) -> str:
        """The report as one page that needs nothing else. Raises BackendUnavailableError where
        jinja2 is missing.
        """
        from xlstm_export.report.html import to_html

        return to_html(self)

    def to_markdown(self) -> str:
        """The report as Markdown."""
        from xlstm_export.report.markdown import to_markdown

        return to_markdown(self)

    def to_json(self) -> str:
        """The report as JSON: every number of it."""
        from xlstm_export.report.json import to_json

        return to_json(self)

    def in_order(self) -> list[TensorResult]:
        """What broke the rule first, then the model's outputs, then the rest; the worst ahead."""
        return sorted(
            self.results, key=lambda r: (r.judgement.ok, r.kind != "output", -ratio(r.judgement))
        )


def decide(
    results: Iterable[TensorResult], against_upstream: bool, checks: Iterable[Check] = ()
) -> Verdict:
    """The verdict of a comparison; ``validated`` needs the upstream module as the reference."""
    if not (all(r.judgement.ok for r in results) and all(check.ok for check in checks)):
        return "failed"
    return "validated" if against_upstream else "self-consistent"
