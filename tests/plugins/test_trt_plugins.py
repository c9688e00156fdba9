"""The TensorRT plugin objects, called as TensorRT calls them: fields, types, shapes, refusals."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.plugins.trt_library import build_host, compile_adapter, plugin_library, run_host
from xlstm_export import __version__
from xlstm_export.engine.backend import device_capability
from xlstm_export.ops.catalog import CATALOG, DOMAIN, VERSION
from xlstm_export.ops.schema import OpSchema, TensorSpec

FLOAT32, INT32 = 1, 5
"""Of nvinfer1::PluginFieldType."""
DATA_TYPES = {"float32": 0, "float16": 1, "int32": 3, "bfloat16": 7, "int64": 8}
"""Of nvinfer1::DataType."""
TX = ("float32", "float16", "bfloat16")
SIZES = {"B": 2, "T": 7, "N": 3, "K": 16, "V": 8, "H": 8, "D": 24, "W": 4}
AARCH64 = "aarch64-linux-gnu-g++"
FORMATS = {"linear": 0, "vectorised": 1}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("nvcc") is None:
        pytest.skip("no nvcc: install the CUDA toolkit, 12.4 or later")
    return build_host(tmp_path_factory.mktemp("trt-host"))


def field_hex(kind: str, value: float) -> str:
    return struct.pack("<i" if kind == "int" else "<f", value).hex()


def fields(schema: OpSchema, values: dict[str, float]) -> list[str]:
    """Fields of the host's command line, in the catalogue's order."""
    types = {"int": INT32, "float": FLOAT32}
    return [
        f"{a.name}:{types[a.kind]}:{field_hex(a.kind, values[a.name])}" for a in schema.attributes
    ]


def dims(spec: TensorSpec, **sizes: int) -> tuple[int, ...]:
    """The operand's shape at SIZES, of which ``sizes`` replaces some."""
    known = {**SIZES, "4": 4, "W-1": SIZES["W"] - 1, "B or 1": 1, **sizes}
    return tuple(known[d] for d in spec.dims)


def text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def type_of(kind: str, tx: str) -> int:
    return DATA_TYPES[{"TX": tx, "TS": "float32", "lengths": "int32"}[kind]]


def operands(
    schema: OpSchema, tx: str, changed: Mapping[str, tuple[int, ...]] | None = None, **sizes: int
) -> list[str]:
    """TYPE/DIMS of every input; ``changed`` are the shapes of some."""
    shapes = {s.name: dims(s, **sizes) for s in schema.inputs} | dict(changed or {})
    return [f"{type_of(s.type, tx)}/{text(shapes[s.name])}" for s in schema.inputs]


def workspace(host: Path, schema: OpSchema, **sizes: int) -> int:
    (line,) = run_host(host, "workspace", schema.name, *operands(schema, "float16", **sizes))
    return int(line.removeprefix("workspace "))


def test_symbols_and_needs_of_the_library(host: Path) -> None:
    """Nothing of TensorRT or CUDA is needed, and nothing else is given away."""
    library = plugin_library()
    symbols = subprocess.run(
        ["nm", "-D", "--defined-only", library], capture_output=True, text=True, check=True
    )
    names = {line.split()[-1] for line in symbols.stdout.splitlines()}
    assert names == {"getCreators", "setLoggerFinder", "xlstm_version"}
    needs = subprocess.run(["readelf", "-d", library], capture_output=True, text=True, check=True)
    assert "NEEDED" in needs.stdout
    assert not re.findall(r"\[(lib(?:nv|cu)[^\]]*)\]", needs.stdout)


def test_it_compiles_for_aarch64(tmp_path: Path) -> None:
    """Jetson: TensorRT's and CUDA's headers are the same for every host processor."""
    if shutil.which("nvcc") is None:
        pytest.skip("no nvcc: install the CUDA toolkit, 12.4 or later")
    if shutil.which(AARCH64) is None:
        pytest.skip(f"no {AARCH64}: install the Debian package g++-aarch64-linux-gnu")
    assert len(compile_adapter(AARCH64, tmp_path)) == 8


def test_creators_are_the_catalogue(host: Path) -> None:
    lines = run_host(host, "list")
    creators = [line for line in lines if line.startswith("creator ")]
    assert creators == [f"creator {name} {VERSION} {DOMAIN}" for name in CATALOG]
    types = {"int": INT32, "float": FLOAT32}
    declared = [line for line in lines if not line.startswith("creator ")]
    assert declared == [
        f"{schema.name} {a.name}:{types[a.kind]}:"
        for schema in CATALOG.values()
        for a in schema.attributes
    ]


