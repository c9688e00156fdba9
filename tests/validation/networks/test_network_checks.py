"""The checks of a bundle of a network: what is run, what is left out and why, what is seen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import xlstm_export as xe
from tests.modules.networks import Classifier, Detector, made, series
from xlstm_export.bundle.manifest import read_manifest
from xlstm_export.reference.network import Network
from xlstm_export.runtime.open import Execution
from xlstm_export.validation.checks.plan import Plan
from xlstm_export.validation.networks import checks, compare
from xlstm_export.validation.networks.participants import NetworkParticipants, gather_network

NAMES = (
    "one call or many", "alone or in a batch", "what stands behind the end of a row",
    "one thread or several", "fork and restore", "extreme gates", "drift over carried steps",
)  # fmt: skip


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    network = made(Detector)
    out = tmp_path_factory.mktemp("detector") / "out"
    return network, xe.export_module(network, series(), out, states=True).path


def test_a_streaming_network_passes_them(detector: tuple[Any, Path]) -> None:
    report = xe.validate_module(detector[1], detector[0], series(), threads=1)
    assert report.verdict == "validated", report.in_order()[0]
    found = {check.name: (check.outcome, check.reason) for check in report.checks}
    assert tuple(found) == NAMES
    skipped = {name: reason for name, (outcome, reason) in found.items() if outcome == "skipped"}
    assert list(skipped) == [NAMES[2], NAMES[6]]
    assert "62 steps in one call and in 5 other ways" in found[NAMES[0]][1]
    assert "--budget full" in skipped[NAMES[6]]


def test_without_states_the_rest_is_run(tmp_path: Path) -> None:
    network = made(Classifier)
    bundle = xe.export_module(network, series(), tmp_path / "out")
    report = xe.validate_module(bundle, network, series(), threads=1, budget="full")
    assert report.verdict == "validated", report.in_order()[0]
    assert report.budget == "full"
    passed = [check.name for check in report.checks if check.outcome == "passed"]
    assert passed == [NAMES[1], NAMES[3], NAMES[5]]
    skipped = [check.reason for check in report.checks if check.outcome == "skipped"]
    assert sum("begins anew" in reason for reason in skipped) == 3


@pytest.mark.parametrize(
    ("place", "verdict"),
    [("draw_all", None), ("repeated_operators", "unfinished"), ("_locate", "failed")],
)
def test_an_interrupt_leaves_what_was_compared(
    detector: tuple[Any, Path], monkeypatch: pytest.MonkeyPatch, place: str, verdict: str | None
) -> None:
    def interrupted(*given: object) -> None:
        raise KeyboardInterrupt

    network = made(Detector, seed=1 if verdict == "failed" else 0)
    monkeypatch.setattr(compare, place, interrupted)
    if verdict is None:
        with pytest.raises(KeyboardInterrupt):
            xe.validate_module(detector[1], network, series(), threads=1)
        return
    report = xe.validate_module(detector[1], network, series(), threads=1)
    assert (report.verdict, report.complete) == (verdict, False)
    assert {"score", "last"} <= {result.name for result in report.results}


def test_an_interrupted_rollout_counts_its_calls(detector: tuple[Any, Path]) -> None:
    def bar(title: str, done: int, *rest: object) -> None:
        if title == "comparing" and done == 2:
            raise KeyboardInterrupt

    report = xe.validate_module(detector[1], detector[0], series(), threads=1, progress=bar)
    assert (report.verdict, report.complete) == ("unfinished", False)
    assert {len(result.errors_by_call) for result in report.results} == {2}


def test_drift_is_judged_over_all_steps(
    detector: tuple[Any, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "STEPS", 100)
    report = xe.validate_module(detector[1], detector[0], series(), threads=1, budget="full")
    (drift,) = [check for check in report.checks if check.name == NAMES[6]]
    assert drift.outcome == "passed"
    assert drift.reason.startswith("120 steps with carried states")  # five calls of 24
    assert [step for step, _ in drift.series["output"]] == [24, 48, 72, 96, 120]


class Mixing(Detector):
    """A network in which rows reach each other, which is no fault of its bundle."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return super().forward(x - x.mean(0, keepdim=True))


def test_rows_that_reach_each_other_are_no_fault(tmp_path: Path) -> None:
    network = made(Mixing)
    bundle = xe.export_module(network, series(), tmp_path / "out")
    report = xe.validate_module(bundle, network, series(), threads=1)
    assert report.verdict == "validated", report.in_order()[0]
    (rows,) = [check for check in report.checks if check.name == NAMES[1]]
    assert (rows.outcome, rows.reason) == (
        "skipped", "in this network the rows of a batch reach each other",
    )  # fmt: skip


class Forgetful:
    """A session that makes one of the mistakes which a check is there for."""

    def __init__(self, session: Any, fault: str) -> None:
        self._session, self.name, self._fault = session, session.name, fault
        self._calls = 0

    def run(self, feeds: Any, states: Any = None) -> Any:
        rows = len(next(iter(feeds.values())))
        outputs, after = self._session.run(feeds, states)
        self._calls += 1
        if self._fault == "states" and states is not None:
            after = {key: np.zeros_like(x) for key, x in after.items()}
        if self._fault == "rows" and rows > 1:
            outputs = {n: np.concatenate([x[:-1], x[:1]]) for n, x in outputs.items()}
        if self._fault == "bits":
            outputs = {n: x * (1 + 1e-6 * self._calls) for n, x in outputs.items()}
        return outputs, after


@pytest.mark.parametrize(
    ("fault", "check"),
    [("states", checks.check_splits), ("rows", checks.check_rows), ("bits", checks.check_fork)],
)
def test_each_check_can_fail(detector: tuple[Any, Path], fault: str, check: Any) -> None:
    everyone = _everyone(*detector)
    allowed = dict.fromkeys(("score", "last", *(s.key for s in everyone.manifest.states)), 0.0001)
    plan = Plan("fast", 0, allowed)
    assert check(everyone, plan).outcome == "passed"
    wrong = replace(everyone, subject=Forgetful(everyone.subject, fault))  # type: ignore[arg-type]
    assert check(wrong, plan).outcome == "failed"


def _everyone(network: nn.Module, path: Path) -> NetworkParticipants:
    both = Network(network, series(), read_manifest(path))
    with torch.no_grad():
        return gather_network(path, both, Execution(threads=1).of(path), 2, [])
