"""The ``ai.xlstm`` operators of a bundle, each alone: as written there, with its attributes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from xlstm_export.bundle.manifest import MODEL_FILE, Dims, Manifest
from xlstm_export.model.storage import Storage
from xlstm_export.ops.catalog import CATALOG, DOMAIN
from xlstm_export.ops.schema import TensorSpec, state_dtype
from xlstm_export.runtime.ort import import_onnxruntime, session_setting
from xlstm_export.runtime.session import Array


@dataclass(frozen=True)
class Operator:
    """One kind of node: operator, attributes, and the sizes its dimension letters have."""

    op_type: str
    attributes: tuple[tuple[str, int | float], ...]
    sizes: tuple[tuple[str, int], ...]


class BundleOperators:
    """Runs single operators of ``bundle`` in ONNX Runtime, computed as in ``OrtSession``."""

    def __init__(
        self,
        bundle: Path,
        manifest: Manifest,
        *,
        threads: int | None = None,
        native: bool = True,
        cuda: bool = False,
    ) -> None:
        self._ort = import_onnxruntime()
        self._setting = session_setting(self._ort, threads, native, cuda)
        self._sessions: dict[Operator, Any] = {}
        self._model = onnx.load(str(bundle / MODEL_FILE), load_external_data=False)
        self._shapes: dict[str, Dims] = {state.input: state.shape for state in manifest.states}
        self._shapes |= {info.name: _dims(info) for info in self._model.graph.value_info}
        self.dtype = manifest.dtype

    def kinds(self) -> Iterator[Operator]:
        """Every kind of node once, in graph order."""
        seen = set()
        for node in self._model.graph.node:
            if node.domain == DOMAIN and node.op_type in CATALOG:
                operator = Operator(node.op_type, self._attributes(node), self._sizes(node))
                if operator not in seen:
                    seen.add(operator)
                    yield operator

    def run(self, operator: Operator, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by name for ``inputs`` by name; bfloat16 values come back in float32."""
        if operator not in self._sessions:
            self._sessions[operator] = self._setting.open(self._ort, self._model_of(operator))
        schema = CATALOG[operator.op_type]
        kinds = {t.name: self._graph_type(t) for t in schema.inputs}
        names = [t.name for t in schema.outputs]
        feeds = {name: array.astype(kinds[name]) for name, array in inputs.items()}
        return dict(zip(names, self._sessions[operator].run(names, feeds), strict=True))

    def describe(self) -> dict[str, str]:
        """Operator -> implementation that computes it."""
        return {DOMAIN: self._setting.operators}

    def _model_of(self, operator: Operator) -> bytes:
        """One node with its body; every dimension is dynamic."""
        schema = CATALOG[operator.op_type]
        casts = {t.name for t in (*schema.inputs, *schema.outputs) if self._is_cast(t)}
        inner = {name: f"{name}/{self.dtype}" for name in casts}
        inputs, outputs = [t.name for t in schema.inputs], [t.name for t in schema.outputs]
        node = onnx.helper.make_node(
            operator.op_type, [inner.get(n, n) for n in inputs],
            [inner.get(n, n) for n in outputs], domain=DOMAIN,
        )  # fmt: skip
        node.attribute.extend(onnx.helper.make_attribute(*pair) for pair in operator.attributes)
        nodes = [
            *(_cast(n, inner[n], self.dtype) for n in inputs if n in casts),
            node,
            *(_cast(inner[n], n, "float32") for n in outputs if n in casts),
        ]
        graph = onnx.helper.make_graph(
            nodes, "operator", [self._info(t) for t in schema.inputs],
            [self._info(t) for t in schema.outputs],
        )  # fmt: skip
        model = onnx.helper.make_model(
            graph, functions=self._model.functions, opset_imports=self._model.opset_import,
            ir_version=self._model.ir_version,
        )  # fmt: skip
        return bytes(model.SerializeToString())

    def _attributes(self, node: onnx.NodeProto) -> tuple[tuple[str, int | float], ...]:
        declared = {a.name for a in CATALOG[node.op_type].attributes}
        return tuple(
            (a.name, onnx.helper.get_attribute_value(a))
            for a in node.attribute
            if a.name in declared
        )

    def _sizes(self, node: onnx.NodeProto) -> tuple[tuple[str, int], ...]:
        """Letters of the dimensions, from the states the node takes, which have their sizes."""
        sizes: dict[str, int] = {}
        for spec, name in zip(CATALOG[node.op_type].inputs, node.input, strict=True):
            for letter, size in zip(spec.dims, self._shapes.get(name, ()), strict=False):
                if isinstance(size, int) and spec.type != "lengths":
                    sizes["W" if letter == "W-1" else letter] = size + (letter == "W-1")
        return tuple(sizes.items())

    def _info(self, tensor: TensorSpec) -> onnx.ValueInfoProto:
        dims = [None] * len(tensor.dims)
        kind = element(self._graph_type(tensor))
        return onnx.helper.make_tensor_value_info(tensor.name, kind, dims)

    def _graph_type(self, tensor: TensorSpec) -> str:
        """Element type at the graph's border."""
        kinds = {"TX": self.dtype, "TS": state_dtype(self.dtype), "lengths": "int32"}
        return "float32" if self._is_cast(tensor) else kinds[tensor.type]

    def _is_cast(self, tensor: TensorSpec) -> bool:
        """ONNX Runtime's Python interface has no bfloat16: such operands pass as float32."""
        return tensor.type == "TX" and self.dtype == "bfloat16"


def _dims(info: onnx.ValueInfoProto) -> Dims:
    return tuple(d.dim_value or d.dim_param for d in info.type.tensor_type.shape.dim)


def _cast(source: str, target: str, dtype: str) -> onnx.NodeProto:
    return onnx.helper.make_node("Cast", [source], [target], to=element(dtype))


def element(dtype: str) -> int:
    """ONNX's number of the element type that numpy calls ``dtype``."""
    return int(onnx.helper.np_dtype_to_tensor_dtype(Storage(dtype).numpy))