@pytest.mark.parametrize("op", CATALOG)
@pytest.mark.parametrize("case", ["odd", "extreme", "default"])
def test_fields_survive_bit_for_bit(host: Path, op: str, case: str) -> None:
    """Create, clone, serialise, re-create, attach, serialise; each object outlives its maker."""
    schema = CATALOG[op]
    values: dict[str, float] = {}
    for a in schema.attributes:
        most = max(a.choices) if a.choices else 2**31 - 1
        odd = (a.choices[-1] if a.choices else 97) if a.kind == "int" else 0.1
        extreme = most if a.kind == "int" else 1e-45  # a denormal
        values[a.name] = {"odd": odd, "extreme": extreme, "default": a.default}[case]
    given = fields(schema, values)
    lines = run_host(host, "fields", op, *([] if case == "default" else given))
    assert [line.removeprefix("field ") for line in lines if line.startswith("field ")] == given
    assert f"core {op} {VERSION} {DOMAIN}" in lines
    (timing,) = [line for line in lines if line.startswith("timing ")]
    packed = "".join(field.rpartition(":")[2] for field in given)
    assert timing == f"timing {DOMAIN}/{op}/{__version__}/{packed}"


@pytest.mark.parametrize(
    ("op", "field", "message"),
    [
        ("XlstmMLSTM", "chunk_size:5:00000000", "chunk_size is 0, expected 1 to 2147483647"),
        ("XlstmMLSTM", "scale_side:5:02000000", "scale_side is 2, expected 0 to 1"),
        ("XlstmMLSTM", "eps:1:0000807f", "eps is not a finite number"),
        ("XlstmMLSTM", "eps:1:0000c07f", "eps is not a finite number"),
        ("XlstmMLSTM", "eps:1:000000bf", "eps is -0.5, expected at least 0"),
        ("XlstmMLSTM", "eps:5:00000000", "eps takes one FLOAT"),
        ("XlstmMLSTM", "eps:1:0000000000000000", "eps takes one FLOAT"),
        ("XlstmMLSTM", "scale_side:1:00000000", "scale_side takes one INT"),
        ("XlstmMLSTM", "scale_side:10:01000000", "scale_side takes one INT"),
        ("XlstmSLSTM", "eps:1:00000000", "has no attribute 'eps'"),
        ("XlstmCausalConv1d", "activation:5:ffffffff", "activation is -1, expected 0 to 1"),
    ],
)
def test_field_that_is_refused(host: Path, op: str, field: str, message: str) -> None:
    log, outcome = run_host(host, "create", op, "build", field)
    assert log == f"log: {DOMAIN} {op} (node): {message}" or log.startswith(
        f"log: {DOMAIN} {op} (node): {message};"
    )
    assert outcome == "plugin 0"


@pytest.mark.parametrize("op", CATALOG)
def test_an_engine_has_every_field(host: Path, op: str) -> None:
    """A missing attribute is its default in a network, and an error in an engine."""
    schema = CATALOG[op]
    given = fields(schema, {a.name: a.default for a in schema.attributes})
    assert run_host(host, "create", op, "build") == ["plugin 1"]
    assert run_host(host, "create", op, "engine", *given) == ["plugin 1"]
    for missing in schema.attributes:
        kept = [field for field in given if not field.startswith(f"{missing.name}:")]
        log, outcome = run_host(host, "create", op, "engine", *kept)
        assert log == f"log: {DOMAIN} {op} (node): the engine lacks attribute {missing.name}"
        assert outcome == "plugin 0"


@pytest.mark.parametrize("tx", TX)
@pytest.mark.parametrize("op", CATALOG)
def test_output_types(host: Path, op: str, tx: str) -> None:
    schema = CATALOG[op]
    given = [type_of(spec.type, tx) for spec in schema.inputs]
    made = " ".join(str(type_of(spec.type, tx)) for spec in schema.outputs)
    assert run_host(host, "types", op, *given) == ["status 0", f"types {made}"]


@pytest.mark.parametrize("op", CATALOG)
def test_every_other_input_type_is_refused(host: Path, op: str) -> None:
    schema = CATALOG[op]
    right = [[type_of(spec.type, tx) for spec in schema.inputs] for tx in TX]
    leading = [spec.type for spec in schema.inputs].index("TX")
    for index, spec in enumerate(schema.inputs):
        for name, wrong in DATA_TYPES.items():
            given = [*right[1][:index], wrong, *right[1][index + 1 :]]
            if given in right:
                continue
            log, status, _ = run_host(host, "types", op, *given)
            assert status == "status 1"
            # a leading operand of another good type makes the next one wrong
            named = "" if index == leading and name in TX else f"{spec.name} is {name}, expected "
            assert log.startswith(f"log: {DOMAIN} {op} (node): {named}")


