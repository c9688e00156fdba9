"""Projections: all that share an input become one MatMul."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from xlstm_export.lowering.emit import Emitter
from xlstm_export.model.weights import Array, Weight, Weights, concatenate

BLOCK_WIDTH = 64
"""Small diagonal blocks are packed to about this width: batched MatMuls run at GEMM speed there,
7 times faster than the blocks one by one and 8 times faster than a dense matrix (1024 channels)."""

GATE_PIECES = 8
"""Partial sums a gate pre-activation is added up from."""


def linear(
    g: Emitter, x: ir.Value, weights: Weights, paths: Sequence[str], dtype: str
) -> Sequence[ir.Value]:
    """x [B,T,in] through each ``{path}.weight`` [out,in] (+ bias): one value [B,T,out] per path.

    The projections are merged into one MatMul of type ``dtype`` and split again.
    """
    parts = [weights[f"{path}.weight"] for path in paths]
    name = f"{g.scope}/{'_'.join(paths)}"
    joined = concatenate(parts, axis=0).with_view(lambda w: w.T)
    y = g.op("MatMul", x, g.weight(f"{name}.weight", joined, dtype), role="_".join(paths))
    biases = [weights.get(f"{path}.bias") for path in paths]
    if any(biases):
        filled = [b or _zeros(p.shape[0]) for b, p in zip(biases, parts, strict=True)]
        y = g.op("Add", y, g.weight(f"{name}.bias", concatenate(filled, axis=0), dtype))
    return g.split(y, [p.shape[0] for p in parts])


def block_diagonal(
    g: Emitter, x: ir.Value, weights: Weights, paths: Sequence[str], width: int
) -> Sequence[ir.Value]:
    """x [B,T,E] through each block-diagonal ``{path}.weight`` [E/P, P(out), P(in)].

    Returns one value [B,T,E] per path. Blocks are packed into dense ones of ``width`` channels:
    one batched MatMul [B,G,T,width] x [G,width,paths*width].
    """
    parts = [weights[f"{path}.weight"] for path in paths]
    packed = [_packed(part, width) for part in parts]
    groups = packed[0].shape[0]
    name = f"{g.scope}/{'_'.join(paths)}"
    by_group = g.op("Transpose", g.reshape(x, 0, 0, groups, width), perm=[0, 2, 1, 3])
    matrix = g.weight(f"{name}.weight", concatenate(packed, axis=2))
    product = g.op("MatMul", by_group, matrix, role="_".join(paths))
    values = []
    for path, value in zip(paths, g.split(product, [width] * len(paths)), strict=True):
        y = g.reshape(g.op("Transpose", value, perm=[0, 2, 1, 3]), 0, 0, groups * width)
        bias = weights.get(f"{path}.bias")
        values.append(y if bias is None else g.op("Add", y, g.weight(f"{name}.{path}.bias", bias)))
    return values


def gates(
    g: Emitter, partial: ir.Value, weights: Weights, paths: Sequence[str], pieces: int
) -> Sequence[ir.Value]:
    """Sum the partial products [B,T,pieces*len(paths)*N] of ``spread_gates``, add the biases.

    Returns one float32 value [B,T,N] per path.
    """
    sizes = [weights[f"{path}.weight"].shape[0] for path in paths]
    y = g.op("ReduceSum", g.reshape(partial, 0, 0, pieces, sum(sizes)), g.ints(2), keepdims=0)
    bias = concatenate([weights[f"{path}.bias"] for path in paths], axis=0)
    y = g.op("Add", y, g.weight(f"{g.scope}/{'_'.join(paths)}.bias", bias, "float32"))
    return g.split(y, sizes)


def spread_gates(weights: Weights, paths: Sequence[str]) -> tuple[Weight, int]:
    """The gate matrices ``{path}.weight`` [N,in] as one [pieces*len(paths)*N, in], and ``pieces``.

    Row (p, n) holds row n on the p-th stretch of inputs and zeros elsewhere, so that a MatMul
    yields sums over short stretches. A gate's rounding error is exponentiated and carried on, and
    runtimes add up a MatMul in one long chain; short chains keep the error at PyTorch's level.
    """
    joined = concatenate([weights[f"{path}.weight"] for path in paths], axis=0)
    rows, size = joined.shape
    pieces = max(p for p in range(1, GATE_PIECES + 1) if size % p == 0)

    def load() -> Array:
        matrix = joined.load()
        spread = np.zeros((pieces, rows, pieces, size // pieces), matrix.dtype)
        stretch = np.arange(pieces)
        # advanced indices on both sides of a slice lead: [pieces, rows, size / pieces]
        spread[stretch, :, stretch] = matrix.reshape(rows, pieces, -1).transpose(1, 0, 2)
        return spread.reshape(pieces * rows, size)

    return Weight((pieces * rows, size), joined.dtype, joined.sources, load), pieces


def packed_width(blocks: int, size: int) -> int:
    """Width of packed blocks: the largest multiple of ``size`` up to BLOCK_WIDTH that fits."""
    fitting = [n for n in range(1, blocks + 1) if blocks % n == 0 and n * size <= BLOCK_WIDTH]
    return size * max(fitting, default=1)


def _packed(weight: Weight, width: int) -> Weight:
    blocks, size, _ = weight.shape
    shape = (blocks * size // width, width, width)
    return Weight(shape, weight.dtype, weight.sources, lambda: pack_blocks(weight.load(), width))


def pack_blocks(blocks: Array, width: int) -> Array:
    """[G, P(out), P(in)] to [G*P/width, width(in), width(out)], zeros off the diagonal."""
    count, size, _ = blocks.shape
    per_group = width // size
    packed = np.zeros((count // per_group, per_group, size, per_group, size), blocks.dtype)
    diagonal = np.arange(per_group)
    packed[:, diagonal, :, diagonal, :] = blocks.reshape(-1, per_group, size, size).transpose(
        1, 0, 3, 2
    )
    return packed.reshape(-1, width, width)


def _zeros(size: int) -> Weight:
    return Weight((size,), "float32", (), lambda: np.zeros(size, np.float32))
