"""Graphs with weights in few bits: exact for what they hold, and fused where it is promised."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import pytest

from tests.model_cases import BY_ID, Library, ModelCase
from xlstm_export.bundle.low_bit import LowBit
from xlstm_export.bundle.manifest import MODEL_FILE, Numerics, read_manifest
from xlstm_export.errors import OptionError
from xlstm_export.lowering.options import LoweringOptions, in_words, make_options, parse_size
from xlstm_export.model.numerics import rounds, with_numerics
from xlstm_export.model.storage import Storage
from xlstm_export.reference.model import ReferenceModel
from xlstm_export.runtime.ort import OrtSession
from xlstm_export.runtime.widening import exact_graph
from xlstm_export.validation.inputs import draw_rollouts

CASES = [
    BY_ID[name]
    for name in ("stack-tied", "stack-odd-sizes", "large-fused", "hf-tied", "tirex-small")
]
KINDS = [
    LowBit(bits, 16, symmetric, matmul_nbits=nbits)
    for bits in (4, 8) for symmetric in (True, False) for nbits in (False, True)
]  # fmt: skip


def named(low_bit: LowBit) -> str:
    """Test id."""
    kind = "symmetric" if low_bit.symmetric else "asymmetric"
    return f"{low_bit.bits}-{kind}{'-nbits' if low_bit.matmul_nbits else ''}"


@pytest.mark.parametrize("low_bit", KINDS, ids=named)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_graph_is_exact_for_the_weights_it_holds(
    library: Library, case: ModelCase, low_bit: LowBit
) -> None:
    """ONNX Runtime with activations that stay as they are, against float64 on the same numbers."""
    checkpoint = library.checkpoint(case)
    # a state that is rounded to bfloat16 makes large differences of small ones
    numerics: Numerics = "fp32" if rounds(checkpoint.spec) else "faithful"
    spec, weights = with_numerics(checkpoint.spec, numerics), checkpoint.weights
    bundle = library.bundle(case, LoweringOptions(opset=21, low_bit=low_bit, numerics=numerics))
    changed = exact_graph(bundle / MODEL_FILE, low_bit)
    graphs = {} if changed is None else {MODEL_FILE: changed}
    feeds = draw_rollouts(spec, 2, seed=1)[0][0]
    storage = Storage.of_bundle(read_manifest(bundle), {})
    exact = ReferenceModel(spec, weights, storage).run(feeds)[0]
    got = OrtSession(bundle, graphs=graphs, wide=True).run(feeds)[0]
    as_it_runs = OrtSession(bundle).run(feeds)[0]
    plain = ReferenceModel(spec, weights).run(feeds)[0]
    for name, wanted in exact.items():
        assert distance(got[name], wanted) < 5e-5
        assert distance(as_it_runs[name], wanted) < 0.3
        assert distance(plain[name], wanted) > 1e-4, "nothing was rounded"


def distance(got: np.ndarray, wanted: np.ndarray) -> float:
    """Root mean square of the difference, in units of that of ``wanted``."""
    return float(np.sqrt(np.square(got - wanted).mean() / np.square(wanted).mean()))


def nodes(graph: bytes | Path) -> list[str]:
    model = onnx.load(str(graph), load_external_data=False)
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize("low_bit", KINDS[:4], ids=named)
def test_onnxruntime_multiplies_in_few_bits(
    library: Library, tmp_path: Path, low_bit: LowBit
) -> None:
    """Every projection of the model, by one operator: none is widened in a call."""
    import onnxruntime as ort

    case = BY_ID["large-single"]
    bundle = library.bundle(case, LoweringOptions(opset=21, low_bit=low_bit))
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    ort.InferenceSession(str(bundle / MODEL_FILE), options)
    found, written = nodes(tmp_path / "optimised.onnx"), nodes(bundle / MODEL_FILE)
    products = written.count("MatMulNBits") + written.count("DequantizeLinear")
    layers = sum(name.endswith(".down.weight") for name in library.checkpoint(case).weights)
    assert products == 4 * layers + 1  # q k v o, out, gate up, down; and the head
    assert found.count("MatMulNBits") == products
    assert "DequantizeLinear" not in found


def test_a_tied_table_is_stored_once(library: Library) -> None:
    """Under two names, for its rows and as a matrix, at one place of the data."""
    for low_bit in KINDS:
        bundle = library.bundle(BY_ID["stack-tied"], LoweringOptions(opset=21, low_bit=low_bit))
        model = onnx.load(str(bundle / MODEL_FILE), load_external_data=False)
        large = {t.name: t for t in model.graph.initializer if "embedding" in t.name}
        parts = ["weight", "scale"] if low_bit.symmetric else ["weight", "scale", "zero"]
        twice = not low_bit.matmul_nbits  # which names its own product
        names = [f"embedding.{part}" for part in parts]
        assert sorted(large) == sorted([*names, *(f"{n}.rows" for n in names if twice)])
        for name in names if twice else ():
            again = onnx.TensorProto()
            again.CopyFrom(large[f"{name}.rows"])
            again.name = name
            assert again == large[name]


@pytest.mark.parametrize("bits", [4, 8])
def test_onnx_runtime_makes_a_low_bit_product_of_a_tied_table(
    library: Library, tmp_path: Path, bits: Literal[4, 8]
) -> None:
    import onnxruntime as ort

    low_bit = LowBit(bits, 32)
    bundle = library.bundle(BY_ID["hf-tied"], LoweringOptions(opset=21, low_bit=low_bit))
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    ort.InferenceSession(str(bundle / MODEL_FILE), options)
    left = [
        node.name
        for node in onnx.load(str(tmp_path / "optimised.onnx"), load_external_data=False).graph.node
        if node.op_type == "DequantizeLinear"
    ]
    assert left == ["/embedding/wide"]  # of the rows that are looked up


def test_what_is_kept_wide_is_multiplied_by_itself(library: Library) -> None:
    """One projection of several that share an input: the others stay joined around it."""
    case = BY_ID["large-single"]
    names = [n for n in library.checkpoint(case).weights if n.endswith("mlstm.k.weight")]
    low_bit = LowBit(8, 32, wide=tuple(names))
    bundle = library.bundle(case, LoweringOptions(opset=21, low_bit=low_bit))
    model = onnx.load(str(bundle / MODEL_FILE), load_external_data=False)
    first = "/layers.0/mlstm/"
    found = {
        t.name.removeprefix(first): t.data_type
        for t in model.graph.initializer
        if t.name.startswith(first) and t.name.endswith(".weight")
    }
    wide, narrow = onnx.TensorProto.FLOAT, onnx.TensorProto.INT8
    assert found == {
        "q.weight": narrow, "k.weight": wide, "v_output_gate.weight": narrow,
        "gates.weight": wide, "head_norm.weight": wide, "out.weight": narrow,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"weight_format": "int3"}, "int3 is not one of int8, int4"),
        ({"weight_format": "int4", "block_size": 48}, "48 is no power of two of 16"),
        ({"weight_format": "int4", "block_size": 512}, "512 is no power of two"),
        ({"weight_format": "int4", "opset": 20}, "20 has no weights in blocks"),
        ({"block_size": 32}, "is for weights in few bits; give weight_format"),
        ({"symmetric": False}, "is for weights in few bits"),
        ({"keep_wide": ["head.*"]}, "is for weights in few bits"),
        ({"matmul_nbits": True}, "is for weights in few bits"),
        ({"weight_format": "int4", "max_kl": 0.1}, "is measured on real input; give calibrate"),
        ({"weight_format": "int4", "target_size": 9}, "is measured on real input; give calibrate"),
        ({"weight_format": "int4", "calibrate": "x", "max_kl": 0.0}, "0.0 is not above 0"),
        ({"weight_format": "int4", "calibrate": "x", "target_size": "9 elks"}, "is no size such"),
    ],
)
def test_options_that_cannot_be(given: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        make_options(**given)  # type: ignore[arg-type]
    assert caught.value.option == list(given)[-1]
    assert make_options().opset == 18
    assert make_options(weight_format="int4").opset == 21


@pytest.mark.parametrize(
    ("words", "size"),
    [(4096, 4096), ("4096", 4096), ("1.5 GiB", 3 << 29), ("300MB", 300_000_000), ("2kb", 2000),
     ("8G", 8 * 10**9), ("2TiB", 2**41)],
)  # fmt: skip
def test_sizes_in_words(words: int | str, size: int) -> None:
    assert parse_size(words) == size
    assert parse_size(in_words(size).replace("bytes", "b")) == pytest.approx(size, rel=0.01)