@pytest.mark.parametrize("tx", TX)
@pytest.mark.parametrize("op", CATALOG)
def test_formats(host: Path, op: str, tx: str) -> None:
    """Linear only, and the one type each operand has beside the leading operand's."""
    schema = CATALOG[op]
    specs = (*schema.inputs, *schema.outputs)
    right = [type_of(spec.type, tx) for spec in specs]
    every = " ".join(["formats", *("1" for _ in specs)])
    assert run_host(host, "formats", op, *right) == [every]
    vectorised = [f"{t}/{FORMATS['vectorised']}" for t in right]
    assert run_host(host, "formats", op, *vectorised) == [every.replace("1", "0")]
    leading = [spec.type for spec in specs].index("TX")
    for index in range(len(specs)):
        for wrong in DATA_TYPES.values():
            if wrong == right[index] or (index == leading and wrong in map(DATA_TYPES.get, TX)):
                continue
            given = [*right[:index], wrong, *right[index + 1 :]]
            (line,) = run_host(host, "formats", op, *given)
            assert line.split()[1 + index] == "0", (specs[index].name, wrong)


@pytest.mark.parametrize("op", CATALOG)
def test_output_shapes(host: Path, op: str) -> None:
    schema = CATALOG[op]
    given = [text(dims(spec)) for spec in schema.inputs]
    made = [f"shape {' '.join(map(str, dims(spec)))}" for spec in schema.outputs]
    assert run_host(host, "shapes", op, *given) == ["status 0", *made]
    for index, spec in enumerate(schema.inputs):
        wrong = [*given[:index], f"{given[index]}x1", *given[index + 1 :]]
        log, status, *_ = run_host(host, "shapes", op, *wrong)
        assert f"{spec.name} has rank " in log
        assert status == "status 1"


@pytest.mark.parametrize("op", CATALOG)
def test_contradicting_shapes(host: Path, op: str) -> None:
    schema = CATALOG[op]
    good = operands(schema, "float16")
    assert run_host(host, "configure", op, *good) == ["status 0"]
    ragged = operands(schema, "float16", {"lengths": (SIZES["B"],)})
    assert run_host(host, "configure", op, *ragged) == ["status 0"]
    for spec in schema.inputs[1:]:
        wrong = {spec.name: tuple(size + 5 for size in dims(spec))}
        log, status = run_host(host, "configure", op, *operands(schema, "float16", wrong))
        assert f"log: {DOMAIN} {op} (node): {spec.name} has shape [" in log
        assert status == "status 1"


@pytest.mark.parametrize("op", CATALOG)
def test_workspace_of_the_largest_shapes_serves_all(host: Path, op: str) -> None:
    """TensorRT asks once for a profile's maximum: no smaller call may need more."""
    schema = CATALOG[op]
    largest = workspace(host, schema, B=3, T=130)
    assert largest == 0 or largest > workspace(host, schema, B=1, T=1)
    for batch in (1, 2, 3):
        for time in (1, 2, 15, 16, 17, 63, 64, 65, 127, 129, 130):
            needed = workspace(host, schema, B=batch, T=time)
            assert needed <= largest
            assert needed <= workspace(host, schema, B=batch + 1, T=time)
            assert needed <= workspace(host, schema, B=batch, T=time + 1)


@pytest.mark.parametrize("op", CATALOG)
def test_workspace_during_execution(host: Path, op: str) -> None:
    """No profile's largest shapes are named then: the call's own count."""
    schema = CATALOG[op]
    given = operands(schema, "float16", B=3, T=130)
    (line,) = run_host(host, "running", op, *given)
    assert line == f"workspace {workspace(host, schema, B=3, T=130)}"


@pytest.mark.parametrize("op", CATALOG)
def test_a_call_that_fails_is_a_status(host: Path, op: str) -> None:
    """No operand is there: the call says so, and nothing ends."""
    schema = CATALOG[op]
    change, log, status = run_host(host, "enqueue", op, *operands(schema, "bfloat16"))
    assert change == "shape change 0"
    assert log == f"log: {DOMAIN} {op} (node): an operand is missing"
    assert status == "status 1"
    empty = operands(schema, "bfloat16", B=0)  # needs no operand
    assert run_host(host, "enqueue", op, *empty) == ["shape change 0", "status 0"]


@pytest.mark.skipif(device_capability() is not None, reason="host memory is no GPU's operand")
@pytest.mark.parametrize("op", CATALOG)
def test_a_whole_call_comes_as_far_as_the_device(host: Path, op: str) -> None:
    """Sizes, operands and workspace are all in order; only then is there no device."""
    change, log, status = run_host(host, "launch", op, *operands(CATALOG[op], "float16"))
    assert change == "shape change 0"
    assert log.startswith(f"log: {DOMAIN} {op} (node): the device refused the launch: cudaError")
    assert status == "status 1"
