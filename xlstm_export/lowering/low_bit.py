"""Products with matrices in few bits, and rows of tables in few bits.

A matrix stands as standard operators (opset 21): DequantizeLinear over blocks of the inputs of
[in, out], in front of MatMul. ONNX Runtime makes ``MatMulNBits`` of the two as it loads the file
(of 4 bits from 1.20 on, of 8 bits from 1.31 on; not of [out, in] with a Transpose), and TensorRT
reads them as a matrix that stays small. Or it stands as ``com.microsoft::MatMulNBits`` itself,
packed [out, blocks, bytes], which ONNX Runtime alone knows.
"""

from __future__ import annotations

from functools import lru_cache

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from xlstm_export.bundle.low_bit import Blocks
from xlstm_export.lowering.emit import Emitter, ir_type
from xlstm_export.model.blocks import Quantised, block_count
from xlstm_export.model.storage import quantised
from xlstm_export.model.weights import Array, Weight

MICROSOFT = "com.microsoft"
_INT8_ARITHMETIC = 4
"""``accuracy_level`` of MatMulNBits: what ONNX Runtime sets where it makes the node itself."""
_TYPES = {
    (4, True): ml_dtypes.int4, (4, False): ml_dtypes.uint4,
    (8, True): np.int8, (8, False): np.uint8,
}  # fmt: skip


def matmul(g: Emitter, x: ir.Value, name: str, matrix: Weight, role: str) -> ir.Value:
    """x [..., in] times ``matrix`` [out, in], stored below ``name``: [..., out]."""
    if matrix.blocks is None:
        plain = g.weight(f"{name}.weight", matrix.with_view(lambda w: w.T))
        return g.op("MatMul", x, plain, role=role)
    if g.matmul_nbits:
        return _matmul_nbits(g, x, _packed(g, name, matrix, matrix.blocks), matrix, role)
    size = matrix.blocks.size
    operands = _by_input(g, name, matrix, matrix.blocks)
    wide = g.op("DequantizeLinear", *operands, axis=0, block_size=size, role=f"{role}/wide")
    return g.op("MatMul", x, wide, role=role)


def rows(
    g: Emitter, ids: ir.Value, name: str, table: Weight, role: str, *, is_matrix: bool
) -> ir.Value:
    """Rows ``ids`` [B,T] of ``table`` [rows, D], stored below ``name``: [B,T,D].

    ``is_matrix``: it is a head's matrix as well, and stored once, as ``matmul`` has it.
    """
    if table.blocks is None:
        return g.op("Gather", g.weight(f"{name}.weight", table), ids, axis=0, role=role)
    if not is_matrix or g.matmul_nbits:
        return _rows(g, ids, _packed(g, name, table, table.blocks), table, role)
    operands = _by_input(g, name, table, table.blocks)
    # by names of their own: ONNX Runtime makes no low-bit product of a matrix that others read too
    operands = [g.same(x, f"{x.name}.rows") for x in operands]
    columns = [g.op("Gather", x, ids, axis=1, role=role) for x in operands]  # [D or blocks, B, T]
    size = table.blocks.size
    wide = g.op("DequantizeLinear", *columns, axis=0, block_size=size, role=f"{role}/wide")
    return g.op("Transpose", wide, perm=[1, 2, 0], role=f"{role}/transpose")


def _rows(
    g: Emitter, ids: ir.Value, operands: list[ir.Value], table: Weight, role: str
) -> ir.Value:
    """(q - z) s of rows of the 8-bit table ``operands``, its last block without what is padded."""
    q, s, *z = operands
    assert table.blocks is not None
    s = g.reshape(s, -1, block_count(table.shape[1], table.blocks.size))
    numbers, scales, *zeros = (g.op("Gather", x, ids, axis=0, role=role) for x in (q, s, *z))
    kind, last = int(ir_type(table.kept)), g.ints(-1)
    middle = g.constant(128, table.kept)
    if zeros:
        middle = g.op("Unsqueeze", g.op("Cast", zeros[0], to=kind), last)
    q = g.op("Sub", g.op("Cast", numbers, to=kind), middle)
    wide = g.reshape(g.op("Mul", q, g.op("Unsqueeze", scales, last)), 0, 0, -1)
    width = table.shape[1]
    if operands[0].shape is not None and width == operands[0].shape[1] * operands[0].shape[2]:
        return wide
    return g.op("Slice", wide, g.ints(0), g.ints(width), last)


