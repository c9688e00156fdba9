"""What the children of test_sanitizers_on_cpu.py do.

python -m tests.cuda.sanitizer_sweep cases|races|FAULT

A fault is a kernel of faults.cu, or short-input or short-output: a sanitizer that stays silent
there is not at work.
"""

from __future__ import annotations

import sys

import numpy as np

from tests.cases import OP_CASES, OpCase, make_inputs
from tests.cuda.on_cpu import DESCENDING, CudaRun, run_cuda
from tests.cuda.test_emulator import launch
from tests.cuda.test_likeliest import choose
from tests.plugins.kernels import Buffer
from tests.plugins.sanitized import announce_end
from xlstm_export.ops.schema import TX_DTYPES

LARGE = (
    OpCase("XlstmMLSTM", (("B", 1), ("T", 18), ("N", 1), ("K", 600), ("V", 40))),
    OpCase("XlstmMLSTM", (("B", 1), ("T", 130), ("N", 3), ("K", 48), ("V", 272))),
    OpCase("XlstmSLSTM", (("B", 171), ("T", 2), ("N", 3), ("H", 20))),
    OpCase("XlstmSLSTM", (("B", 2), ("T", 2), ("N", 1), ("H", 230))),  # a cluster
    OpCase("XlstmSLSTM", (("B", 1), ("T", 2), ("N", 1), ("H", 1700))),
    OpCase("XlstmSLSTM", (("B", 67), ("T", 6), ("N", 4), ("H", 128))),  # four rows in a block
    OpCase("XlstmCausalConv1d", (("B", 1), ("T", 70), ("D", 130), ("W", 9))),
)

RACES = (  # each kernel; more threads than 8,000 in a launch are too many for ThreadSanitizer
    (OpCase("XlstmMLSTM", (("B", 1), ("T", 130), ("N", 2), ("K", 32), ("V", 80))), "bfloat16"),
    (OpCase("XlstmMLSTM", (("B", 1), ("T", 5), ("N", 2), ("K", 33), ("V", 40))), "float32"),
    (OpCase("XlstmMLSTM", (("B", 1), ("T", 3), ("N", 2), ("K", 65), ("V", 40))), "float64"),
    (OpCase("XlstmSLSTM", (("B", 3), ("T", 5), ("N", 2), ("H", 20))), "float32"),
    (OpCase("XlstmSLSTM", (("B", 3), ("T", 5), ("N", 2), ("H", 40))), "bfloat16"),
    (OpCase("XlstmSLSTM", (("B", 3), ("T", 3), ("N", 1), ("H", 136))), "bfloat16"),
    (OpCase("XlstmSLSTM", (("B", 1), ("T", 2), ("N", 1), ("H", 260))), "float16"),
    (OpCase("XlstmSLSTM", (("B", 2), ("T", 2), ("N", 1), ("H", 300))), "float32"),
    (OpCase("XlstmCausalConv1d", (("B", 2), ("T", 20), ("D", 36), ("W", 4))), "bfloat16"),
    (OpCase("XlstmCausalConv1d", (("B", 2), ("T", 20), ("D", 33), ("W", 5))), "float32"),
)  # fmt: skip


def races() -> None:
    """A call of each kernel, states in place, and a choice of tokens."""
    for case, tx in RACES:
        run_cuda(case, make_inputs(case, tx), tx, alias=True)
        print(case, tx, flush=True)
    choices()
    print("choices", flush=True)


def choices() -> None:
    """Tokens of rows of any length, each buffer ending where its allocation does."""
    for batch, vocabulary in ((1, 1), (2, 1500), (3, 5)):
        logits = np.random.default_rng(0).standard_normal((batch, 1, vocabulary), np.float32)
        choose(logits, np.zeros(batch, int), blocks=2, guard=0)


def cases() -> None:
    """Every case and dtype, each buffer ending where its allocation does."""
    count = 0
    for case in (*OP_CASES, *LARGE):
        for tx in TX_DTYPES if case.size["T"] < 200 else ("float32",):
            inputs = make_inputs(case, tx)
            run_cuda(case, inputs, tx, guard=0)
            run_cuda(case, inputs, tx, alias=True, order=DESCENDING, shift=0, guard=0)
            count += 2
    choices()
    print(f"calls {count}")


def shortened(side: str) -> None:
    """One call whose first operand on that side is an element short."""
    case = OP_CASES[0]
    kernel = CudaRun(case, make_inputs(case), "float32", shift=0, guard=0)
    kernel.add_workspace(1)
    operands, pointers = {
        "input": (kernel.inputs, kernel.call.inputs),
        "output": (kernel.outputs, kernel.call.outputs),
    }[side]
    name = next(iter(operands))
    operands[name] = Buffer(operands[name].nbytes - 4, 0, guard=0)
    operands[name].bytes[:] = 0
    pointers[0] = operands[name].address
    announce_end(operands[name].address + operands[name].nbytes)
    kernel.run()


def main() -> None:
    """Do what the command line says."""
    what = sys.argv[1]
    if what in ("cases", "races"):
        {"cases": cases, "races": races}[what]()
    elif what.startswith("short-"):
        shortened(what.removeprefix("short-"))
    else:
        print(launch(what)[0])


if __name__ == "__main__":
    main()
