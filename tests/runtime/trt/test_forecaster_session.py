"""Engines of a forecaster whose calls that go on are another graph, on the stand-in for a GPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.families.tirex_checkpoints import SMALL
from tests.model_cases import BY_ID, Library
from tests.runtime.trt.host_device import (
    HostDevice,
    OrtEngine,
    assert_same_states,
    reference_session,
    some_record,
)
from xlstm_export.engine.profiles import ShapeOptions, continued_profile, make_profiles
from xlstm_export.errors import EngineError, InputError
from xlstm_export.generation.forecast import forecast_series
from xlstm_export.runtime.session import Array
from xlstm_export.runtime.trt.session import TrtSession

PATCH, CONTEXT = SMALL["patch"], SMALL["context"]


@pytest.fixture
def bundle(library: Library) -> Path:
    return library.bundle(BY_ID["tirex-small"])


def opened(bundle: Path, *, continues: bool = True) -> tuple[TrtSession, list[OrtEngine]]:
    """The session, and its engines: of calls that begin and, with ``continues``, that go on."""
    device = HostDevice()
    engines = [OrtEngine(bundle, device)]
    manifest = engines[0].session.manifest
    if continues:
        ranges = [continued_profile(manifest, engines[0].profiles[0])]
        engines.append(OrtEngine(bundle, device, ranges, continues=True))
    return TrtSession(bundle, manifest, some_record(), engines[0], device, *engines[1:]), engines


def series(count: int, length: int) -> Array:
    walks = np.random.default_rng(0).standard_normal((count, length)).cumsum(1)
    return walks.astype(np.float32)


@pytest.mark.parametrize("length", [5, CONTEXT])
def test_a_state_is_carried_on_the_device(bundle: Path, length: int) -> None:
    session, engines = opened(bundle)
    reference = reference_session(bundle)
    context = series(2, length)
    _, states = session.run({"context": context})
    _, expected_states = reference.run({"context": context})
    for patches in (1, 3):
        more = {"context": series(2, patches * PATCH)}
        outputs, states = session.run(more, states)
        expected, expected_states = reference.run(more, expected_states)
        np.testing.assert_array_equal(outputs["quantiles"], expected["quantiles"])
        assert_same_states(states, expected_states)
    assert [len(engine.used) for engine in engines] == [1, 2]
    session.close()
    assert all(engine.closed for engine in engines)


def test_a_forecast_beyond_one_patch(bundle: Path) -> None:
    session, _ = opened(bundle)
    rows = series(3, CONTEXT)
    carried = forecast_series(session, rows, 4 * PATCH + 1)
    expected = forecast_series(reference_session(bundle), rows, 4 * PATCH + 1)
    np.testing.assert_array_equal(carried.quantiles, expected.quantiles)


def test_parts_of_a_patch_need_a_new_beginning(bundle: Path) -> None:
    session, _ = opened(bundle)
    _, states = session.run({"context": series(1, 3)})
    with pytest.raises(InputError, match=f"a multiple of {PATCH}; begin again"):
        session.run({"context": series(1, PATCH + 1)}, states)


def test_an_engine_of_before_begins_every_call(bundle: Path) -> None:
    session, _ = opened(bundle, continues=False)
    _, states = session.run({"context": series(1, CONTEXT)})
    with pytest.raises(InputError, match="begins every call"):
        session.run({"context": series(1, PATCH)}, states)


def test_an_engine_of_another_graph_is_refused(bundle: Path) -> None:
    device = HostDevice()
    engine = OrtEngine(bundle, device)
    manifest = engine.session.manifest
    with pytest.raises(EngineError, match="tensors are not the bundle's"):
        TrtSession(bundle, manifest, some_record(), engine, device, engine)


@pytest.mark.parametrize("most", [CONTEXT, CONTEXT + 1])
def test_the_profile_of_calls_that_go_on_is_of_whole_patches(bundle: Path, most: int) -> None:
    manifest = reference_session(bundle).manifest
    shapes = ShapeOptions(
        min_shapes={"context": (1, 1)},
        opt_shapes={"context": (2, CONTEXT)},
        max_shapes={"context": (5, most)},
    )
    (begun,) = make_profiles(manifest, shapes)
    profile = continued_profile(manifest, begun)
    context = profile["context"]
    whole = CONTEXT if most == CONTEXT else CONTEXT + PATCH
    assert (context.min, context.opt, context.max) == ((1, PATCH), (2, PATCH), (5, whole))
    assert {state.input for state in manifest.states} == profile.keys() - {"context"}
    assert all(ranges.max[0] == 5 for ranges in profile.values())
