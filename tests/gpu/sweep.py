"""Short calls of every operator and dtype, and choices of tokens, for compute-sanitizer.

python -m tests.gpu.sweep
"""

from __future__ import annotations

import numpy as np

from tests.cases import OP_CASES, OpCase, make_inputs
from tests.gpu.kernels import choose, run_gpu
from xlstm_export.ops.schema import TX_DTYPES

LARGE = (
    OpCase("XlstmMLSTM", (("B", 2), ("T", 130), ("N", 2), ("K", 48), ("V", 80)), lengths=(130, 71)),
    OpCase("XlstmMLSTM", (("B", 1), ("T", 65), ("N", 1), ("K", 256), ("V", 64))),
    OpCase("XlstmMLSTM", (("B", 2), ("T", 3), ("N", 2), ("K", 256), ("V", 512))),
    OpCase("XlstmSLSTM", (("B", 9), ("T", 5), ("N", 2), ("H", 128)), (("state_rounding", 1),)),
    OpCase("XlstmSLSTM", (("B", 3), ("T", 3), ("N", 1), ("H", 256))),
    OpCase("XlstmCausalConv1d", (("B", 2), ("T", 40), ("D", 256), ("W", 4)), (("activation", 1),)),
    OpCase("XlstmMLSTM", (("B", 1), ("T", 18), ("N", 1), ("K", 600), ("V", 40))),
    OpCase("XlstmSLSTM", (("B", 171), ("T", 2), ("N", 3), ("H", 20))),
    OpCase("XlstmSLSTM", (("B", 1), ("T", 2), ("N", 1), ("H", 1700))),
    OpCase("XlstmCausalConv1d", (("B", 1), ("T", 70), ("D", 130), ("W", 9))),
)


def main() -> None:
    """Run them, states in place and apart."""
    count = 0
    for case in (*(c for c in OP_CASES if c.size["T"] < 70), *LARGE):
        for tx in TX_DTYPES:
            for alias in (False, True):
                run_gpu(case, make_inputs(case, tx), tx, alias=alias)
                count += 1
    random = np.random.default_rng(0)
    for batch, vocabulary in ((1, 50_304), (300, 1025), (3, 5)):
        choose(random.standard_normal((batch, 1, vocabulary), np.float32), np.zeros(batch, int))
        count += 1
    print(f"calls {count}")


if __name__ == "__main__":
    main()
