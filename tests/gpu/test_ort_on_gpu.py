"""The operators in ONNX Runtime's CUDA provider: one node without a body, held to the one rule.

Needs onnxruntime-gpu and libxlstm_ort_cuda.so, in xlstm_export/lib or in the folder that
XLSTM_LIBRARY_DIR names.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

import xlstm_export as xe
from tests.cases import OP_CASES, OpCase, make_inputs
from tests.gpu.driver import why_no_gpu
from tests.gpu.kernels import run_gpu, why_not
from tests.gpu.test_kernels_on_gpu import SEED, assert_same_bits
from tests.ops.op_models import assert_within_rule, run_session
from tests.plugins.ort_library import kernel_model
from xlstm_export.native import ort_cuda_library_path
from xlstm_export.ops.schema import TX_DTYPES
from xlstm_export.runtime.choice import likeliest, likeliest_on_device
from xlstm_export.runtime.ort import OrtSession
from xlstm_export.runtime.ort_cuda import PROVIDER, check_provider, cuda_providers

ROOT = Path(__file__).resolve().parents[2]


def why_no_provider() -> str | None:
    """Why nothing can run here; None where it can."""
    if PROVIDER not in ort.get_available_providers():
        return f"onnxruntime {ort.__version__} has no CUDA provider: install onnxruntime-gpu"
    if ort_cuda_library_path() is None:
        return "no libxlstm_ort_cuda.so: make wheel, with nvcc"
    return why_no_gpu()


pytestmark = pytest.mark.skipif(why_no_provider() is not None, reason=str(why_no_provider()))


def make_session(case: OpCase, tx: str, profile: Path | None = None) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.register_custom_ops_library(str(ort_cuda_library_path()))
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    model = kernel_model(case, tx).SerializeToString()
    session = ort.InferenceSession(model, options, providers=cuda_providers(ort))
    check_provider(ort, session)
    return session


@pytest.mark.parametrize("tx", TX_DTYPES)
@pytest.mark.parametrize("case", OP_CASES, ids=str)
def test_the_node_gives_the_kernels_numbers(case: OpCase, tx: str) -> None:
    inputs = make_inputs(case, tx, SEED)
    session = make_session(case, tx)
    got = run_session(session, case.op, inputs, tx)
    assert_within_rule(case, inputs, tx, got)
    if why_not() is None:
        assert_same_bits(got, run_gpu(case, inputs, tx), "the kernel alone")


@pytest.mark.parametrize("op", ["XlstmMLSTM", "XlstmSLSTM", "XlstmCausalConv1d"])
def test_the_node_runs_on_the_gpu(op: str, tmp_path: Path) -> None:
    case = next(case for case in OP_CASES if case.op == op)
    session = make_session(case, "float32", tmp_path / "profile")
    inputs = make_inputs(case, "float32", SEED)
    run_session(session, op, inputs, "float32")
    events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    providers = {
        event["args"]["provider"] for event in events if event.get("args", {}).get("op_name") == op
    }
    assert providers == {PROVIDER}


@pytest.mark.parametrize("batch", [1, 5])
def test_decode_steps_replayed_as_graphs_are_the_same_steps(tmp_path: Path, batch: int) -> None:
    """200 steps, bit for bit; a state that was kept is still what it was."""
    bundle = xe.export(ROOT / "recipes" / "demo" / "char_lm", tmp_path / "char_lm")
    plain, graphs = (
        OrtSession(bundle.path, cuda=True, cuda_graph=wanted) for wanted in (False, True)
    )
    prompt = {"input_ids": np.random.default_rng(SEED).integers(0, 90, (batch, 9))}
    (expected, after), (got, states) = plain.choose(prompt), graphs.choose(prompt)
    for step in range(200):
        assert got == expected, step
        if step == 20:
            kept, copies = states, {key: np.array(states[key]) for key in states}
        feeds = {"input_ids": [[choice.token] for choice in expected]}
        (expected, after), (got, states) = plain.choose(feeds, after), graphs.choose(feeds, states)
    for key in after:
        assert np.array_equal(states[key], after[key]), key
        assert np.array_equal(kept[key], copies[key]), key
    assert graphs._begin is not None
    assert graphs._begin._graphs is not None
    assert graphs._begin._graphs._bindings, "no graph was captured"


def test_the_likeliest_token_is_chosen_on_the_gpu() -> None:
    """Of equal ones the lowest id, where cuDNN's arg max may take any."""
    random = np.random.default_rng(SEED)
    logits = random.integers(-3, 4, (3, 4, 50_304)).astype(np.float32)
    logits[2, 1, 77] = np.nan
    value = ort.OrtValue.ortvalue_from_numpy(logits, "cuda", 0)
    found = likeliest_on_device(value, np.array([3, 0, 1]), PROVIDER)
    expected = likeliest(logits[range(3), [3, 0, 1]])
    assert [choice.token for choice in found] == [choice.token for choice in expected]
    assert np.isnan(found[2].logit)
