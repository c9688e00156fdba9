"""A small typed layer over onnx_ir: nodes with readable names, weights that stay unread."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx_ir as ir

from xlstm_export.model.storage import Storage
from xlstm_export.model.weights import Array, Weight
from xlstm_export.ops.catalog import CATALOG, DOMAIN, PLUGIN_ATTRIBUTES


def ir_type(name: str) -> ir.DataType:
    """The element type that numpy calls ``name``."""
    return ir.DataType.from_numpy(Storage(name).numpy)


def scope_of(path: str) -> str:
    """How nodes of the layer at ``path`` are named: layers.0.mlstm is /layers.0/mlstm."""
    return re.sub(r"^|\.(?!\d)", "/", path) if path else ""


class Emitter:
    """Collects the nodes, weights, inputs and outputs of one graph.

    ``dtype`` is the activation type of the bundle; ``scope`` prefixes node names.
    ``matmul_nbits``: products in few bits are one operator of ONNX Runtime.
    """

    def __init__(self, dtype: str, *, matmul_nbits: bool = False) -> None:
        self.dtype = dtype
        self.matmul_nbits = matmul_nbits
        self.scope = ""
        self.inputs: list[ir.Value] = []
        self.outputs: list[ir.Value] = []
        self.initializers: dict[str, ir.Value] = {}
        self._tape = ir.tape.Tape()
        self._uses: dict[str, int] = {}
        self.float32_values: set[ir.Value] = set()
        self.results: dict[str, list[ir.Value]] = {}
        """What each layer computes, by its ``result_name``; of one that is emitted twice, both."""

    @property
    def nodes(self) -> Sequence[ir.Node]:
        """Nodes in the order they were emitted, which is a topological one."""
        return self._tape.nodes

    @contextmanager
    def within(self, scope: str) -> Iterator[None]:
        """Name nodes below ``scope`` in the block."""
        before, self.scope = self.scope, scope
        yield
        self.scope = before

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

    def foreign(
        self, domain: str, op_type: str, inputs: Sequence[ir.Value], role: str, **attributes: int
    ) -> ir.Value:
        """One node with one output of an operator set that a runtime adds."""
        values = self._tape.op_multi_out(
            op_type, inputs, attributes, domain=domain, num_outputs=1, name=self._name(role)
        )
        return self._named(values)[0]

    def input(self, name: str, dtype: str, shape: Sequence[int | str]) -> ir.Value:
        """A graph input."""
        value = ir.Value(name=name, type=ir.TensorType(ir_type(dtype)), shape=ir.Shape(shape))
        self.inputs.append(value)
        return value

    def output(self, value: ir.Value, name: str, dtype: str, shape: Sequence[int | str]) -> None:
        """Make ``value`` the graph output ``name``."""
        is_taken = value in self.outputs or value in self.inputs
        value = self.op("Identity", value, role=name) if is_taken else value
        value.name = name
        value.type = ir.TensorType(ir_type(dtype))
        value.shape = ir.Shape(shape)
        self.outputs.append(value)

    def weight(self, name: str, weight: Weight) -> ir.Value:
        """An initialiser whose numbers are read and rounded when it is written."""
        storage = Storage(weight.kept)
        return self.lazy(name, storage.numpy, weight.shape, lambda: storage.encode(weight))

    def lazy(
        self, name: str, dtype: np.dtype[Any], sizes: Sequence[int], load: Callable[[], Array]
    ) -> ir.Value:
        """An initialiser that ``load`` yields when it is written."""
        if name not in self.initializers:
            kind, shape = ir.DataType.from_numpy(dtype), ir.Shape(sizes)
            tensor = ir.LazyTensor(
                lambda: ir.Tensor(load(), name=name), dtype=kind, shape=shape, name=name
            )
            self.initializers[name] = ir.Value(
                name=name, type=ir.TensorType(kind), shape=shape, const_value=tensor
            )
        return self.initializers[name]

    def same(self, value: ir.Value, name: str) -> ir.Value:
        """The initialiser ``value`` by another name: the data is written once."""
        if name not in self.initializers:
            self.initializers[name] = ir.Value(
                name=name, type=value.type, shape=value.shape, const_value=value.const_value
            )
        return self.initializers[name]

    def constant(self, value: Any, dtype: str) -> ir.Value:
        """A small constant, shared between equal uses."""
        array = np.asarray(value, ir_type(dtype).numpy())
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
        is_float32 = x in self.float32_values
        if self.dtype == "float32" or (dtype == "float32" and is_float32):
            return x
        return self.op("Cast", x, to=int(ir_type(dtype)), role=f"to_{dtype}")

    def is_float32(self, x: ir.Value) -> ir.Value:
        """``x``, which is float32 in every bundle: casting it to float32 takes no node."""
        self.float32_values.add(x)
        return x

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
