"""Who takes part shares the processor, and a large model is compared like a small one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

import xlstm_export as xe
from tests.model_cases import BY_ID, Library
from xlstm_export.reference import threads
from xlstm_export.reference.threads import SMALL, Sharing
from xlstm_export.validation import participants
from xlstm_export.validation.checks import rollout

STACK = BY_ID["stack-mixed"]


def _checkpoint(parameters: int) -> Any:
    return SimpleNamespace(parameters=parameters)


@pytest.mark.parametrize(
    ("parameters", "threads", "sharing"),
    [
        (SMALL, 1, Sharing(1, 1, 1)),
        (SMALL, 4, Sharing(1, 4, 1)),
        (SMALL, 16, Sharing(1, 5, 1)),
        (SMALL + 1, 1, Sharing(1, 1, 1)),
        (SMALL + 1, 2, Sharing(2, 2, 1)),
        (SMALL + 1, 16, Sharing(16, 5, 4)),
    ],
)
def test_no_more_compute_at_once_than_there_are(
    parameters: int, threads: int, sharing: Sharing
) -> None:
    assert participants.share_threads(_checkpoint(parameters), threads) == sharing


def test_a_large_model_is_held_to_the_chunkwise_form_side_by_side(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[int] = set()
    compare = rollout._compare_calls

    def watched(*given: Any) -> None:
        seen.add(torch.get_num_threads())
        compare(*given)

    monkeypatch.setattr(threads, "SMALL", 0)
    monkeypatch.setattr(rollout, "_compare_calls", watched)
    before = torch.get_num_threads()
    report = xe.validate(
        library.bundle(STACK), library.source(STACK).path, upstream=False, threads=2
    )
    assert report.verdict == "self-consistent"
    assert "chunkwise, float64" in report.reference
    assert seen == {1}  # of two threads, two runners have one each
    assert torch.get_num_threads() == before
