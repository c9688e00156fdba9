"""Ways to choose numbers of 4 bits: ours, and HQQ and GPTQ as onnxruntime's quantisers have them.

python -m benchmarks.lowbit_methods [--language FOLDER] [--block-size 64]

The model computes in float32 on what each way leaves of its weights; activations are not rounded.
Calibration and text as in ``lowbit_quality``. GPTQ is also measured with its factor of the inverse
Hessian turned: onnxruntime's multiplies errors by columns of an upper triangle, of which all but
the diagonal are zero, and so compensates nothing.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from onnxruntime.quantization.matmul_nbits_quantizer import (
    HQQWeightOnlyQuantConfig,
    HQQWeightOnlyQuantizer,
)
from onnxruntime.quantization.neural_compressor.weight_only import gptq
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.lowbit_quality import Language, character_model, larger_model
from xlstm_export.bundle.low_bit import LowBit
from xlstm_export.checkpoint.hub import resolve_source
from xlstm_export.model.low_bit import candidates
from xlstm_export.model.storage import Storage
from xlstm_export.pipeline import read_checkpoint
from xlstm_export.reference.model import ReferenceModel
from xlstm_export.reference.squares import mean_squares
from xlstm_export.runtime.session import Array
from xlstm_export.validation.given import real_rollouts
from xlstm_export.validation.sensitivity import numbers_left

ROWS = 32
"""Windows of the text that are judged."""


@dataclass
class Hessians:
    """2 E[x x^T] of the inputs [in] of each matrix, by name."""

    sums: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def multiplies(self, name: str, x: Tensor) -> None:
        """``x`` [..., in] comes to the matrix ``name``."""
        rows = x.reshape(-1, x.shape[-1]).double()
        self.sums[name] = self.sums.get(name, torch.zeros(())) + rows.T @ rows
        self.counts[name] = self.counts.get(name, 0) + len(rows)

    def mean(self, name: str) -> Array:
        """Over all rows, [in,in]."""
        return (2 * self.sums[name] / self.counts[name]).numpy()


@contextmanager
def turned_factor() -> Iterator[None]:
    """GPTQ takes the factor of the inverse Hessian as its arithmetic needs it."""
    lower = np.linalg.cholesky
    with mock.patch.object(np.linalg, "cholesky", lambda matrix: lower(matrix).T):
        yield


def by_gptq(matrix: Array, hessian: Array, low_bit: LowBit) -> Array:
    """What GPTQ leaves of ``matrix`` [out,in]."""
    scheme = "sym" if low_bit.symmetric else "asym"
    left = gptq(
        matrix.T.astype(np.float64), hessian.copy(), num_bits=4,
        group_size=low_bit.block_size, scheme=scheme,
    )  # fmt: skip
    return np.asarray(left.T, np.float32)


def by_hqq(matrix: Array, low_bit: LowBit) -> Array:
    """What HQQ leaves of ``matrix`` [out,in] with whole zero points, as our blocks have them."""
    size = low_bit.block_size
    maker = HQQWeightOnlyQuantizer(HQQWeightOnlyQuantConfig(block_size=size, bits=4))
    wide = torch.from_numpy(matrix.astype(np.float32))
    _, scale, zero = maker.quantize_internal(wide.clone(), bits=4, group_size=size, axis=1)
    scale, zero = scale.reshape(-1, 1), zero.reshape(-1, 1).round().clamp(0, 15)
    numbers = (wide.reshape(-1, size) / scale + zero).round().clamp(0, 15)
    return np.asarray(((numbers - zero) * scale).reshape(matrix.shape))


def measured(language: Language, size: int) -> Iterator[tuple[str, str]]:
    """A row of the table for each way."""
    checkpoint = read_checkpoint(resolve_source(str(language.source), None))
    spec, weights = checkpoint.spec, checkpoint.weights
    rollouts = real_rollouts(language.calibration, language.source, spec)
    importance = mean_squares(spec, weights, rollouts)
    hessians = Hessians()
    seen = ReferenceModel(spec, weights, "float32", "float32", "chunkwise", watch=hessians)
    for rollout in rollouts:
        states = None
        for feeds in rollout:
            _, states = seen.run(feeds, states)
    model = ReferenceModel(spec, weights, "float32", "float32", "chunkwise")
    language.keep(ROWS)
    yield "fp32", language.measure(model)
    names, specs = candidates(spec, weights), spec.weights()
    whole = {n for n in names if specs[n].low_bit == "matrix" and not weights[n].shape[1] % size}
    for symmetric in (True, False):
        low_bit = LowBit(4, size, symmetric)
        kind = "symmetric" if symmetric else "asymmetric"
        plain = numbers_left(spec, weights, names, Storage("float32", low_bit))
        ours = numbers_left(spec, weights, names, Storage("float32", low_bit, importance))
        ways: dict[str, Any] = {"least squares": plain, "calibrated": ours}
        loaded = {name: weights[name].load() for name in whole}
        with_hessian = whole & set(hessians.sums)
        found = {n: by_gptq(loaded[n], hessians.mean(n), low_bit) for n in with_hessian}
        ways["GPTQ of onnxruntime"] = plain | found
        with turned_factor():
            found = {n: by_gptq(loaded[n], hessians.mean(n), low_bit) for n in with_hessian}
        ways["GPTQ, factor turned"] = plain | found
        if not symmetric:
            ways["HQQ"] = plain | {name: by_hqq(loaded[name], low_bit) for name in whole}
        for way, numbers in ways.items():
            yield f"{kind}, {way}", language.measure(model.with_numbers(numbers))


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--language", type=Path, help="a language model in place of the demo's")
    parser.add_argument("--block-size", type=int, default=64)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="xlstm-methods-") as name:
        language = (
            character_model(Path(name))
            if arguments.language is None
            else larger_model(arguments.language)
        )
        table = Table("int4", language.source.name)
        for row in measured(language, arguments.block_size):
            table.add_row(*row)
        Console().print(table)


if __name__ == "__main__":
    main()
