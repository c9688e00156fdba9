"""Work behind the next of its kind: in order, one at a time, and no error is lost."""

from __future__ import annotations

import threading

import pytest

from xlstm_export.validation.behind import behind


def test_a_call_runs_while_the_next_is_prepared_and_they_stay_in_order() -> None:
    begun, go_on, done = threading.Event(), threading.Event(), list[int]()

    def first() -> None:
        begun.set()
        assert go_on.wait(10)
        done.append(1)

    with behind() as later:
        later(first)
        assert begun.wait(10)
        assert done == []
        go_on.set()
        later(done.append, 2)
    assert done == [1, 2]


@pytest.mark.parametrize("calls_after", [0, 1])
def test_an_error_comes_out_of_the_next_call_or_at_the_end(calls_after: int) -> None:
    after = list[int]()

    def calls() -> None:
        with behind() as later:
            later(divmod, 1, 0)
            for number in range(calls_after):
                later(after.append, number)

    with pytest.raises(ZeroDivisionError):
        calls()
    assert after == []
