"""A small typed layer over onnx_ir: nodes with readable names, weights that stay unread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from xlstm_export.errors import CheckpointError, UnsupportedModelError
from xlstm_export.model.weights import Array, Weight
from xlstm_export.ops.catalog import CATALOG, DOMAIN, PLUGIN_ATTRIBUTES

IR_TYPES = {
    "float32": ir.DataType.FLOAT,
    "float16": ir.DataType.FLOAT16,
    "bfloat16": ir.DataType.BFLOAT16,
    "float64": ir.DataType.DOUBLE,
    "int64": ir.DataType.INT64,
    "int32": ir.DataType.INT32,
}


class Emitter:
    """Collects the nodes, weights, inputs and outputs of one graph.

    ``dtype`` is the activation type of the bundle; ``scope`` prefixes node names.
    """

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype
        self.scope = ""
        self.inputs: list[ir.Value] = []
        self.outputs: list[ir.Value] = []
        self.initializers: dict[str, ir.Value] = {}
        self._tape = ir.tape.Tape()
        self._uses: dict[str, int] = {}

    @property
    def nodes(self) -> Sequence[ir.Node]:
        """Nodes in the order they were emitted, which is a topological one."""
        return self._tape.nodes

    def op(self, op_type: str, *inputs: ir.Value, role: str = "", **attributes: Any) -> ir.Value:
        """One standard node with one output, named ``{scope}/{role or op_type}``."""
        return self.ops(op_type, *inputs, outputs=1, role=role, **attributes)[0]

    def ops(
        self, op_type: str, *inputs: ir.Value, outputs: int, role: str = "", **attributes: Any
    ) -> Sequence[ir.Value]:
        """One standard node with several outputs."""
        values = self._tape.op_multi_out(
            op_type, inputs, attributes, num_outputs=outputs, name=self._name(role or op_type)
        )
        return self._named(values)

    def custom(
        self, op_type: str, inputs: Sequence[ir.Value], **attributes: int | float
    ) -> Sequence[ir.Value]:
        """One ``ai.xlstm`` node; every attribute is written on it, defaults included."""
        schema = CATALOG[op_type]
        written = {**schema.complete_attributes(attributes), **PLUGIN_ATTRIBUTES}
        values = self._tape.op_multi_out(
            op_type, inputs, written, domain=DOMAIN, num_outputs=len(schema.outputs),
            name=self._name(op_type),
        )  # fmt: skip
        return self._named(values)

    def input(self, name: str, dtype: str, shape: Sequence[int | str]) -> ir.Value:
        """A graph input."""
        value = ir.Value(name=name, type=ir.TensorType(IR_TYPES[dtype]), shape=ir.Shape(shape))
        self.inputs.append(value)
        return value

    def output(self, value: ir.Value, name: str, dtype: str, shape: Sequence[int | str]) -> None:
        """Make ``value`` the graph output ``name``."""
        value = self.op("Identity", value, role=name) if value in self.outputs else value
        value.name = name
        value.type = ir.TensorType(IR_TYPES[dtype])
        value.shape = ir.Shape(shape)
        self.outputs.append(value)

    def weight(self, name: str, weight: Weight, dtype: str | None = None) -> ir.Value:
        """An initialiser whose numbers are read and rounded to ``dtype`` when it is written."""
        if name not in self.initializers:
            kind = IR_TYPES[dtype or self.dtype]
            shape = ir.Shape(weight.shape)
            tensor = ir.LazyTensor(
                lambda: ir.Tensor(rounded(weight, kind.numpy()), name=name),
                dtype=kind, shape=shape, name=name,
            )  # fmt: skip
            self.initializers[name] = ir.Value(
                name=name, type=ir.TensorType(kind), shape=shape, const_value=tensor
            )
        return self.initializers[name]

    def constant(self, value: Any, dtype: str) -> ir.Value:
        """A small constant, shared between equal uses."""
        array = np.asarray(value, IR_TYPES[dtype].numpy())
        flat = "_".join(str(x) for x in array.ravel().tolist())
        name = f"const_{dtype}_{'x'.join(map(str, array.shape)) or 'scalar'}_{flat}"
        return self.array(name, array)

    def array(self, name: str, array: Array) -> ir.Value:
        """An initialiser from numbers at hand."""
        if name not in self.initializers:
            tensor = ir.Tensor(array, name=name)
            self.initializers[name] = ir.Value(
                name=name, type=ir.TensorType(tensor.dtype), shape=tensor.shape, const_value=tensor
            )
        return self.initializers[name]

    def ints(self, *values: int) -> ir.Value:
        """A 1-D int64 constant: shapes, axes, sizes."""
        return self.constant(values, "int64")

    def cast(self, x: ir.Value, dtype: str) -> ir.Value:
        """``x`` as ``dtype``; no node in a float32 bundle, where everything is float32."""
        if self.dtype == "float32":
            return x
        return self.op("Cast", x, to=int(IR_TYPES[dtype]), role=f"to_{dtype}")

    def reshape(self, x: ir.Value, *shape: int) -> ir.Value:
        """Reshape; 0 keeps a dimension, -1 is what remains."""
        return self.op("Reshape", x, self.ints(*shape))

    def split(self, x: ir.Value, sizes: Sequence[int]) -> Sequence[ir.Value]:
        """Parts of the last axis."""
        if len(sizes) == 1:
            return [x]
        return self.ops("Split", x, self.ints(*sizes), outputs=len(sizes), axis=-1)

    def _name(self, role: str) -> str:
        return f"{self.scope}/{role}"

    def _named(self, values: Sequence[ir.Value]) -> Sequence[ir.Value]:
        node = values[0].producer()
        assert node is not None
        node.name = self._unique(node.name or node.op_type)
        for index, value in enumerate(values):
            value.name = f"{node.name}.{index}" if len(values) > 1 else node.name
        return values

    def _unique(self, name: str) -> str:
        count = self._uses.get(name, 0)
        self._uses[name] = count + 1
        return f"{name}_{count}" if count else name


def rounded(weight: Weight, dtype: np.dtype[Any]) -> Array:
    """The numbers of ``weight`` as ``dtype``.

    Raises CheckpointError when one is not finite, UnsupportedModelError when one does not fit.
    """
    numbers = weight.load()
    if not np.isfinite(numbers).all():
        raise CheckpointError(
            f"tensor {', '.join(weight.sources)} holds NaN or infinite numbers; "
            "the checkpoint is damaged or the training diverged"
        )
    if numbers.dtype == dtype:
        return np.ascontiguousarray(numbers)
    with np.errstate(over="ignore"):
        cast = numbers.astype(dtype, order="C")
    if not np.isfinite(cast).all():
        is_half = dtype == np.float16
        cure = " (largest 65504); export with --dtype bf16 or fp32" if is_half else ""
        raise UnsupportedModelError(
            f"tensor {', '.join(weight.sources)} exceeds {dtype.name}{cure}"
        )
    return cast
