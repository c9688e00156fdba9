"""What the custom-op library refuses, in which words, and the shapes it tells ONNX Runtime."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper

from tests.cases import Inputs, OpCase, make_inputs
from tests.ops.op_models import run_session
from tests.plugins.ort_library import (
    PACKED,
    THREADS_KEY,
    kernel_model,
    library,
    make_session,
    run_kernel,
    session_of,
)
from xlstm_export.ops.catalog import CATALOG
from xlstm_export.ops.schema import TensorSpec

OTHERS = [d for d in os.environ.get("XLSTM_ORT_DIRS", "").split(os.pathsep) if d]

SMALL = {
    "XlstmMLSTM": OpCase("XlstmMLSTM", (("B", 2), ("T", 7), ("N", 3), ("K", 5), ("V", 4))),
    "XlstmSLSTM": OpCase("XlstmSLSTM", (("B", 2), ("T", 7), ("N", 3), ("H", 5))),
    "XlstmCausalConv1d": OpCase("XlstmCausalConv1d", (("B", 2), ("T", 7), ("D", 6), ("W", 3))),
}
every_op = pytest.mark.parametrize("op", list(CATALOG))


def resized(inputs: Inputs, name: str, shape: tuple[int, ...]) -> Inputs:
    return {**inputs, name: np.resize(inputs[name], shape)}


def assert_still_right(case: OpCase, session: ort.InferenceSession) -> None:
    """A refused call leaves nothing behind."""
    inputs = make_inputs(case)
    got, wanted = (
        run_session(session, case.op, inputs, "float32"),
        run_kernel(case, inputs, "float32"),
    )
    assert all(got[name].tobytes() == wanted[name].tobytes() for name in wanted)


# --- a run -------------------------------------------------------------------------------------


def letter(dim: str) -> str:
    return "W" if dim == "W-1" else dim


def wrong_dimensions() -> Iterator[tuple[str, str, int, str]]:
    """(op, operand, dimension, operand at fault): the first operand with a letter fixes it."""
    for op, schema in CATALOG.items():
        for spec in schema.inputs:
            for place, dim in enumerate(spec.dims if spec.type != "lengths" else ()):
                users = [s.name for s in schema.inputs if letter(dim) in map(letter, s.dims)]
                if not dim.isdigit() and len(users) > 1:
                    yield op, spec.name, place, users[1] if users[0] == spec.name else spec.name
                elif dim.isdigit():
                    yield op, spec.name, place, spec.name


@pytest.mark.parametrize(("op", "name", "place", "at_fault"), wrong_dimensions())
def test_contradicting_sizes(op: str, name: str, place: int, at_fault: str) -> None:
    case, inputs = SMALL[op], make_inputs(SMALL[op])
    shape = list(inputs[name].shape)
    shape[place] += 1
    words = rf"{op}: {at_fault} has shape \[[0-9, ]+\], expected \[.*\d.*\]"
    with pytest.raises(Exception, match=words):
        run_kernel(case, resized(inputs, name, tuple(shape)), "float32")
    assert_still_right(case, session_of(case, "float32"))


OPERANDS = [(op, spec.name) for op, schema in CATALOG.items() for spec in schema.inputs]


@pytest.mark.parametrize(("op", "name"), OPERANDS)
def test_wrong_rank(op: str, name: str) -> None:
    case, inputs = SMALL[op], make_inputs(SMALL[op])
    session = make_session(ranks_unknown(kernel_model(case, "float32")))
    shapes = [(1, *inputs[name].shape), (1,) * 8]
    if name != "lengths":  # numpy makes a vector of a scalar
        shapes.append(inputs[name].shape[1:])
    for shape in shapes:
        with pytest.raises(Exception, match=rf"{op}: {name} has shape \[.*\], expected \["):
            run_session(session, op, resized(inputs, name, shape), "float32")
    assert_still_right(case, session)


def ranks_unknown(model: onnx.ModelProto) -> onnx.ModelProto:
    for info in [*model.graph.input, *model.graph.output]:
        info.type.tensor_type.ClearField("shape")
    return model


@every_op
def test_wrong_number_of_lengths(op: str) -> None:
    inputs = {**make_inputs(SMALL[op]), "lengths": np.array([1, 2, 3], np.int32)}
    words = rf"{op}: lengths has shape \[3\], expected \[B=2\] or \[1\]"
    with pytest.raises(Exception, match=words):
        run_kernel(SMALL[op], inputs, "float32")


@every_op
def test_no_steps(op: str) -> None:
    case, inputs = SMALL[op], make_inputs(SMALL[op])
    empty = {
        s.name: inputs[s.name][:, :0] if "T" in s.dims else inputs[s.name]
        for s in CATALOG[op].inputs
    }
    with pytest.raises(Exception, match=f"{op}: a size is out of range.*T=0"):
        run_kernel(case, empty, "float32")


# --- a session ---------------------------------------------------------------------------------

ATTRIBUTES = [(op, a.name) for op, schema in CATALOG.items() for a in schema.attributes]


def with_attribute(op: str, name: str, value: float | str | None) -> onnx.ModelProto:
    model = kernel_model(SMALL[op], "float32")
    node = model.graph.node[0]
    kept = [a for a in node.attribute if a.name != name]
    del node.attribute[:]
    node.attribute.extend(kept)
    if value is not None:
        node.attribute.append(helper.make_attribute(name, value))
    return model


@pytest.mark.parametrize(("op", "name"), ATTRIBUTES)
def test_attribute_missing_or_of_another_kind(op: str, name: str) -> None:
    is_float = isinstance(CATALOG[op].complete_attributes({})[name], float)
    for value in (None, 1 if is_float else 1.0, "1"):
        with pytest.raises(Exception, match=f"{op}: attribute {name} is missing"):
            make_session(with_attribute(op, name, value))


@pytest.mark.parametrize(("op", "name"), ATTRIBUTES)
def test_attribute_out_of_range(op: str, name: str) -> None:
    attribute = next(a for a in CATALOG[op].attributes if a.name == name)
    values: tuple[float, ...] = (float("nan"), float("inf"), -float("inf"), -0.5)
    if attribute.kind == "int":
        values = (-1, 2, 2**31, -(2**31), 2**63 - 1, -(2**63), 2**32)
        values = tuple(v for v in values if name != "chunk_size" or v != 2)
    for value in values:
        with pytest.raises(
            Exception, match=f"{op}: attribute {name} is (not a finite|-?[.\\d]+, exp)"
        ):
            make_session(with_attribute(op, name, value))


@pytest.mark.parametrize("op", list(PACKED))
def test_constant_of_a_wrong_shape(op: str) -> None:
    name, constant = PACKED[op], make_inputs(SMALL[op])[PACKED[op]]
    for shape in ((1, *constant.shape), constant.shape[1:]):
        model = kernel_model(SMALL[op], "float32", constants={name: np.resize(constant, shape)})
        with pytest.raises(Exception, match=f"{name} has shape"):
            make_session(model)
    empty = np.zeros((0, *constant.shape[1:]))
    model = kernel_model(SMALL[op], "float32", constants={name: empty})
    with pytest.raises(Exception, match=f"{name}.*a size is out of range"):
        make_session(model)


@pytest.mark.parametrize(("op", "name"), OPERANDS)
def test_contradicting_static_shapes(op: str, name: str) -> None:
    model = kernel_model(SMALL[op], "float32", fixed=True)
    del model.graph.initializer[:]
    model.graph.input.append(helper.make_tensor_value_info("lengths", 6, [1]))
    info = next(i for i in model.graph.input if i.name == name)
    info.type.tensor_type.shape.dim.add().dim_value = 3
    with pytest.raises(Exception, match=f"{op}: {name} has shape"):
        make_session(model)
    if name != "lengths":
        del info.type.tensor_type.shape.dim[-1]
        info.type.tensor_type.shape.dim[-1].dim_value += 1
        with pytest.raises(Exception, match=rf"{op}: \w+ has shape \["):
            make_session(model)


@every_op
def test_absent_operands(op: str) -> None:
    for index in range(len(CATALOG[op].inputs)):
        model = kernel_model(SMALL[op], "float32")
        model.graph.node[0].input[index] = ""
        with pytest.raises(Exception, match=r"(?i)input"):
            make_session(model)
    model = kernel_model(SMALL[op], "float32")
    del model.graph.node[0].input[-1]
    with pytest.raises(Exception, match=op):
        make_session(model)


@every_op
def test_absent_outputs(op: str) -> None:
    for index in range(len(CATALOG[op].outputs)):
        model = kernel_model(SMALL[op], "float32")
        model.graph.node[0].output[index] = ""
        del model.graph.output[index]
        with pytest.raises(Exception, match=f"output {index} is marked single"):
            make_session(model)


@every_op
def test_mixed_types(op: str) -> None:
    model = kernel_model(SMALL[op], "float32")
    model.graph.input[1].type.tensor_type.elem_type = 10
    with pytest.raises(Exception, match=r"(?i)type"):
        make_session(model)


# --- shapes ------------------------------------------------------------------------------------


def with_shapes(op: str, shape_of: dict[str, int | str | None]) -> onnx.ModelProto:
    """``kernel_model`` whose inputs have these dimensions; outputs without shape."""
    model = kernel_model(SMALL[op], "float32")
    for info, spec in zip(model.graph.input, CATALOG[op].inputs, strict=True):
        elem = info.type.tensor_type.elem_type
        dims = [shape_of.get(d, int(d) if d.isdigit() else None) for d in spec.dims]
        info.CopyFrom(helper.make_tensor_value_info(spec.name, elem, dims))
    for info in model.graph.output:
        info.type.tensor_type.ClearField("shape")
    return model


def shown_shapes(model: onnx.ModelProto) -> dict[str, list[int | str | None]]:
    return {o.name: list(o.shape) for o in make_session(model).get_outputs()}


def wanted_shape(spec: TensorSpec, shape_of: dict[str, int | str]) -> list[int | str]:
    return [int(d) if d.isdigit() else shape_of[d] for d in spec.dims]


@every_op
def test_known_sizes_reach_the_outputs(op: str) -> None:
    sizes: dict[str, int | str | None] = dict(SMALL[op].size)
    if "W" in sizes:
        sizes["W-1"] = SMALL[op].size["W"] - 1
    for given in (sizes, {**sizes, "B": "batch", "T": "sequence"}):
        shapes = shown_shapes(with_shapes(op, given))
        for spec in CATALOG[op].outputs:
            assert shapes[spec.name] == wanted_shape(spec, given)


@every_op
def test_unknown_sizes_have_names_of_their_own(op: str) -> None:
    model = with_shapes(op, {})
    first, second = shown_shapes(model), shown_shapes(model)
    for spec in CATALOG[op].outputs:
        dims = first[spec.name]
        assert len(dims) == len(spec.dims)
        assert all(isinstance(d, str) and d for d in dims)
        assert not set(dims) & set(second[spec.name]), "another node's unknown size is not this one"


@every_op
def test_unknown_rank_is_no_contradiction(op: str) -> None:
    model = ranks_unknown(kernel_model(SMALL[op], "float32"))
    assert_still_right(SMALL[op], make_session(model))


# --- the library -------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["0", "-1", "two", "2x", "", "1025", "99999999999999999999"])
def test_number_of_threads_is_checked(text: str) -> None:
    with pytest.raises(Exception, match=re.escape(THREADS_KEY)):
        make_session(kernel_model(SMALL["XlstmMLSTM"], "float32"), parts=text)


def test_unknown_instruction_set_is_refused() -> None:
    script = (
        "from tests.plugins.test_ort_errors import *\n"
        "make_session(kernel_model(SMALL['XlstmMLSTM'], 'float32'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "XLSTM_CPU_ISA": "abacus", "PYTHONPATH": _python_path()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "XLSTM_CPU_ISA" in done.stderr


def test_only_the_entry_points_are_exported() -> None:
    nm = ["nm", "-D", "--defined-only", str(library())]
    lines = subprocess.run(nm, capture_output=True, text=True, check=True).stdout.splitlines()
    names = {line.split()[-1] for line in lines}
    assert names == {"RegisterCustomOps", "xlstm_version", "xlstm_cpu_isa"}


class ApiBase(ctypes.Structure):
    """``OrtApiBase`` of onnxruntime_c_api.h."""

    _fields_ = (
        ("GetApi", ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_uint32)),
        ("GetVersionString", ctypes.CFUNCTYPE(ctypes.c_size_t)),
    )


@pytest.mark.parametrize("newest", [17, 1, 0])
def test_too_old_a_runtime_is_refused(newest: int) -> None:
    """An ONNX Runtime whose newest API is ``newest``; 0 has none, which no real one has."""
    messages = []
    create_status = ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_int, ctypes.c_char_p)

    @create_status
    def record(code: int, message: bytes) -> int:
        messages.append((code, message.decode()))
        return 4711

    api = (ctypes.c_void_p * 1)(ctypes.cast(record, ctypes.c_void_p))  # CreateStatus comes first
    asked = []

    def get_api(version: int) -> int:
        asked.append(version)
        return ctypes.addressof(api) if 1 <= version <= newest else 0

    base = ApiBase()
    base.GetApi = ApiBase._fields_[0][1](get_api)
    name = ctypes.create_string_buffer(b"1.17.3")
    base.GetVersionString = ApiBase._fields_[1][1](lambda: ctypes.addressof(name))
    register = ctypes.CDLL(str(library())).RegisterCustomOps
    register.restype = ctypes.c_void_p
    status = register(None, ctypes.byref(base))
    assert status, "success: the function body would run silently"
    assert asked[0] == 18
    if newest:
        assert status == 4711
        (code, message), *more = messages
        assert not more
        assert code != 0
        assert message == "xlstm: needs ONNX Runtime 1.18 or later, this is 1.17.3"


@pytest.mark.parametrize("runtime", OTHERS, ids=lambda r: Path(r).name)
def test_all_this_in_another_runtime(runtime: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    path = os.pathsep.join([runtime, _python_path()])
    version = "import onnxruntime; print(onnxruntime.__version__)"
    environment = {**os.environ, "PYTHONPATH": path, "XLSTM_ORT_DIRS": ""}
    found = subprocess.run(
        [sys.executable, "-c", version], env=environment, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() in runtime, "another runtime than asked for runs"
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def _python_path() -> str:
    return str(Path(__file__).parents[2])
