"""What is timed: operators at the sizes that published figures are given for, and their inputs.

A workload's bytes are those of its operands, each counted once; its FLOP, where it has any, are
the project's: an mLSTM in chunks of 64, whatever is computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from tests.cases import NUMPY_DTYPES, Array, OpCase, make_inputs
from xlstm_export.ops.catalog import CATALOG
from xlstm_export.ops.schema import TensorSpec, state_dtype

Arrays = dict[str, Array]

ALL = ("float32", "bfloat16", "float16")
BF16 = ("bfloat16",)
DRAWN_ROWS, DRAWN_STEPS = 4, 512
"""Random numbers are drawn for so many rows and steps and repeated over the others."""
LAYERS, LAYERS_BYTES = 32, 512 << 20
"""Most copies of a step in a graph, and about how many bytes they may have."""


@dataclass(frozen=True)
class Workload:
    """One operator at one size, in the types of ``dtypes``."""

    part: str
    title: str
    case: OpCase
    dtypes: tuple[str, ...] = ALL
    quick: bool = False
    """Whether ``--quick`` measures it, in its first type."""
    compiled: bool = False
    """Whether peers that compile CUDA source for each shape are asked."""

    @property
    def is_step(self) -> bool:
        """One step, timed as a graph of layers too."""
        return self.case.size["T"] == 1

    @property
    def rows(self) -> int:
        """Batch rows that differ: the others repeat them, and these are compared."""
        return min(self.case.size["B"], DRAWN_ROWS)

    @cached_property
    def flop(self) -> float | None:
        """Of the matrix products of an mLSTM over time; None: bytes are what counts."""
        if self.case.op != "XlstmMLSTM" or self.is_step:
            return None
        B, T, N, K, V = (self.case.size[d] for d in "BTNKV")
        return float(B * T * N * (4 * K * V + 64 * (K + V)))

    def nbytes(self, tx: str) -> int:
        """Bytes of all inputs and outputs."""
        schema = CATALOG[self.case.op]
        specs = [s for s in (*schema.inputs, *schema.outputs) if s.type != "lengths"]
        return sum(prod(self.case.shape(s.dims)) * _dtype(s, tx).itemsize for s in specs)

    def layers(self, tx: str) -> int:
        """Copies of a step in one graph, each with operands of its own."""
        return max(1, min(LAYERS, LAYERS_BYTES // self.nbytes(tx)))

    def arrays(self, tx: str) -> Arrays:
        """Inputs in their own types."""
        size = self.case.size
        drawn = dict(size) | {"B": self.rows, "T": min(size["T"], DRAWN_STEPS)}
        case = OpCase(
            self.case.op, tuple(drawn.items()), self.case.attributes, state=self.case.state,
            forget_bias=self.case.forget_bias,
        )  # fmt: skip
        inputs = make_inputs(case, tx)
        return {
            spec.name: self._repeated(spec, inputs[spec.name].astype(_dtype(spec, tx)))
            for spec in CATALOG[self.case.op].inputs
        }

    def compared(self, arrays: Arrays) -> Arrays:
        """``arrays`` of the rows that differ."""
        specs = CATALOG[self.case.op].inputs
        return {s.name: arrays[s.name][: self.rows] if _has_rows(s) else arrays[s.name]
                for s in specs}  # fmt: skip

    def _repeated(self, spec: TensorSpec, array: Array) -> Array:
        for axis, letter in enumerate(spec.dims):
            wanted = self.case.size.get(letter) if letter in ("B", "T") else None
            if wanted is not None and wanted != array.shape[axis]:
                array = array.take(np.arange(wanted) % array.shape[axis], axis)
        return array


def _has_rows(spec: TensorSpec) -> bool:
    return spec.dims[0] == "B"


def _dtype(spec: TensorSpec, tx: str) -> np.dtype[Any]:
    types = {"TX": tx, "TS": state_dtype(tx)}
    return np.dtype(np.int32) if spec.type == "lengths" else NUMPY_DTYPES[types[spec.type]]


def _mlstm(B: int, T: int, heads: str, **given: object) -> Workload:
    """``heads`` like "8x256/512"."""
    N, K, V = map(int, heads.replace("x", "/").split("/"))
    sizes = (("B", B), ("T", T), ("N", N), ("K", K), ("V", V))
    part = "mlstm_step" if T == 1 else "mlstm"
    case = OpCase("XlstmMLSTM", sizes, forget_bias=4.5)
    return Workload(part, f"mLSTM {heads}, B={B}, T={T}", case, **given)  # type: ignore[arg-type]


def _slstm(B: int, T: int, heads: str, **given: object) -> Workload:
    """``heads`` like "4x128"."""
    N, H = map(int, heads.split("x"))
    case = OpCase("XlstmSLSTM", (("B", B), ("T", T), ("N", N), ("H", H)), state="zero")
    return Workload("slstm", f"sLSTM {heads}, B={B}, T={T}", case, **given)  # type: ignore[arg-type]


def _conv(B: int, T: int, D: int, **given: object) -> Workload:
    sizes = (("B", B), ("T", T), ("D", D), ("W", 4))
    case = OpCase("XlstmCausalConv1d", sizes, (("activation", 1),))
    return Workload("conv", f"convolution D={D} W=4 SiLU, B={B}, T={T}", case, **given)  # type: ignore[arg-type]


def workloads() -> Iterator[Workload]:
    """Cheap ones first; those whose peers are compiled come last."""
    for B in (1, 8, 32, 64, 256):  # xLSTM-7B
        yield _mlstm(B, 1, "8x256/512", quick=B in (1, 64))
    yield _mlstm(1, 1, "4x1024/1024", dtypes=BF16)  # xLSTM[7:1]-1.3B
    yield _mlstm(8, 1, "4x1024/1024", dtypes=BF16)
    yield _conv(1, 1, 4096)
    yield _conv(256, 1, 4096, dtypes=BF16)
    yield _conv(1, 8192, 4096, quick=True)
    yield _conv(8, 8192, 4096, dtypes=BF16)
    yield _mlstm(1, 16, "8x256/512")  # a few steps in one call
    yield _mlstm(1, 512, "8x256/512")
    yield _mlstm(1, 2048, "8x256/512", quick=True)
    yield _mlstm(1, 8192, "8x256/512", dtypes=BF16)
    yield _mlstm(1, 1000, "8x256/512", dtypes=BF16)  # not a multiple of anyone's chunk
    yield _mlstm(32, 2048, "8x256/512", dtypes=BF16)  # 65,536 tokens, as published
    yield _mlstm(32, 2048, "16x128/256", dtypes=BF16)
    yield _mlstm(1, 2048, "4x1024/1024", dtypes=BF16)
    yield _mlstm(32, 2048, "4x1024/1024", dtypes=BF16)
    yield _mlstm(1, 65536, "8x256/512", dtypes=BF16)
    yield _slstm(1, 1, "4x128")  # TiRex
    yield _slstm(1, 64, "4x128", quick=True)
    yield _slstm(256, 64, "4x128", dtypes=BF16)
    yield _slstm(1, 2048, "4x512", dtypes=BF16)  # xLSTM[7:1]-1.3B
    yield _slstm(256, 64, "4x512", dtypes=BF16)
    for heads in ("12x64", "3x256", "1x768", "6x128"):  # FlashRNN's figures
        yield _slstm(16, 1024, heads, dtypes=BF16, compiled=heads in ("12x64", "3x256", "6x128"))
