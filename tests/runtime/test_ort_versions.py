"""Every offered opset agrees in the oldest and newest ONNX Runtime, at any level of optimisation.

XLSTM_ORT_DIRS lists folders (separated as in PATH), each holding an unpacked onnxruntime.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.model_cases import BY_ID, ONE_PER_FAMILY, Library, ModelCase
from tests.ops.op_sessions import LEVELS
from tests.runtime.run_bundle import PIECES
from xlstm_export.bundle.low_bit import LowBit
from xlstm_export.lowering.options import OPSETS, LoweringOptions
from xlstm_export.model.spec import ModelSpec
from xlstm_export.model.storage import Storage
from xlstm_export.reference.model import ReferenceModel
from xlstm_export.runtime.session import Array
from xlstm_export.validation.checks.rollout import BASELINE_ROWS
from xlstm_export.validation.inputs import draw_rollouts
from xlstm_export.validation.tolerance import errors, judge_errors, magnitude

SCRIPT = Path(__file__).with_name("run_bundle.py")
OTHERS = [d for d in os.environ.get("XLSTM_ORT_DIRS", "").split(os.pathsep) if d]
STEPS = sum(PIECES)
ROWS = 2


def run_script(
    script: Path, folder: Path, models: list[Path], feeds: Path, runtime: str
) -> dict[str, np.ndarray]:
    """What ``script`` finds of ``models`` in the ONNX Runtime of the folder ``runtime``."""
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [runtime, root]))}
    out = folder / "out.npz"
    command = [sys.executable, str(script), str(feeds), str(out), *map(str, models)]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    if runtime:
        assert done.stdout.strip() in runtime, "another runtime than asked for ran"
    with np.load(out) as file:
        return dict(file)


def _feeds(spec: ModelSpec, rows: int) -> dict[str, Array]:
    if spec.vocab_size is not None:
        return {"input_ids": np.random.default_rng(1).integers(0, spec.vocab_size, (rows, STEPS))}
    return dict(draw_rollouts(spec, rows, seed=1)[0][0])


@pytest.mark.parametrize("case", [*ONE_PER_FAMILY, BY_ID["vil-two"]], ids=lambda c: c.id)
@pytest.mark.parametrize("runtime", ["", *OTHERS], ids=lambda r: Path(r).name or "installed")
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_every_opset_agrees(
    library: Library, tmp_path: Path, case: ModelCase, runtime: str, dtype: str
) -> None:
    checkpoint = library.checkpoint(case)
    rows = ROWS + BASELINE_ROWS  # the baselines see more: with few, a largest error is chance
    feeds = _feeds(checkpoint.spec, rows)
    forms = [
        ReferenceModel(checkpoint.spec, checkpoint.weights, dtype, compute, form)
        for compute, form in (("float64", "recurrent"), (dtype, "recurrent"), (dtype, "chunkwise"))
    ]
    logits = [form.run(feeds)[0]["logits"] for form in forms]
    zeros = {f"past.{s.key}": np.zeros((ROWS, *s.shape[1:]), np.float32) for s in forms[0].states}
    given: dict[str, Any] = {name: array[:ROWS] for name, array in feeds.items()}
    np.savez(tmp_path / "feeds.npz", **given, **zeros)
    exact, *baselines = logits
    allowed = [errors(baseline, exact) for baseline in baselines]
    exact = exact[:ROWS]
    models = [library.bundle(case, dtype=dtype, opset=o) / "model.onnx" for o in OPSETS]
    found = run_script(SCRIPT, tmp_path, models, tmp_path / "feeds.npz", runtime)
    calls = [f"{level}/whole" for level in LEVELS]
    calls += [f"{level}/pieces" for level in LEVELS if checkpoint.spec.has_sequence]
    for index, opset in enumerate(OPSETS):
        for whose in ("session", *calls):
            got = errors(found[f"{index}/{whose}"], exact)
            judgement = judge_errors(got, allowed, magnitude(exact), dtype)
            assert judgement.ok, (opset, whose, judgement)


@pytest.mark.parametrize("runtime", ["", *OTHERS], ids=lambda r: Path(r).name or "installed")
def test_weights_in_few_bits_run_everywhere(library: Library, tmp_path: Path, runtime: str) -> None:
    """Fused or not, at every level of optimisation: one file, and what its weights say."""
    case = BY_ID["hf-plain"]
    checkpoint = library.checkpoint(case)
    feeds = _feeds(checkpoint.spec, ROWS)
    kinds = [LowBit(4, 16), LowBit(8, 16), LowBit(4, 16, False), LowBit(4, 16, matmul_nbits=True)]
    models = [
        library.bundle(case, LoweringOptions(opset=21, low_bit=kind)) / "model.onnx"
        for kind in kinds
    ]
    exact = [
        ReferenceModel(checkpoint.spec, checkpoint.weights, Storage("float32", kind))
        for kind in kinds
    ]
    zeros = {f"past.{s.key}": np.zeros((ROWS, *s.shape[1:]), np.float32) for s in exact[0].states}
    given: dict[str, Any] = {**feeds, **zeros}
    np.savez(tmp_path / "feeds.npz", **given)
    found = run_script(SCRIPT, tmp_path, models, tmp_path / "feeds.npz", runtime)
    for index, model in enumerate(exact):
        wanted = model.run(feeds)[0]["logits"]
        for level in LEVELS:
            error = np.square(found[f"{index}/{level}/whole"] - wanted).mean()
            assert error < 0.05**2 * np.square(wanted).mean(), (kinds[index], level)


@pytest.mark.skipif(not OTHERS, reason="XLSTM_ORT_DIRS names no other ONNX Runtime")
def test_oldest_and_newest_supported_are_here() -> None:
    assert {Path(d).name.rpartition("-")[2] for d in OTHERS} >= {"1.20.1", "1.23.2", "1.32.0"}
