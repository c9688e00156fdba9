"""The bound of memory on decoding: bytes by hand, and a speed that is one."""

from __future__ import annotations

from pathlib import Path

import pytest

import xlstm_export as xe
from tests.model_cases import BY_ID, Library
from xlstm_export.bandwidth import read_bandwidth
from xlstm_export.bundle.manifest import DATA_FILE
from xlstm_export.errors import BundleError
from xlstm_export.lowering.options import LoweringOptions


def test_a_language_model_moves_its_weights_and_states(library: Library) -> None:
    path = library.bundle(BY_ID["hf-plain"], LoweringOptions())
    found, manifest = xe.decode_bound(path), xe.Bundle.open(path).manifest
    assert found is not None
    assert found.moved == manifest.step_bytes + 2 * manifest.state_bytes
    assert found.memory == (path / DATA_FILE).stat().st_size + 2 * manifest.state_bytes
    assert found.tokens_per_second == found.bandwidth / found.moved
    assert 1e8 < found.bandwidth < 1e13
    assert xe.decode_bound(library.bundle(BY_ID["tirex-small"], LoweringOptions())) is None


def test_what_is_larger_than_caches_is_read_no_faster() -> None:
    assert read_bandwidth(1 << 28, 1) < 2 * read_bandwidth(1 << 20, 1)


def test_no_bundle_no_bound(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such folder"):
        xe.decode_bound(tmp_path / "none")
