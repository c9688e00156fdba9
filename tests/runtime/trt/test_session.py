"""The logic of engine sessions, on a stand-in for the GPU; numbers are ONNX Runtime's, bit for bit.

Not run without a GPU: TensorRT's own arithmetic, and ``CudaDevice`` beyond its refusals
(``test_trt_refusals``). What TensorRT computes is judged by ``validate --engine`` on a GPU.
"""

from __future__ import annotations

import gc
import itertools
from pathlib import Path

import numpy as np
import pytest

from tests.model_cases import BY_ID, Library
from tests.runtime.trt.host_device import (
    assert_same_states,
    ids,
    reference_session,
    run,
    run_on_device,
    stand_in,
)
from xlstm_export.engine.profiles import ShapeOptions, make_profiles
from xlstm_export.errors import EngineError, InputError
from xlstm_export.lowering.options import LoweringOptions
from xlstm_export.runtime.session import Array
from xlstm_export.runtime.trt.session import TrtSession

CALLS = (7, 1, 1, 1, 12, 1, 64, 1)
WAYS = (
    ("stack-mixed", LoweringOptions()),
    ("stack-mixed", LoweringOptions(dtype="float16")),
    ("stack-mixed", LoweringOptions(dtype="bfloat16")),
    ("stack-mixed", LoweringOptions(ragged=True)),
    ("stack-mixed", LoweringOptions(logits="last")),
    ("stack-bare", LoweringOptions()),
    ("stack-bare", LoweringOptions(dtype="bfloat16")),
    ("hf-plain", LoweringOptions()),
)


@pytest.fixture
def bundle(library: Library) -> Path:
    return library.bundle(BY_ID["stack-mixed"])


def inputs_of(session: TrtSession, batch: int, steps: int) -> Array:
    if session.manifest.is_language_model:
        return ids(batch, steps)
    size = session.manifest.inputs[0].shape[-1]
    shape = (batch, steps, int(size))
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(("case", "options"), WAYS)
def test_rollout(library: Library, case: str, options: LoweringOptions) -> None:
    bundle = library.bundle(BY_ID[case], options)
    session, engine, device = stand_in(bundle)
    reference = reference_session(bundle)
    inputs = inputs_of(session, 3, sum(CALLS))
    states, expected_states = None, None
    for start, steps in zip(itertools.accumulate(CALLS, initial=0), CALLS, strict=False):
        part = inputs[:, start : start + steps]
        output, states = run(session, part, states)
        expected, expected_states = run(reference, part, expected_states)
        assert np.isfinite(output).all()
        assert output.dtype == np.float32
        np.testing.assert_array_equal(output, expected)
        assert_same_states(states, expected_states)
    assert engine.used == [0 if steps == 1 else 1 for steps in CALLS]
    # inputs and outputs cross the bus, and states only when the test looks at them
    arrays = len(CALLS) * (1 + len(session.manifest.states))
    assert device.calls.count("download") == arrays
    assert device.calls.count("upload") == len(CALLS) * (1 + options.ragged)
    assert device.calls.count("zero") == 1


def test_lengths(library: Library) -> None:
    bundle = library.bundle(BY_ID["stack-mixed"], LoweringOptions(ragged=True))
    session, _, _ = stand_in(bundle)
    lengths = np.array([5, 0, 9], np.int32)
    output, states = run(session, ids(3, 9), None, lengths)
    expected, expected_states = run(reference_session(bundle), ids(3, 9), None, lengths)
    np.testing.assert_array_equal(output, expected)
    assert_same_states(states, expected_states)


def test_lengths_of_a_plain_bundle(bundle: Path) -> None:
    session, _, _ = stand_in(bundle)
    with pytest.raises(InputError, match="export --ragged"):
        run(session, ids(1, 2), None, np.array([1], np.int32))


def test_decode_swaps_two_sets_of_states(bundle: Path) -> None:
    session, engine, device = stand_in(bundle)
    logits, states = run(session, ids(2, 9))
    for step in range(12):
        if step == 3:
            device.calls.clear()
        logits, states = run(session, logits[:, -1:].argmax(-1), states)
    assert set(device.calls) == {"activate", "upload", "download"}, "memory was asked for"
    first, *_ = session.manifest.states
    into = [addresses[first.input] for addresses in engine.addresses]
    out = [addresses[first.output] for addresses in engine.addresses]
    assert into[1:] == out[:-1]
    assert len(set(out[4:])) == 2
    assert all(a != b for a, b in itertools.pairwise(out))


def test_what_a_caller_keeps_is_never_written_again(bundle: Path) -> None:
    session, _, device = stand_in(bundle)
    reference = reference_session(bundle)
    _, kept = run_on_device(session, ids(2, 5))
    outputs = []
    for seed in range(4):  # four continuations of one prefix, nothing waited for
        states = kept
        for step in range(3):
            output, states = run_on_device(session, ids(2, 1, 10 * seed + step), states)
            outputs.append(output)
    _, expected_kept = run(reference, ids(2, 5))
    for seed in range(4):
        expected_states = expected_kept
        for step in range(3):
            expected, expected_states = run(reference, ids(2, 1, 10 * seed + step), expected_states)
            np.testing.assert_array_equal(outputs[3 * seed + step].numpy(), expected)
    assert_same_states(kept, expected_kept)
    assert device.calls.count("zero") == 1


def test_states_from_the_host(bundle: Path) -> None:
    """A caller may look at states, change them, and cut rows out of a batch."""
    session, _, _ = stand_in(bundle)
    reference = reference_session(bundle)
    _, states = run(session, ids(3, 8))
    cut = {key: 0.5 * value[1:] for key, value in states.items()}
    output, new = run(session, ids(2, 4, 1), cut)
    expected, expected_new = run(reference, ids(2, 4, 1), cut)
    np.testing.assert_array_equal(output, expected)
    assert_same_states(new, expected_new)


