"""The same model with its states carried, begun by a graph of its own, or inside the call."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.model_cases import BY_ID, Library
from xlstm_export.bundle.bundle import Bundle
from xlstm_export.bundle.checksum import bundle_sha256, data_bytes
from xlstm_export.bundle.manifest import CONTINUE_FILE, write_manifest
from xlstm_export.errors import BundleError, InputError
from xlstm_export.lowering.describe import describe_graph
from xlstm_export.lowering.lower import lower_model
from xlstm_export.lowering.options import LoweringOptions
from xlstm_export.lowering.write import check_model, write_continuation, write_model
from xlstm_export.model.spec import ModelSpec, Recurrence
from xlstm_export.reference.model import ReferenceModel
from xlstm_export.runtime.operators import BundleOperators
from xlstm_export.runtime.ort import OrtSession

CASE = BY_ID["stack-mixed"]
IDS = np.random.default_rng(0).integers(0, 199, (3, 12))


def of_recurrence(library: Library, recurrence: Recurrence) -> ModelSpec:
    spec = library.checkpoint(CASE).spec
    return replace(spec, recurrence=recurrence, continued_outputs=spec.outputs)


def written(library: Library, folder: Path, recurrence: Recurrence) -> Path:
    """A bundle of the case whose states are where ``recurrence`` says."""
    folder.mkdir()
    spec, checkpoint, options = (
        of_recurrence(library, recurrence), library.checkpoint(CASE), LoweringOptions()
    )  # fmt: skip
    checkpoint = replace(checkpoint, spec=spec)
    model, continuing = lower_model(spec, checkpoint.weights, options), None
    check_model(write_model(model, folder))
    if recurrence == "begun":
        continuing = lower_model(spec, checkpoint.weights, options, continues=True)
        check_model(write_continuation(continuing, folder))
    manifest = describe_graph(model, checkpoint, library.source(CASE), options, continuing)
    digest, size = bundle_sha256(folder), data_bytes(folder)
    write_manifest(replace(manifest, sha256=digest, data_bytes=size), folder)
    return folder


@pytest.fixture(scope="module")
def bundles(library: Library, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recurrence")
    written(library, folder / "begun", "begun")
    written(library, folder / "inner", "inner")
    return folder


@pytest.mark.parametrize("native", [True, False])
def test_a_call_that_begins_and_one_that_goes_on(
    library: Library, bundles: Path, native: bool
) -> None:
    carried = OrtSession(library.bundle(CASE), threads=1, native=native)
    begun = OrtSession(bundles / "begun", threads=1, native=native)
    states = None
    theirs = None
    for part in (IDS[:, :7], IDS[:, 7:8], IDS[:, 8:]):
        got, states = begun.run({"input_ids": part}, states)
        expected, theirs = carried.run({"input_ids": part}, theirs)
        assert got.keys() == expected.keys()
        np.testing.assert_array_equal(got["logits"], expected["logits"])
        assert states.keys() == theirs.keys()
        for key in states:
            np.testing.assert_array_equal(states[key], theirs[key])


def test_a_call_whose_states_are_its_own(library: Library, bundles: Path) -> None:
    carried = OrtSession(library.bundle(CASE), threads=1)
    inner = OrtSession(bundles / "inner", threads=1)
    got, states = inner.run({"input_ids": IDS})
    expected, _ = carried.run({"input_ids": IDS})
    np.testing.assert_array_equal(got["logits"], expected["logits"])
    assert not states
    again, _ = inner.run({"input_ids": IDS}, states)
    np.testing.assert_array_equal(again["logits"], expected["logits"])


@pytest.mark.parametrize("recurrence", ["begun", "inner"])
def test_the_reference_is_the_same_model(library: Library, recurrence: Recurrence) -> None:
    checkpoint = library.checkpoint(CASE)
    carried = ReferenceModel(checkpoint.spec, checkpoint.weights)
    other = ReferenceModel(of_recurrence(library, recurrence), checkpoint.weights)
    expected, theirs = carried.run({"input_ids": IDS})
    got, states = other.run({"input_ids": IDS})
    np.testing.assert_array_equal(got["logits"], expected["logits"])
    assert set(states) == (set(theirs) if recurrence == "begun" else set())


def test_the_operators_of_a_bundle_without_states_have_their_sizes(
    library: Library, bundles: Path
) -> None:
    sizes = [
        {operator.op_type: dict(operator.sizes) for operator in operators.kinds()}
        for operators in (
            BundleOperators(folder, Bundle.open(folder).manifest)
            for folder in (library.bundle(CASE), bundles / "inner", bundles / "begun")
        )
    ]
    assert sizes[0] == sizes[1] == sizes[2]
    assert sizes[0]["XlstmMLSTM"].keys() == {"N", "K", "V"}


def test_both_graphs_share_one_data_file_and_one_digest(bundles: Path) -> None:
    folder = bundles / "begun"
    begin, go_on = (folder / name for name in ("model.onnx", CONTINUE_FILE))
    assert go_on.stat().st_size < 2 * begin.stat().st_size
    bundle = Bundle.open(folder)
    assert bundle.is_unchanged()
    kept = go_on.read_bytes()
    go_on.write_bytes(kept + b"\n")
    assert bundle.is_unchanged() is False
    go_on.unlink()
    session = OrtSession(folder, threads=1)
    _, states = session.run({"input_ids": IDS})
    with pytest.raises(BundleError, match=r"continue\.onnx: missing"):
        session.run({"input_ids": IDS}, states)
    go_on.write_bytes(kept)
    with pytest.raises(InputError, match="is missing"):
        session.run({"input_ids": IDS}, {})
