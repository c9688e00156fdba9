"""libxlstm_ort_cuda's way to the kernels, without a GPU: over their own source on the emulator.

Built so that its operators are the CPU provider's; on a GPU, tests/gpu/test_ort_on_gpu.py does it.
"""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

import onnxruntime as ort
import pytest

from tests.cases import OP_CASES, OpCase, make_inputs
from tests.cuda.on_cpu import build, needs_compiler, run_cuda
from tests.model_cases import BY_ID
from tests.ops.op_models import assert_within_rule, run_session
from tests.plugins.native_builds import ROOT, build_target
from tests.plugins.ort_library import kernel_model
from tests.runtime.conformance import bound, conform
from xlstm_export import __version__
from xlstm_export.ops.catalog import CATALOG
from xlstm_export.ops.schema import TX_DTYPES

pytestmark = needs_compiler

HEADERS = ROOT / "build" / "onnxruntime-headers"
OP_TYPES = list(CATALOG)


@cache
def library() -> Path:
    """The library over the emulator, in the emulator's folder."""
    plugins, folder = ROOT / "plugins", build()
    script = plugins / "fetch_onnxruntime_headers.sh"
    subprocess.run(["sh", str(script), str(HEADERS)], check=True, capture_output=True)
    kernels = build_target("ort-cuda", "xlstm_kernels", {}) / "plugins" / "kernels"
    target = folder / "libxlstm_ort_cuda.so"
    command = ["g++", "-std=c++17", "-O1", "-shared", "-fPIC", "-fvisibility=hidden", "-Wall",
               "-Wextra", "-Werror", "-DXLSTM_ORT_CUDA", "-DXLSTM_ORT_EMULATED",
               f'-DXLSTM_VERSION="{__version__}"', f"-I{plugins / 'kernels' / 'include'}",
               f"-I{folder / 'generated'}", f"-I{plugins / 'capi'}", "-isystem", HEADERS,
               *sorted((plugins / "ort").glob("*.cpp")), plugins / "capi" / "about.cpp",
               folder / "libxlstm_cuda_on_cpu.so", *kernels.rglob("libxlstm_kernels.a"),
               f"-Wl,-rpath,{folder}", "-o", target]  # fmt: skip
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return target


@cache
def session_of(op: str, attributes: tuple[tuple[str, int | float], ...], tx: str) -> object:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.register_custom_ops_library(str(library()))
    model = kernel_model(OpCase(op, (), attributes), tx).SerializeToString()
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("tx", TX_DTYPES)
@pytest.mark.parametrize("case", [c for c in OP_CASES if c.size["T"] < 200], ids=str)
def test_the_node_gives_the_kernels_numbers(case: OpCase, tx: str) -> None:
    inputs = make_inputs(case, tx)
    got = run_session(session_of(case.op, case.attributes, tx), case.op, inputs, tx)
    assert_within_rule(case, inputs, tx, got)
    for name, value in run_cuda(case, inputs, tx, shift=0).items():
        assert got[name].tobytes() == value.tobytes(), name


@pytest.mark.parametrize("op", OP_TYPES)
def test_an_empty_batch_runs_nothing(op: str) -> None:
    case = next(case for case in OP_CASES if case.op == op)
    inputs = {
        spec.name: array[:0] if spec.dims[:1] == ("B",) else array
        for spec, array in zip(
            CATALOG[op].inputs, make_inputs(case, "float32").values(), strict=True
        )
    }
    got = run_session(session_of(op, case.attributes, "float32"), op, inputs, "float32")
    assert all(array.size == 0 for array in got.values())


@pytest.mark.parametrize("name", ["stack-mixed", "large-single"])
def test_a_session_conforms(request: pytest.FixtureRequest, tmp_path: Path, name: str) -> None:
    """States, rows and last steps by the CUDA kernels; they lie in the host's memory here."""
    bundle = request.getfixturevalue("library").bundle(BY_ID[name])
    conform(bound(bundle, library()), tmp_path)


def test_what_a_kernel_refuses_is_told_by_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    case = next(case for case in OP_CASES if case.op == "XlstmMLSTM")
    session = session_of(case.op, case.attributes, "float32")
    monkeypatch.setenv("XLSTM_CUDA_MLSTM", "no-such")
    with pytest.raises(Exception, match=r"XlstmMLSTM: .*XLSTM_CUDA_"):
        run_session(session, case.op, make_inputs(case, "float32"), "float32")
