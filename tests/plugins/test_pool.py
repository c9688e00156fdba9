"""The threads of the C library: shared by callers, and in a process that was forked."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.plugins.native_builds import ROOT

CALLERS = "from tests.plugins.sanitizer_sweep import turns; turns()"
# an alarm ends a child that waits for threads it does not have
FORK = """
import os, signal, time
from tests.cases import make_inputs
from tests.plugins.kernels import Pool, run_kernel
from tests.plugins.sanitizer_sweep import WIDE
pool = Pool(4)

def results():
    found = run_kernel(WIDE[0], make_inputs(WIDE[0]), "float32", pool=pool)
    return {name: array.tobytes() for name, array in found.items()}

before = results()
time.sleep(0.2)  # until the threads sleep, which is when a forked pool was never destroyed
child = os.fork()
if child == 0:
    signal.alarm(20)
    same = results() == before
    pool.__del__()
    os._exit(0 if same else 3)
assert results() == before
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def run(script: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=ROOT,
        timeout=120, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_callers_of_one_pool_take_turns() -> None:
    assert run(CALLERS) == ""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_does_the_work_alone() -> None:
    assert run(FORK) == "0"
