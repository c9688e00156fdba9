"""Projections: all that share an input become one MatMul."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np
import onnx_ir as ir

from xlstm_export.bundle.low_bit import Blocks
from xlstm_export.lowering.emit import Emitter
from xlstm_export.lowering.low_bit import matmul
from xlstm_export.model.weights import Array, Weight, Weights, concatenate, zeros_like

BLOCK_WIDTH = 16
"""Small diagonal blocks are packed to about this width. One batched MatMul of such blocks takes a
fraction of the time of a dense matrix, or of 4-wide blocks one by one, and reads few zeros."""

GATE_PIECES = 8
"""Partial sums a gate pre-activation is added up from."""


def linear(g: Emitter, x: ir.Value, weights: Weights, paths: Sequence[str]) -> Sequence[ir.Value]:
    """x [B,T,in] through each ``{path}.weight`` [out,in] (+ bias): one value [B,T,out] per path.

    Projections that follow each other and are kept alike are merged into one product, and split
    again.
    """

    def kept(path: str) -> tuple[str, Blocks | None]:
        weight = weights[f"{path}.weight"]
        return weight.kept, weight.blocks

    groups = [list(group) for _, group in groupby(paths, kept)]
    return [y for group in groups for y in _joined(g, x, weights, group)]


def _joined(g: Emitter, x: ir.Value, weights: Weights, paths: Sequence[str]) -> Sequence[ir.Value]:
    parts = [weights[f"{path}.weight"] for path in paths]
    name = f"{g.scope}/{'_'.join(paths)}"
    y = matmul(g, x, name, concatenate(parts, axis=0), "_".join(paths))
    biases = [weights.get(f"{path}.bias") for path in paths]
    if any(biases):
        filled = [b or zeros_like(p, p.shape[0]) for b, p in zip(biases, parts, strict=True)]
        y = g.op("Add", y, g.weight(f"{name}.bias", concatenate(filled, axis=0)))
    return g.split(y, [p.shape[0] for p in parts])


def block_diagonal(
    g: Emitter, x: ir.Value, weights: Weights, paths: Sequence[str], width: int
) -> ir.Value:
    """x [B,T,E] through each block-diagonal ``{path}.weight`` [E/P, P(out), P(in)] (+ bias).

    Blocks are packed into G = E/width dense ones: one batched MatMul [B,G,T,width] x
    [G,width,paths*width]. The result [B,G,T,paths*width] is still by group, see ``ungroup``.
    """
    packed = [_packed(weights[f"{path}.weight"], width) for path in paths]
    groups = packed[0].shape[0]
    name = f"{g.scope}/{'_'.join(paths)}"
    by_group = g.op("Transpose", g.reshape(x, 0, 0, groups, width), perm=[0, 2, 1, 3])
    matrix = g.weight(f"{name}.weight", concatenate(packed, axis=2))
    product = g.op("MatMul", by_group, matrix, role="_".join(paths))
    biases = [weights.get(f"{path}.bias") for path in paths]
    if any(biases):
        filled = [b or zeros_like(packed[0], groups * width) for b in biases]
        rows = [b.with_view(lambda w: w.reshape(groups, 1, width)) for b in filled]
        product = g.op("Add", product, g.weight(f"{name}.bias", concatenate(rows, axis=2)))
    return product


def ungroup(g: Emitter, product: ir.Value, width: int, count: int, heads: int) -> list[ir.Value]:
    """``count`` results of ``block_diagonal`` from its product by group: each [B,T,heads,-1]."""
    parts = g.split(product, [width] * count)
    by_time = [g.op("Transpose", part, perm=[0, 2, 1, 3]) for part in parts]
    return [g.reshape(part, 0, 0, heads, -1) for part in by_time]


def gates_by_group(
    g: Emitter, products: Sequence[ir.Value], weights: Weights, paths: Sequence[str],
    counts: Sequence[int], width: int,
) -> Sequence[ir.Value]:  # fmt: skip
    """Gates ``{path}.weight`` [N,in] (+ bias) of all results of ``products``, float32 [B,T,N] each.

    Each group of channels is one short sum, see ``spread_gates``, and there is nothing to move.
    """
    joined = concatenate([weights[f"{path}.weight"] for path in paths], axis=0)
    rows, size = joined.shape[0], joined.shape[1] // sum(counts)
    partial, start = None, 0
    for index, (product, count) in enumerate(zip(products, counts, strict=True)):
        part = slice(start * size, (start + count) * size)
        start += count

        def view(w: Array, part: slice = part, count: int = count) -> Array:
            by_result = w[:, part].reshape(rows, count, size // width, width)
            return by_result.transpose(2, 1, 3, 0).reshape(size // width, count * width, rows)

        matrix = g.weight(f"{g.scope}/gates.{index}.weight", joined.with_view(view))
        y = g.op("MatMul", g.cast(product, "float32"), matrix, role="gates")
        partial = y if partial is None else g.op("Add", partial, y)
    assert partial is not None
    return _sum_pieces(g, partial, 1, weights, paths)


def gates(
    g: Emitter, partial: ir.Value, weights: Weights, paths: Sequence[str], pieces: int
) -> Sequence[ir.Value]:
    """Sum the partial products [B,T,pieces*len(paths)*N] of ``spread_gates``, add the biases.

    Returns one float32 value [B,T,N] per path.
    """
    sizes = [weights[f"{path}.weight"].shape[0] for path in paths]
    by_piece = g.reshape(partial, 0, 0, pieces, sum(sizes))
    return _sum_pieces(g, by_piece, 2, weights, paths)


def _sum_pieces(
    g: Emitter, partial: ir.Value, axis: int, weights: Weights, paths: Sequence[str]
) -> Sequence[ir.Value]:
    """Gates [B,T,N], one per path, from partial sums along ``axis``; the biases come last."""
    y = g.op("ReduceSum", partial, g.ints(axis), keepdims=0)
    bias = concatenate([weights[f"{path}.bias"] for path in paths], axis=0)
    y = g.op("Add", y, g.weight(f"{g.scope}/gates.bias", bias))
    return g.split(y, [weights[f"{path}.weight"].shape[0] for path in paths])


def gates_alone(
    g: Emitter, x: ir.Value, weights: Weights, paths: Sequence[str]
) -> Sequence[ir.Value]:
    """Gates ``{path}.weight`` [N,in] (+ bias) of float32 x [B,T,in]: float32 [B,T,N] each.

    The sums of ``spread_gates``, where they are part of no other product: one batched MatMul
    [B,P,T,in/P] x [P,in/P,paths*N], which reads no zeros.
    """
    joined = concatenate([weights[f"{path}.weight"] for path in paths], axis=0)
    rows, size = joined.shape
    pieces = _pieces(size)
    matrix = joined.with_view(lambda w: w.reshape(rows, pieces, -1).transpose(1, 2, 0))
    by_piece = g.op("Transpose", g.reshape(x, 0, 0, pieces, size // pieces), perm=[0, 2, 1, 3])
    y = g.op("MatMul", by_piece, g.weight(f"{g.scope}/gates.weight", matrix), role="gates")
    return _sum_pieces(g, y, 1, weights, paths)


def spread_gates(weights: Weights, paths: Sequence[str]) -> tuple[Weight, int]:
    """The gate matrices ``{path}.weight`` [N,in] as one [pieces*len(paths)*N, in], and ``pieces``.

    Row (p, n) holds row n on the p-th stretch of inputs and zeros elsewhere, so that a MatMul
    yields sums over short stretches. A gate's rounding error is exponentiated and carried on, and
    runtimes add up a MatMul in one long chain; short chains keep the error at PyTorch's level.
    """
    joined = concatenate([weights[f"{path}.weight"] for path in paths], axis=0)
    rows, size = joined.shape
    pieces = _pieces(size)

    def load() -> Array:
        matrix = joined.load()
        spread = np.zeros((pieces, rows, pieces, size // pieces), matrix.dtype)
        stretch = np.arange(pieces)
        # advanced indices on both sides of a slice lead: [pieces, rows, size / pieces]
        spread[stretch, :, stretch] = matrix.reshape(rows, pieces, -1).transpose(1, 0, 2)
        return spread.reshape(pieces * rows, size)

    return joined.with_load((pieces * rows, size), load), pieces


def _pieces(size: int) -> int:
    return max(p for p in range(1, GATE_PIECES + 1) if size % p == 0)


def packed_width(blocks: int, size: int) -> int:
    """Width of packed blocks: the largest multiple of ``size`` up to BLOCK_WIDTH that fits."""
    fitting = [n for n in range(1, blocks + 1) if blocks % n == 0 and n * size <= BLOCK_WIDTH]
    return size * max(fitting, default=1)


def _packed(weight: Weight, width: int) -> Weight:
    blocks, size, _ = weight.shape
    shape = (blocks * size // width, width, width)
    return weight.with_load(shape, lambda: pack_blocks(weight.load(), width))


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
