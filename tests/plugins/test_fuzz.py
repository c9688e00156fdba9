"""Ten thousand random calls of the kernels, in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.plugins.fuzz_kernels import REACHABLE, Fuzz, WrongAnswerError, fuzz, missing
from tests.plugins.kernels import ALIGNMENT, KernelRun, Status

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("isa", ["", "portable", "avx2"])
def test_every_random_call_gets_what_it_deserves(isa: str) -> None:
    """Under the chosen instruction set, and those that fewer machines choose."""
    command = [sys.executable, "-m", "tests.plugins.fuzz_kernels"]
    command += ["--calls", "10000" if not isa else "3000", "--seed", "7"]
    environment = {**os.environ, "XLSTM_CPU_ISA": isa}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    if isa and "UNAVAILABLE, not" in done.stderr:
        pytest.skip(f"this processor has no {isa}")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_status_that_never_came_is_missed() -> None:
    seen = Counter(dict.fromkeys(REACHABLE, 1))
    assert missing(seen) == []
    del seen[Status.BAD_ALIAS]
    assert missing(seen) == ["BAD_ALIAS"]


def test_the_fuzz_notices_a_wrong_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KernelRun, "run", lambda self, pool=None: Status.OK)
    with pytest.raises(WrongAnswerError, match="OK, not"):
        fuzz(200, 0, 0, ALIGNMENT, False)


def test_the_fuzz_notices_a_write_on_a_bad_call(monkeypatch: pytest.MonkeyPatch) -> None:
    run = KernelRun.run

    def write_first(self: KernelRun, pool: object = None) -> Status:
        next(iter(self.outputs.values())).bytes[:1] = 1
        return run(self, None)

    monkeypatch.setattr(KernelRun, "run", write_first)
    with pytest.raises(WrongAnswerError, match="was written"):
        fuzz(200, 0, 0, ALIGNMENT, False)


def test_a_call_is_repeated_by_its_number() -> None:
    assert str(Fuzz(3, 41, 64)) == str(Fuzz(3, 41, 64)) != str(Fuzz(3, 42, 64))
