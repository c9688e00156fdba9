"""The graph: small, typed, complete, and the same for every length."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.model_cases import BY_ID, CASES, ONE_PER_FAMILY, VIL, Library, ModelCase
from xlstm_export.bundle.manifest import BUNDLE_DTYPES, MODEL_FILE, read_manifest
from xlstm_export.lowering.options import OPSETS
from xlstm_export.lowering.write import ALIGNMENT, EXTERNAL_FROM_BYTES
from xlstm_export.model.layers.token_embedding import TokenEmbedding
from xlstm_export.ops.catalog import CATALOG, DOMAIN, PLUGIN_ATTRIBUTES
from xlstm_export.runtime.ort import OrtSession

MOST_NODES_PER_LAYER = 60
NODES_OF_ZEROS = 9
"""Of the states of a layer that begins with them: rows, shape and value of three."""
IO_TYPES = {"float32": 1, "int64": 7, "int32": 6}

every_case = pytest.mark.parametrize("case", CASES + VIL, ids=lambda c: c.id)
one_per_family = pytest.mark.parametrize("case", ONE_PER_FAMILY, ids=lambda c: c.id)
every_dtype = pytest.mark.parametrize("dtype", BUNDLE_DTYPES)


def _graph(bundle: Path) -> onnx.ModelProto:
    return onnx.load(str(bundle / MODEL_FILE), load_external_data=False)


@every_case
@every_dtype
def test_a_layer_is_few_nodes(library: Library, case: ModelCase, dtype: str) -> None:
    model = _graph(library.bundle(case, dtype=dtype))
    layers: dict[str, int] = {}
    for node in model.graph.node:
        if node.name.startswith("/layers."):
            layer = node.name.split("/")[1]
            layers[layer] = layers.get(layer, 0) + 1
    leaves = library.checkpoint(case).spec.leaves()
    blocks = {".".join(path.split(".")[:2]) for path, layer in leaves if layer.states()}
    assert layers.keys() == blocks
    begins = library.checkpoint(case).spec.recurrence != "carried"
    assert max(layers.values()) <= MOST_NODES_PER_LAYER + NODES_OF_ZEROS * begins


@every_case
@every_dtype
def test_file_passes_the_checker_and_is_what_the_manifest_says(
    library: Library, case: ModelCase, dtype: str
) -> None:
    bundle = library.bundle(case, dtype=dtype)
    onnx.checker.check_model(str(bundle / MODEL_FILE), full_check=True)
    model, manifest = _graph(bundle), read_manifest(bundle)
    assert model.ir_version == 9
    assert {o.domain: o.version for o in model.opset_import} == {"": manifest.opset, DOMAIN: 1}
    declared = {t.name: (t.dtype, t.shape) for t in (*manifest.inputs, *manifest.outputs)}
    declared |= {s.input: (s.dtype, s.shape) for s in manifest.states}
    declared |= {s.output: (s.dtype, s.shape) for s in manifest.states}
    found = [*model.graph.input, *model.graph.output]
    assert {v.name for v in found} == set(declared)
    for value in found:
        dtype, shape = declared[value.name]
        assert value.type.tensor_type.elem_type == IO_TYPES[dtype]
        dims = tuple(d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim)
        assert dims == shape


@every_case
def test_operators_are_complete_and_in_the_main_graph(library: Library, case: ModelCase) -> None:
    model = _graph(library.bundle(case))
    nodes = [node for node in model.graph.node if node.domain == DOMAIN]
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    assert {f.name for f in model.functions} == {node.op_type for node in nodes}
    for node in nodes:
        attributes = {a.name for a in node.attribute}
        catalogue = {a.name for a in CATALOG[node.op_type].attributes}
        assert attributes == catalogue | set(PLUGIN_ATTRIBUTES)
    for function in model.functions:
        assert not [n for n in function.node if n.domain]


@one_per_family
def test_weights_are_external_and_aligned(library: Library, case: ModelCase) -> None:
    model = _graph(library.bundle(case))
    external = 0
    for tensor in model.graph.initializer:
        size = (
            int(np.prod(tensor.dims))
            * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        )
        places = {e.key: e.value for e in tensor.external_data}
        assert bool(places) == (size >= EXTERNAL_FROM_BYTES), tensor.name
        external += bool(places)
        assert int(places.get("offset", 0)) % ALIGNMENT == 0
    assert external


@pytest.mark.parametrize("name", ["stack-tied", "hf-tied"])
def test_a_tied_embedding_is_stored_once(library: Library, name: str) -> None:
    case = BY_ID[name]
    (embedding,) = library.checkpoint(case).spec.layers_of(TokenEmbedding)
    table = sorted([embedding.vocab_size, embedding.model_size])
    model = _graph(library.bundle(case))
    assert [sorted(i.dims) for i in model.graph.initializer].count(table) == 1


@every_case
@every_dtype
def test_every_value_has_a_type(
    library: Library, tmp_path: Path, case: ModelCase, dtype: str
) -> None:
    bundle = library.bundle(case, dtype=dtype)
    path = tmp_path / MODEL_FILE
    onnx.shape_inference.infer_shapes_path(str(bundle / MODEL_FILE), str(path))
    inferred = onnx.load(str(path), load_external_data=False)
    values = (*inferred.graph.value_info, *inferred.graph.output)
    typed = {v.name for v in values if v.type.tensor_type.elem_type != onnx.TensorProto.UNDEFINED}
    made = {name for node in inferred.graph.node for name in node.output}
    assert made <= typed
    for value in inferred.graph.output:
        assert value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT


@one_per_family
@pytest.mark.parametrize("ragged", [False, True], ids=["plain", "ragged"])
@pytest.mark.parametrize("opset", OPSETS)
def test_strict_shape_inference_takes_the_bundle(
    library: Library, tmp_path: Path, case: ModelCase, opset: int, ragged: bool
) -> None:
    bundle = library.bundle(case, opset=opset, ragged=ragged)
    for data_prop in (False, True):
        onnx.shape_inference.infer_shapes_path(
            str(bundle / MODEL_FILE), str(tmp_path / MODEL_FILE), False, True, data_prop
        )


@one_per_family
def test_one_graph_serves_every_batch_and_length(library: Library, case: ModelCase) -> None:
    session = OrtSession(library.bundle(case), threads=1)
    states = None
    for batch, steps in ((1, 1), (1, 130), (3, 1), (3, 7)):
        ids = np.zeros((batch, steps), np.int64)
        outputs, states = session.run({"input_ids": ids}, None)
        assert outputs["logits"].shape[:2] == (batch, steps)
    assert states is not None


@one_per_family
def test_lengths_are_an_initialiser_or_an_input(library: Library, case: ModelCase) -> None:
    plain, ragged = _graph(library.bundle(case)), _graph(library.bundle(case, ragged=True))
    assert "sequence_lengths" not in {i.name for i in plain.graph.input}
    (lengths,) = [i for i in ragged.graph.input if i.name == "sequence_lengths"]
    assert lengths.type.tensor_type.elem_type == onnx.TensorProto.INT32
    for node in ragged.graph.node:
        if node.domain == DOMAIN:
            assert node.input[-1] == "sequence_lengths"
