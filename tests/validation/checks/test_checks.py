"""Every check passes on a right bundle, and finds the fault that it is there for."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.model_cases import BY_ID, Library
from xlstm_export.bundle.checksum import bundle_sha256
from xlstm_export.bundle.manifest import read_manifest
from xlstm_export.errors import OptionError
from xlstm_export.families.registry import find_family
from xlstm_export.lowering.options import LoweringOptions
from xlstm_export.runtime.open import Execution
from xlstm_export.validation.checks import drift, invariance
from xlstm_export.validation.checks.gates import check_gates
from xlstm_export.validation.checks.plan import Plan, check_budget
from xlstm_export.validation.checks.run import run_checks
from xlstm_export.validation.checks.text import check_greedy, check_length
from xlstm_export.validation.participants import Participants, gather, read_both
from xlstm_export.validation.validate import Task, validate_bundle

Outputs = dict[str, Any]


@pytest.fixture(scope="module")
def everyone(library: Library) -> Participants:
    return _gathered(library, "stack-mixed", LoweringOptions(ragged=True))


def _gathered(library: Library, name: str, options: LoweringOptions) -> Participants:
    bundle, source = library.bundle(BY_ID[name], options), library.source(BY_ID[name])
    module = find_family(source, "auto")
    return gather(
        read_both(
            bundle, read_manifest(bundle), bundle_sha256(bundle), source, module,
            Execution(threads=1), None,
        ),
        module, False, None,
    )  # fmt: skip


@pytest.fixture(scope="module")
def plan(everyone: Participants) -> Plan:
    names = ["logits", *(state.key for state in everyone.manifest.states)]
    return Plan("fast", 0, dict.fromkeys(names, 1e-4), np.arange(60) % 50)


def _with_fault(
    everyone: Participants, spoil: Callable[[Mapping[str, Any], Any, Outputs, Any], None]
) -> Participants:
    """``everyone``, with a subject whose outputs and states ``spoil`` changes in place."""
    session = everyone.subject

    def run(feeds: Mapping[str, Any], states: Any = None) -> tuple[Outputs, dict[str, Any]]:
        outputs, after = session.run(feeds, states)
        outputs = {name: np.array(x) for name, x in outputs.items()}
        after = {key: np.array(after[key]) for key in after}
        spoil(feeds, states, outputs, after)
        return outputs, after

    subject = SimpleNamespace(run=run, manifest=session.manifest, name=session.name)
    return replace(everyone, subject=subject)  # type: ignore[arg-type]


def _one_row(feeds: Mapping[str, Any], states: Any, outputs: Outputs, after: Any) -> None:
    if len(outputs["logits"]) > 5:
        outputs["logits"][5] += 1


def _long_calls(feeds: Mapping[str, Any], states: Any, outputs: Outputs, after: Any) -> None:
    if feeds["input_ids"].shape[1] > 66:
        after["0.mlstm.n"] *= 1.1


def _counted(everyone: Participants) -> Participants:
    calls = iter(range(1000))

    def spoil(feeds: Mapping[str, Any], states: Any, outputs: Outputs, after: Any) -> None:
        outputs["logits"] += 1e-3 * next(calls)

    return _with_fault(everyone, spoil)


def _states_changed(feeds: Mapping[str, Any], states: Any, outputs: Outputs, after: Any) -> None:
    if states is not None:
        states["0.mlstm.n"][...] = 0


def _last_token(feeds: Mapping[str, Any], states: Any, outputs: Outputs, after: Any) -> None:
    """What stands behind a row leaks into it."""
    outputs["logits"] += feeds["input_ids"][:, -1:, None]


def _another_token(feeds: Mapping[str, Any], states: Any, outputs: Outputs, after: Any) -> None:
    outputs["logits"][..., 7] += 100


@pytest.mark.parametrize(
    ("check", "spoil"),
    [
        (invariance.check_splits, _long_calls),
        (invariance.check_batch, _one_row),
        (invariance.check_padding, _last_token),
        (invariance.check_fork, _states_changed),
        (lambda e, p: check_greedy(e, p)[0], _another_token),
        (check_length, _another_token),
    ],
    ids=["splits", "batch", "padding", "fork", "greedy", "length"],
)
def test_a_check_finds_its_fault(
    everyone: Participants, plan: Plan, check: Any, spoil: Any
) -> None:
    assert check(everyone, plan).outcome == "passed"
    assert check(_with_fault(everyone, spoil), plan).outcome == "failed"


def test_a_call_that_is_not_repeated_bit_for_bit_fails(everyone: Participants, plan: Plan) -> None:
    assert invariance.check_fork(_counted(everyone), plan).outcome == "failed"


def test_all_checks_pass_on_a_right_bundle(everyone: Participants, plan: Plan) -> None:
    done = run_checks(everyone, plan, None)
    assert done.complete
    outcomes = {check.name: check.outcome for check in done.checks}
    assert list(outcomes.values()).count("passed") == 8
    assert outcomes["drift over carried steps"] == "skipped"
    assert done.continuations[0].tokens == done.continuations[0].same == 16


@pytest.mark.parametrize("name", ["stack-bare", "vil-one", "tirex-small"])
def test_what_does_not_apply_is_skipped_with_a_reason(library: Library, name: str) -> None:
    others = _gathered(library, name, LoweringOptions())
    names = [others.manifest.outputs[0].name, *(s.key for s in others.manifest.states)]
    done = run_checks(others, Plan("fast", 0, dict.fromkeys(names, 1e-3)), None)
    assert {check.outcome for check in done.checks} == {"passed", "skipped"}
    assert all(check.reason for check in done.checks)


def test_a_drift_is_judged_over_the_whole_rollout(
    everyone: Participants, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drift, "STEPS", 1024)
    full = replace(plan, budget="full")
    check, results = drift.check_drift(everyone, full)
    assert check.outcome == "passed"
    assert check.reason.startswith("1024 steps")
    assert {r.name for r in results} > {"drift logits", "drift 1.slstm.c"}
    allowed = {r.name: r.judgement.max_allowed for r in results}["drift 0.mlstm.n"]
    # wrong rollouts, times the allowed, what of it, rollouts that are run
    for wrong, times, outcome, run in (
        (3, 20, "failed", 3), (1, 20, "passed", 3), (1, 2000, "failed", 1),
    ):  # fmt: skip
        calls = itertools.count()

        def spoil(
            feeds: Mapping[str, Any], states: Any, outputs: Outputs, after: Any,
            calls: Iterator[int] = calls, wrong: int = wrong, error: float = times * allowed,
        ) -> None:  # fmt: skip
            rollout, call = divmod(next(calls), 4)
            if rollout < wrong and call == 3:  # after 768 steps
                after["0.mlstm.n"] += np.float32(error)

        check, results = drift.check_drift(_with_fault(everyone, spoil), full)
        assert check.outcome == outcome, "of three rollouts the middle one counts"
        assert ("0.mlstm.n" in check.reason) is (outcome == "failed")
        assert next(calls) == 4 * run, "beyond the rule it is repeated, far beyond it is not"


def test_an_interrupt_keeps_what_was_done(
    library: Library, everyone: Participants, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("xlstm_export.validation.checks.run.check_greedy", interrupted)
    source = library.source(BY_ID["stack-mixed"])
    report = validate_bundle(
        everyone.bundle, source, find_family(source, "auto"), Execution(threads=1),
        upstream=False, task=Task(),
    )  # fmt: skip
    assert report.ok
    assert not report.complete
    assert len(report.checks) == 7
    assert "incomplete" in report.to_markdown().splitlines()[0]


def test_gates_of_hundreds_are_within_the_rule(everyone: Participants, plan: Plan) -> None:
    check = check_gates(everyone, replace(plan, budget="full"))
    assert check.outcome == "passed", check.reason


def test_a_budget_that_is_none_is_refused() -> None:
    with pytest.raises(OptionError, match="quick is not one of fast, full"):
        check_budget("quick")
