"""What the children of test_sanitizers.py do.

python -m tests.plugins.sanitizer_sweep NAME, which is one of
cases|pool|callers|turns|short-input|short-output|shared-state

The last three are planted faults: a sanitizer that stays silent there is not at work.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from threading import Barrier, Thread

import numpy as np

from tests.cases import OP_CASES, Array, OpCase, make_inputs
from tests.plugins.kernels import Buffer, KernelRun, Pool, Status, isa, library, run_kernel
from tests.plugins.sanitized import announce_end
from xlstm_export.ops.schema import TX_DTYPES

WIDE = (
    OpCase("XlstmMLSTM", (("B", 1), ("T", 130), ("N", 2), ("K", 100), ("V", 200))),
    OpCase("XlstmMLSTM", (("B", 2), ("T", 66), ("N", 3), ("K", 33), ("V", 17))),
    OpCase("XlstmSLSTM", (("B", 5), ("T", 30), ("N", 3), ("H", 72))),
    OpCase("XlstmCausalConv1d", (("B", 2), ("T", 300), ("D", 130), ("W", 4))),
)
"""Large enough that the work is cut into parts."""


def cases() -> None:
    """Every case, dtype and way of calling, each buffer ending where its allocation does."""
    for case in (*OP_CASES, *WIDE):
        for tx in TX_DTYPES:
            inputs = make_inputs(case, tx)
            run_kernel(case, inputs, tx, guard=0)
            run_kernel(case, inputs, tx, threads=3, alias=True, packed=True, shift=0, guard=0)
    print(f"isa {isa()[1]}")


def pool() -> None:
    """Four threads share each call's work."""
    four = Pool(4)
    short = tuple(case for case in OP_CASES if case.size["T"] < 200)
    for case in (*short, *WIDE):
        for tx in TX_DTYPES:
            inputs = make_inputs(case, tx)
            for alias in (False, True):
                run_kernel(case, inputs, tx, pool=four, alias=alias, packed=alias)


def callers(shared: Pool | None = None) -> None:
    """Eight threads call at once, each with states of its own; same bits as alone.

    Each has a pool of its own, where none is shared.
    """
    jobs = [(case, tx) for case in WIDE for tx in TX_DTYPES]
    barrier, failures = Barrier(8), []

    def call(number: int) -> None:
        own = shared or Pool(2)
        barrier.wait()  # the library's first call too comes from all threads at once
        for case, tx in jobs[number:] + jobs[:number]:
            got = run_kernel(case, make_inputs(case, tx, number), tx, pool=own, alias=True)
            results[number][case, tx] = got

    results: list[dict[tuple[OpCase, str], dict[str, Array]]] = [{} for _ in range(8)]
    _in_threads(call, 8)
    for number in range(8):
        for case, tx in jobs:
            alone = run_kernel(case, make_inputs(case, tx, number), tx)
            got = results[number].get((case, tx), {})
            if any(not np.array_equal(got.get(k), v, equal_nan=True) for k, v in alone.items()):
                failures.append(f"thread {number}: {case} {tx}")
    if failures:
        raise SystemExit("\n".join(failures))


def turns() -> None:
    """The same on one pool: the calls take turns."""
    callers(Pool(3))


def shared_state() -> None:
    """Planted: two callers carry one and the same state."""
    kernel = KernelRun(WIDE[0], make_inputs(WIDE[0]), "float32", alias=True)
    spaces = [Buffer(kernel.workspace_size(1)) for _ in range(2)]
    barrier = Barrier(2)

    def call(number: int) -> None:
        own = type(kernel.call).from_buffer_copy(kernel.call)
        own.workspace, own.workspace_size = spaces[number].address, spaces[number].nbytes
        barrier.wait()
        for _ in range(20):
            assert library().xlstm_cpu_run(own, None) == Status.OK

    _in_threads(call, 2)


def short(what: str) -> None:
    """Planted: a buffer that is one element shorter than the call says."""
    case = WIDE[-1]
    kernel = KernelRun(case, make_inputs(case), "float32", shift=0, guard=0)
    kernel.add_workspace(1)
    good = kernel.inputs["x"] if what == "input" else kernel.outputs["y"]
    less = Buffer(good.nbytes - 4, guard=0)
    less.bytes[:] = 0
    pointers = kernel.call.inputs if what == "input" else kernel.call.outputs
    pointers[0] = less.address
    announce_end(less.address + less.nbytes)
    kernel.run()


def _in_threads(target: Callable[[int], None], count: int) -> None:
    threads = [Thread(target=target, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main() -> None:
    """Run what the command line names."""
    name = sys.argv[1]
    if name.startswith("short-"):
        short(name.removeprefix("short-"))
    else:
        {"cases": cases, "pool": pool, "callers": callers, "turns": turns,
         "shared-state": shared_state}[name]()  # fmt: skip


if __name__ == "__main__":
    main()
