"""How a model is divided, and what memory says of it."""

from __future__ import annotations

import pytest

from tests.model_cases import BY_ID, Library
from xlstm_export.bundle.checksum import bundle_sha256
from xlstm_export.bundle.manifest import read_manifest
from xlstm_export.errors import OptionError
from xlstm_export.families.registry import find_family
from xlstm_export.model.state import state_specs
from xlstm_export.runtime.open import Execution
from xlstm_export.validation.participants import Both, read_both
from xlstm_export.validation.segments.plan import divide, parse_memory, parts_of


def _both(library: Library, name: str) -> Both:
    bundle, source = library.bundle(BY_ID[name]), library.source(BY_ID[name])
    return read_both(
        bundle, read_manifest(bundle), bundle_sha256(bundle), source, find_family(source, "auto"),
        Execution(), None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "size"),
    [
        ("8GiB", 8 * 2**30), ("8 gib", 8 * 2**30), ("8GB", 8 * 10**9), ("8G", 8 * 10**9),
        ("1.5MiB", 3 * 2**19), ("700", 700), ("2TiB", 2**41), (5, 5), (None, None),
    ],
)  # fmt: skip
def test_a_size_of_memory(words: str | int | None, size: int | None) -> None:
    assert parse_memory(words) == size


@pytest.mark.parametrize("words", ["", "much", "8 GiB free", "-1GiB", "GiB", "8iB5"])
def test_what_is_no_size_is_refused(words: str) -> None:
    with pytest.raises(OptionError, match="is no size such as"):
        parse_memory(words)


@pytest.mark.parametrize(
    ("name", "paths"),
    [
        ("hf-plain", ["embedding", "layers.0.mlstm to layers.0.ffn",
                      "layers.1.mlstm to layers.1.ffn", "out_norm to head"]),
        ("stack-bare", ["layers.0.mlstm", "layers.1.slstm to layers.1.ffn", "layers.2.mlstm",
                        "out_norm"]),
        ("stack-bare-no-post-norm", ["layers.0.mlstm", "layers.1.slstm to layers.1.ffn",
                                     "layers.2.mlstm"]),
    ],
)  # fmt: skip
def test_parts_begin_where_states_are(library: Library, name: str, paths: list[str]) -> None:
    spec = library.checkpoint(BY_ID[name]).spec
    parts = parts_of(spec)
    assert [part.name for part in parts] == paths
    assert [layer for part in parts for layer in part.spec.layers] == list(spec.layers)
    assert parts[0].before == ""
    assert parts[-1].spec.outputs == spec.outputs


def test_memory_chooses_the_mode(library: Library) -> None:
    both = _both(library, "hf-plain")
    whole = divide(both, None).whole_bytes
    assert not divide(both, whole).parts
    division = divide(both, whole - 1)
    assert len(division.parts) == 4
    assert division.part_bytes < whole
    assert divide(both, division.part_bytes).parts
    with pytest.raises(OptionError, match=r"largest part of the model takes some .* GiB"):
        divide(both, division.part_bytes - 1)


def test_a_model_that_is_no_row_of_layers_stays_whole(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = _both(library, "tirex-small")
    with pytest.raises(OptionError, match="compared as a whole"):
        divide(both, 1)
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 1}))
    assert not divide(both, None).parts
    assert divide(_both(library, "hf-plain"), None).parts


def test_a_part_keeps_the_names_of_its_states(library: Library) -> None:
    both = _both(library, "stack-mixed")
    keys = [s.key for part in parts_of(both.checkpoint.spec) for s in state_specs(part.spec)]
    assert keys == [s.key for s in both.manifest.states]