def _matmul_nbits(
    g: Emitter, x: ir.Value, operands: list[ir.Value], matrix: Weight, role: str
) -> ir.Value:
    assert matrix.blocks is not None
    out, inputs = matrix.shape
    return g.foreign(
        MICROSOFT, "MatMulNBits", [x, *operands], role=role,
        K=inputs, N=out, bits=matrix.blocks.bits, block_size=matrix.blocks.size,
        accuracy_level=_INT8_ARITHMETIC,
    )  # fmt: skip


@lru_cache(maxsize=1)
def _made(matrix: Weight) -> Quantised:
    """The matrix that was quantised last: its parts are written one after the other."""
    return quantised(matrix)


def _by_input(g: Emitter, name: str, matrix: Weight, blocks: Blocks) -> list[ir.Value]:
    """q [in, out], scales [blocks, out], and zero points where there are."""
    out, inputs = matrix.shape
    kind = np.dtype(_TYPES[blocks.bits, blocks.symmetric])
    of_blocks = (block_count(inputs, blocks.size), out)

    def turned(numbers: Array, kind: np.dtype[np.generic]) -> Array:
        return np.ascontiguousarray(numbers.T.astype(kind, copy=False))

    def zeros() -> Array:
        found = _made(matrix).zeros
        assert found is not None
        return turned(found, kind)

    scale_type = ir_type(matrix.kept)
    operands = [
        g.lazy(f"{name}.weight", kind, (inputs, out), lambda: turned(_made(matrix).numbers, kind)),
        g.lazy(
            f"{name}.scale", scale_type.numpy(), of_blocks,
            lambda: turned(_made(matrix).scales, scale_type.numpy()),
        ),
    ]  # fmt: skip
    if not blocks.symmetric:
        operands.append(g.lazy(f"{name}.zero", kind, of_blocks, zeros))
    return operands


def _packed(g: Emitter, name: str, matrix: Weight, blocks: Blocks) -> list[ir.Value]:
    """q uint8 [out, blocks, bytes of a block], scales [out * blocks], and zero points' bytes.

    The scales are as MatMulNBits takes them: reshaped, they would be no constant of the graph.
    """
    out, inputs = matrix.shape
    count = block_count(inputs, blocks.size)
    block_bytes, zero_bytes = blocks.size * blocks.bits // 8, -(-count * blocks.bits // 8)
    byte = np.dtype(np.uint8)

    def numbers() -> Array:
        made = _made(matrix)
        shift = 2 ** (blocks.bits - 1) if blocks.symmetric else 0
        padded = np.full((out, count * blocks.size), shift, np.uint8)
        # int8 + 128 wraps around to the unsigned number
        padded[:, :inputs] = made.numbers.view(np.uint8) + np.uint8(shift)
        return _bytes(padded, blocks.bits).reshape(out, count, block_bytes)

    def zeros() -> Array:
        found = _made(matrix).zeros
        assert found is not None
        return _bytes(found, blocks.bits)

    operands = [
        g.lazy(f"{name}.weight", byte, (out, count, block_bytes), numbers),
        g.lazy(
            f"{name}.scale", ir_type(matrix.kept).numpy(), (out * count,),
            lambda: np.asarray(_made(matrix).scales).ravel(),
        ),
    ]  # fmt: skip
    if not blocks.symmetric:
        operands.append(g.lazy(f"{name}.zero", byte, (out, zero_bytes), zeros))
    return operands


def _bytes(numbers: npt.NDArray[np.uint8], bits: int) -> Array:
    """uint8 [rows, n] as bytes: two numbers of 4 bits in one, the first in its low half."""
    if bits == 8:
        return numbers
    even = np.pad(numbers, ((0, 0), (0, numbers.shape[1] % 2)))
    packed: Array = even[:, 0::2] | (even[:, 1::2] << np.uint8(4))
    return packed
