"""In ONNX Runtime: a sequence split anywhere is the sequence, and a ragged batch is its rows."""

from __future__ import annotations

import numpy as np
import pytest

from tests.model_cases import BY_ID, ONE_PER_FAMILY, Library, ModelCase
from xlstm_export.model.state import StateNaming
from xlstm_export.runtime.ort import OrtSession
from xlstm_export.runtime.reference import Form, ReferenceModel
from xlstm_export.runtime.session import Array
from xlstm_export.validation.tolerance import Errors, errors, judge_errors, magnitude
from xlstm_export.validation.validate import rollout_inputs

CASES = (*ONE_PER_FAMILY, BY_ID["stack-bare"], BY_ID["stack-slstm-no-conv"])
STEPS = 140
ROWS = 4
WITNESSES = 20
FORMS: tuple[Form, ...] = ("recurrent", "chunkwise")

every_case = pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
every_dtype = pytest.mark.parametrize("dtype", ["float32", "float16"])

Result = tuple[Array, dict[str, Array]]


def _split_run(session: OrtSession, inputs: Array, cuts: list[int]) -> Result:
    states, outputs = None, []
    for part in np.split(inputs, cuts, axis=1):
        output, states = session.run(part, states)
        outputs.append(output)
    assert states is not None
    return np.concatenate(outputs, axis=1), states


def _tensors(result: Result) -> dict[str, Array]:
    return {"output": result[0], **result[1]}


def _cuts(seed: int) -> list[list[int]]:
    """All ones, halves, chunk borders, and random places, any number of them."""
    random = np.random.default_rng(seed)
    some = [sorted(random.choice(STEPS - 1, n, replace=False) + 1) for n in (1, 2, 5, 17, 40)]
    return [list(range(1, STEPS)), [STEPS // 2], [64], [63], [65], [1], [STEPS - 1], *some]


@every_case
@every_dtype
def test_any_split_is_one_shot(library: Library, case: ModelCase, dtype: str) -> None:
    """Held to float64 by the rule, over all splits together.

    Each split rounds in its own way; the yardsticks get as many samples by more rows.
    """
    checkpoint = library.checkpoint(case)
    spec, weights = checkpoint.spec, checkpoint.weights
    inputs = rollout_inputs(spec, ROWS + WITNESSES, STEPS, seed=3)
    exact = _tensors(ReferenceModel(spec, weights, dtype, "float64").run(inputs))
    forms = [_tensors(ReferenceModel(spec, weights, dtype, dtype, f).run(inputs)) for f in FORMS]
    session = OrtSession(library.bundle(case, dtype=dtype), threads=1)
    totals = {name: Errors() for name in exact}
    for cuts in _cuts(seed=5):
        for name, value in _tensors(_split_run(session, inputs[:ROWS], cuts)).items():
            totals[name] += errors(value, exact[name][:ROWS])
    for name, total in totals.items():
        allowed = [errors(form[name], exact[name]) for form in forms]
        precision = dtype if name == "output" else "float32"
        judgement = judge_errors(total, allowed, magnitude(exact[name]), precision)
        assert judgement.ok, (name, judgement)


@every_case
def test_a_batch_is_its_rows(library: Library, case: ModelCase) -> None:
    inputs = rollout_inputs(library.checkpoint(case).spec, ROWS, 70, seed=4)
    session = OrtSession(library.bundle(case), threads=1)
    together = _tensors(session.run(inputs, None))
    for row in range(ROWS):
        alone = _tensors(session.run(inputs[row : row + 1], None))
        for name, value in alone.items():
            close = 1e-4 * (1 + magnitude(value))  # a row mixed with another is off by far more
            assert errors(together[name][row : row + 1], value).largest < close, name


@every_case
@pytest.mark.parametrize("carried", [False, True], ids=["fresh", "carried"])
def test_a_ragged_batch_is_its_rows(library: Library, case: ModelCase, carried: bool) -> None:
    """Rows padded with other numbers than zeros: nothing of the padding may get in."""
    steps, lengths = 70, np.array([-1, 33, 1, 0], np.int32)
    inputs = rollout_inputs(library.checkpoint(case).spec, len(lengths), steps, seed=6)
    ragged = OrtSession(library.bundle(case, ragged=True), threads=1)
    plain = OrtSession(library.bundle(case), threads=1)
    start = plain.run(inputs[:, ::-1], None)[1] if carried else plain.initial_states(len(lengths))
    output, states = ragged.run(inputs, start, lengths)
    for row, length in enumerate(np.where(lengths < 0, steps, lengths)):
        before = {key: value[row : row + 1] for key, value in start.items()}
        after = {key: value[row : row + 1] for key, value in states.items()}
        if length == 0:
            for key, value in before.items():
                assert after[key].tobytes() == value.tobytes(), key
            continue
        alone = _tensors(plain.run(inputs[row : row + 1, :length], before))
        got = {"output": output[row : row + 1, :length], **after}
        for name, value in alone.items():
            close = 1e-4 * (1 + magnitude(value))
            assert errors(got[name], value).largest < close, (row, name)


@pytest.mark.parametrize("case", ONE_PER_FAMILY, ids=lambda c: c.id)
def test_last_logits_are_the_last_of_all(library: Library, case: ModelCase) -> None:
    inputs = rollout_inputs(library.checkpoint(case).spec, 3, 40, seed=7)
    everything = OrtSession(library.bundle(case), threads=1).run(inputs, None)[0]
    last = OrtSession(library.bundle(case, logits="last"), threads=1).run(inputs, None)[0]
    np.testing.assert_allclose(last, everything[:, -1:], rtol=1e-5, atol=1e-5)
    ragged = OrtSession(library.bundle(case, logits="last", ragged=True), threads=1)
    lengths = np.array([40, 7, -1], np.int32)
    picked = ragged.run(inputs, None, lengths)[0]
    for row, step in enumerate((39, 6, 39)):
        np.testing.assert_allclose(picked[row, 0], everything[row, step], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("naming", ["genai", "edgellm"])
def test_renamed_states_are_the_same_states(library: Library, naming: StateNaming) -> None:
    case = BY_ID["stack-mixed"]
    inputs = rollout_inputs(library.checkpoint(case).spec, 2, 20, seed=8)
    renamed = OrtSession(library.bundle(case, state_names=naming), threads=1)
    assert not any(s.input.startswith("past.") for s in renamed.manifest.states)
    native = OrtSession(library.bundle(case), threads=1)
    for name, value in _tensors(native.run(inputs, None)).items():
        np.testing.assert_array_equal(_tensors(renamed.run(inputs, None))[name], value)