def test_batch_may_change(bundle: Path) -> None:
    session, _, _ = stand_in(bundle)
    reference = reference_session(bundle)
    for batch, steps in ((1, 1), (8, 3), (2, 512), (5, 1), (1, 1)):
        output, states = run(session, ids(batch, steps))
        expected, expected_states = run(reference, ids(batch, steps))
        np.testing.assert_array_equal(output, expected)
        assert_same_states(states, expected_states)


def test_states_that_do_not_fit(bundle: Path) -> None:
    session, engine, _ = stand_in(bundle)
    _, states = run(session, ids(3, 2))
    key = next(iter(states))
    with pytest.raises(InputError, match=rf"state {key}: shape \[3, .* this batch of 2 needs \[2"):
        run(session, ids(2, 1), states)
    with pytest.raises(InputError, match=f"state {key} is missing; give every state"):
        run(session, ids(3, 1), {k: v for k, v in states.items() if k != key})
    with pytest.raises(InputError, match=r"state 9\.mlstm\.C: the bundle has none of that name"):
        run(session, ids(3, 1), {**states, "9.mlstm.C": states[key]})
    with pytest.raises(InputError, match=r"input_ids: shape \[4\], expected \[batch, sequence\]"):
        run(session, ids(1, 4)[0])
    assert len(engine.used) == 1


def test_shapes_outside_the_profiles(bundle: Path) -> None:
    session, _, _ = stand_in(bundle)
    for batch, steps in ((9, 1), (1, 513), (0, 1), (1, 0)):
        with pytest.raises(
            EngineError,
            match=rf"input_ids \[{batch}, {steps}\]: the engine takes \[1, 1\] to \[8, 1\] or "
            rf"\[1, 1\] to \[8, 512\]; .* --max-batch-size {batch} --max-input-len {steps}",
        ):
            run(session, ids(batch, steps))


def test_one_explicit_profile(bundle: Path) -> None:
    manifest = reference_session(bundle).manifest
    shapes = {"input_ids": (2, 1)}, {"input_ids": (2, 4)}, {"input_ids": (2, 20)}
    profiles = make_profiles(manifest, ShapeOptions(None, None, *shapes))
    session, engine, _ = stand_in(bundle, profiles)
    assert session.most_steps == 20
    _, states = run(session, ids(2, 20))
    run(session, ids(2, 1), states)
    assert engine.used == [0, 0]
    with pytest.raises(EngineError, match="input_ids"):
        run(session, ids(1, 1))


def test_an_engine_of_another_bundle(library: Library, bundle: Path) -> None:
    _, engine, device = stand_in(library.bundle(BY_ID["hf-plain"]))
    manifest = reference_session(bundle).manifest
    with pytest.raises(EngineError, match=r"not the bundle's \(past\.0\..*build again"):
        TrtSession(bundle, manifest, None, engine, device)  # type: ignore[arg-type]


def test_an_engine_of_other_shapes(bundle: Path) -> None:
    session, engine, _ = stand_in(bundle)
    state = session.manifest.states[0].output
    shapes_of = engine.output_shapes
    engine.output_shapes = lambda *a: shapes_of(*a) | {state: (1, 2)}  # type: ignore[method-assign]
    with pytest.raises(EngineError, match=rf"{state}: the engine makes \[1, 2\]; build again"):
        run(session, ids(1, 1))
    assert not engine.used


def test_describe(bundle: Path) -> None:
    session, _, _ = stand_in(bundle)
    assert session.describe() == {"ai.xlstm": "CUDA plugins: 1 XlstmMLSTM by libxlstm_trt 9.9"}
    assert session.name == "ONNX Runtime as an engine, stand-in (8.9), float32"


def test_a_session_that_is_dropped_frees_its_memory(bundle: Path) -> None:
    session, engine, device = stand_in(bundle)
    run(session, ids(2, 3))
    assert device.blocks
    del session, engine
    gc.collect()
    assert not device.blocks


def test_a_session_that_is_dropped_finishes_its_work(bundle: Path) -> None:
    """The engine lives until the device is done with it."""
    session, engine, device = stand_in(bundle)
    output, _ = run_on_device(session, ids(2, 3))
    assert device.waiting
    del session, engine
    gc.collect()
    assert not device.waiting
    np.testing.assert_array_equal(output.numpy(), run(reference_session(bundle), ids(2, 3))[0])


def test_a_closed_session(bundle: Path) -> None:
    """The engine goes when its work is done; what was handed out can still be read."""
    session, engine, _ = stand_in(bundle)
    output, states = run_on_device(session, ids(2, 3))
    session.close()
    assert engine.closed
    with pytest.raises(EngineError, match="this session is closed: open the engine again"):
        run(session, ids(2, 1), states)
    np.testing.assert_array_equal(output.numpy(), run(reference_session(bundle), ids(2, 3))[0])
    session.close()


def test_little_memory(bundle: Path) -> None:
    """Idle buffers are given up before a call fails for want of memory."""
    roomy, _, device = stand_in(bundle)
    run(roomy, ids(8, 64))
    enough = sum(len(block) for block in device.blocks.values())
    session, _, device = stand_in(bundle, limit=enough + enough // 8)
    for batch, steps in ((4, 60), (8, 64), (4, 60), (8, 64)):
        output = run(session, ids(batch, steps))[0]
        expected = run(reference_session(bundle), ids(batch, steps))[0]
        np.testing.assert_array_equal(output, expected)
    assert "free" in device.calls
    session, _, _ = stand_in(bundle, limit=enough // 2)
    with pytest.raises(EngineError, match="no memory for"):
        run(session, ids(8, 64))
    run(session, ids(1, 1))
