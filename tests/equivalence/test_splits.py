"""In ONNX Runtime: a sequence split anywhere is the sequence, and a ragged batch is its rows.

All by the tolerance rule, against upstream's module on the whole sequence, or on each row alone.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.equivalence.votes import VOTES, Tensors, open_bench, open_bundle
from tests.model_cases import BY_ID, ONE_PER_FAMILY, Library, ModelCase
from xlstm_export.bundle.manifest import LENGTHS, BundleDtype
from xlstm_export.lowering.options import LoweringOptions
from xlstm_export.model.state import StateNaming
from xlstm_export.runtime.ort import OrtSession
from xlstm_export.runtime.session import Array
from xlstm_export.runtime.states import States
from xlstm_export.validation.inputs import rollout_inputs

torch.set_num_threads(1)

CASES = (*ONE_PER_FAMILY, BY_ID["stack-bare"], BY_ID["stack-slstm-no-conv"])
STEPS = 140
PREFIX = 5
ROW_LENGTHS = (-1, 33, 1, 70)
"""Of the rows of a ragged batch of 70 steps; -1 and 70 are all of them."""

every_case = pytest.mark.parametrize("case", CASES, ids=str)
every_dtype = pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
one_per_family = pytest.mark.parametrize("case", ONE_PER_FAMILY, ids=str)


def _cuts() -> list[list[int]]:
    """All ones, halves, chunk borders, and random places, any number of them."""
    random = np.random.default_rng(5)
    some = [sorted(random.choice(STEPS - 1, n, replace=False) + 1) for n in (2, 5, 17, 40)]
    return [list(range(1, STEPS)), [STEPS // 2], [64], [63, 65], [1], [STEPS - 1], *some]


def _in_parts(session: OrtSession, inputs: Array, cuts: list[int]) -> Tensors:
    name, output = session.manifest.inputs[0].name, session.manifest.outputs[0].name
    states, outputs = None, []
    for part in np.split(inputs, cuts, axis=1):
        results, states = session.run({name: part}, states)
        outputs.append(results[output])
    assert states is not None
    return {"output": np.concatenate(outputs, axis=1), **states}


@every_case
@every_dtype
def test_any_split_is_one_shot(library: Library, case: ModelCase, dtype: BundleDtype) -> None:
    bench = open_bench(library, case, dtype)
    session = open_bundle(library, case, LoweringOptions(dtype=dtype))
    inputs = rollout_inputs(library.checkpoint(case).spec, VOTES * 6, STEPS, seed=3)
    for cuts in _cuts():
        got = _in_parts(session, inputs, cuts)
        assert not bench.broken_by([got], inputs, (STEPS,)), cuts


@every_case
@every_dtype
@pytest.mark.parametrize("carried", [False, True], ids=["fresh", "carried"])
def test_a_ragged_batch_is_its_rows(
    library: Library, case: ModelCase, dtype: BundleDtype, carried: bool
) -> None:
    """Rows end in other inputs than zeros: nothing beyond a row's length may get in."""
    bench = open_bench(library, case, dtype)
    ragged = open_bundle(library, case, LoweringOptions(dtype=dtype, ragged=True))
    samples, steps = VOTES * 12, max(ROW_LENGTHS)
    prefix = PREFIX if carried else 0
    inputs = rollout_inputs(
        library.checkpoint(case).spec, samples * len(ROW_LENGTHS), prefix + steps, seed=6
    )
    name = ragged.manifest.inputs[0].name
    start = ragged.run({name: inputs[:, :PREFIX]}, None)[1] if carried else None
    lengths = np.tile(np.array(ROW_LENGTHS, np.int32), samples)
    outputs, states = ragged.run({name: inputs[:, prefix:], LENGTHS: lengths}, start)
    output = outputs[ragged.manifest.outputs[0].name]
    for place, length in enumerate(ROW_LENGTHS):
        rows = slice(place, None, len(ROW_LENGTHS))
        valid = steps if length < 0 else length
        got = {"output": output[rows, :valid], **{key: x[rows] for key, x in states.items()}}
        alone = inputs[rows, : prefix + valid]
        calls = (PREFIX, valid) if carried else (valid,)
        assert not bench.broken_by([got], alone, calls), length


@every_case
@every_dtype
def test_length_zero_keeps_states_bit_for_bit(
    library: Library, case: ModelCase, dtype: BundleDtype
) -> None:
    session = open_bundle(library, case, LoweringOptions(dtype=dtype, ragged=True))
    inputs = rollout_inputs(library.checkpoint(case).spec, 3, 70, seed=9)
    name = session.manifest.inputs[0].name
    used = session.run({name: inputs}, None)[1]
    for states in (used, States.zeros(session.manifest, 3)):
        for steps in (1, 70):
            lengths = np.array([0, -1, 0], np.int32)
            after = session.run({name: inputs[:, :steps], LENGTHS: lengths}, states)[1]
            for key, value in states.items():
                assert after[key][::2].tobytes() == value[::2].tobytes(), (key, steps)
                moved = states is used or not np.array_equal(after[key][1], value[1])
                assert moved, (key, steps)


@one_per_family
@pytest.mark.parametrize("ragged", [False, True], ids=["plain", "ragged"])
def test_last_logits_are_the_last_of_all(library: Library, case: ModelCase, ragged: bool) -> None:
    bench = open_bench(library, case, "float32")
    session = OrtSession(library.bundle(case, logits="last", ragged=ragged), threads=1)
    inputs = rollout_inputs(library.checkpoint(case).spec, VOTES * 24, 40, seed=7)
    for length in (40, 7) if ragged else (40,):
        lengths = {LENGTHS: np.full(len(inputs), length, np.int32)} if ragged else {}
        outputs, states = session.run({"input_ids": inputs, **lengths}, None)
        assert outputs["logits"].shape[1] == 1
        got = {"output": outputs["logits"], **states}
        assert not bench.broken_by([got], inputs[:, :length], (length,), last_only=True)


@pytest.mark.parametrize("naming", ["genai", "edgellm"])
@one_per_family
def test_renamed_states_are_the_same_states(
    library: Library, case: ModelCase, naming: StateNaming
) -> None:
    inputs = rollout_inputs(library.checkpoint(case).spec, 2, 20, seed=8)
    renamed = OrtSession(library.bundle(case, state_names=naming), threads=1)
    native = OrtSession(library.bundle(case), threads=1)
    names = {s.input for s in renamed.manifest.states}
    assert not names & {s.input for s in native.manifest.states}
    assert [s.key for s in renamed.manifest.states] == [s.key for s in native.manifest.states]
    expected, states = native.run({"input_ids": inputs}, None)
    outputs, after = renamed.run({"input_ids": inputs}, None)
    np.testing.assert_array_equal(outputs["logits"], expected["logits"])
    for key, value in states.items():
        np.testing.assert_array_equal(after[key], value)
