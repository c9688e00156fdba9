"""Sessions with native kernels, and sessions without: what they say is what ran.

The libraries of ``make wheel`` must be there: without them this file fails.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from tests.cli.terminal import assert_short_error, run_process
from tests.model_cases import BY_ID, ONE_PER_FAMILY, Library, ModelCase
from tests.native_libraries import build
from xlstm_export import pipeline
from xlstm_export.bundle.manifest import read_manifest
from xlstm_export.errors import BackendUnavailableError
from xlstm_export.native import FOLDER_VARIABLE, ISA_VARIABLE
from xlstm_export.ops.catalog import CATALOG, DOMAIN
from xlstm_export.runtime import ort
from xlstm_export.runtime.operators import BundleOperators
from xlstm_export.runtime.ort import BODIES, OrtSession
from xlstm_export.validation.checks.operators import check_operators, operator_inputs

STACK = BY_ID["stack-mixed"]
FEEDS = {"input_ids": np.random.default_rng(0).integers(0, 199, (2, 9))}


@pytest.fixture
def profiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every session writes a profile into ``tmp_path``."""
    session_setting = ort.session_setting

    def with_profile(*arguments: Any) -> ort.Setting:
        setting = session_setting(*arguments)
        setting.options.enable_profiling = True
        setting.options.profile_file_prefix = str(tmp_path / "profile")
        return setting

    monkeypatch.setattr(ort, "session_setting", with_profile)


def kernels_run(session: OrtSession) -> list[str]:
    """Types of the operators that ONNX Runtime's profile saw running."""
    assert session._begin is not None
    events = json.loads(Path(session._begin._session.end_profiling()).read_text())
    return [e["args"]["op_name"] for e in events if e["name"].endswith("_kernel_time")]


@pytest.mark.usefixtures("profiled")
@pytest.mark.parametrize("case", ONE_PER_FAMILY, ids=lambda c: c.id)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_what_a_session_says_is_what_ran(library: Library, case: ModelCase, dtype: str) -> None:
    """With native kernels one kernel runs per node, and nothing of its body."""
    bundle = library.bundle(case, dtype=dtype)
    graph = onnx.load(bundle / "model.onnx", load_external_data=False).graph
    nodes = sorted(node.op_type for node in graph.node if node.domain == DOMAIN)
    ran = {}
    for native in (True, False):
        session = OrtSession(bundle, threads=1, native=native)
        assert ("native CPU kernels (" in session.describe()[DOMAIN]) is native
        session.run(FEEDS)
        ran[native] = kernels_run(session)
    assert sorted(kind for kind in ran[True] if kind in CATALOG) == nodes
    assert not set(ran[False]) & set(CATALOG)
    assert len(ran[False]) > len(ran[True]) + len(nodes)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_operators_alone_say_who_computes(library: Library, dtype: str) -> None:
    bundle = library.bundle(STACK, dtype=dtype)
    manifest = read_manifest(bundle)
    by_kernel = BundleOperators(bundle, manifest)
    by_body = BundleOperators(bundle, manifest, native=False)
    assert by_kernel.describe()[DOMAIN].startswith("native CPU kernels (")
    assert by_body.describe() == {DOMAIN: BODIES}
    results = check_operators({"": by_kernel, " by body": by_body}, seed=0)
    kernel_results = [r for r in results if not r.name.endswith(" by body")]
    assert len(results) == 2 * len(kernel_results)
    assert not [r.name for r in results if not r.judgement.ok]
    # two implementations of one formula do not round alike
    errors = {r.name: r.judgement.rms_error for r in results}
    assert any(errors[r.name] != errors[f"{r.name} by body"] for r in kernel_results)


def test_an_operator_is_loaded_once(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = library.bundle(STACK)
    operators = BundleOperators(bundle, read_manifest(bundle))
    loaded = []
    make = onnxruntime.InferenceSession

    def count(*arguments: Any, **options: Any) -> Any:
        loaded.append(arguments)
        return make(*arguments, **options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", count)
    (first, *_) = operators.kinds()
    inputs = operator_inputs(first, "float32", 3, (-1, 2), np.random.default_rng(0))
    for _ in range(2):
        operators.run(first, inputs)
    assert len(loaded) == 1


@pytest.mark.parametrize("native", [True, False])
def test_given_states_stay_as_they_are(library: Library, native: bool) -> None:
    session = OrtSession(library.bundle(STACK), threads=1, native=native)
    _, states = session.run(FEEDS)
    before = {key: array.copy() for key, array in states.items()}
    again = [session.run(FEEDS, states) for _ in range(2)]
    for key, array in before.items():
        np.testing.assert_array_equal(states[key], array)
        np.testing.assert_array_equal(again[0][1][key], again[1][1][key])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("native", [True, False])
def test_the_report_names_what_was_validated(library: Library, dtype: str, native: bool) -> None:
    """A bf16 bundle is emulated around the kernels or bodies, which take bfloat16 themselves."""
    bundle = library.bundle(STACK, dtype=dtype)
    report = pipeline.validate(bundle, library.source(STACK).path, native=native)
    assert report.verdict == "validated"
    assert ("native CPU kernels (" in report.subject_ops[DOMAIN]) is native
    bodies = [r for r in report.results if r.name.endswith(" by body")]
    assert bool(bodies) is native
    assert any("function body" in note for note in report.notes) is native


def test_the_environment_chooses_the_instruction_set(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("run", library.bundle(STACK), "--ids", "1,2", "-n", "2")
    monkeypatch.setenv(ISA_VARIABLE, "portable")
    content = json.loads(run_process(*words, "--json").out)
    assert content["operators"][DOMAIN].startswith("native CPU kernels (portable)")
    monkeypatch.setenv(ISA_VARIABLE, "mmx")
    assert_short_error(run_process(*words), "XLSTM_CPU_ISA=mmx", "unset it")
    content = json.loads(run_process(*words, "--no-native", "--json").out)
    assert content["operators"] == {DOMAIN: BODIES}


def test_a_library_the_runtime_refuses_is_an_error(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never the function bodies in silence, as where a library is too new for ONNX Runtime."""
    bundle = library.bundle(STACK)
    build(tmp_path)
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    for open_it in (OrtSession, lambda b: BundleOperators(b, read_manifest(b))):
        with pytest.raises(BackendUnavailableError, match="too old") as error:
            open_it(bundle)
        for words in (str(tmp_path), onnxruntime.__version__, "--no-native"):
            assert words in str(error.value)
    assert OrtSession(bundle, native=False).describe() == {DOMAIN: BODIES}
