"""bench: what it says was measured was measured, and what could not be has a reason."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

import xlstm_export as xe
from tests.cli.terminal import assert_short_error, run_cli, succeed, succeed_json
from tests.families.block_stack_checkpoints import make_block_stack
from tests.families.vil_checkpoints import make_vil
from tests.model_cases import BY_ID, Library
from tests.runtime.conformance import bound
from xlstm_export import benchmark
from xlstm_export.runtime.open import Execution
from xlstm_export.runtime.ort import OrtSession

QUICK = {"rows": (1, 3), "prompt": 5, "steps": 4}


def test_a_language_model_beside_pytorch(library: Library) -> None:
    case = BY_ID["stack-mixed"]
    made = xe.bench(library.bundle(case), library.source(case).path, threads=1, **QUICK)  # type: ignore[arg-type]
    found = [(m.backend, m.rows) for m in made.measured]
    names = ("ort", "ort, function bodies", "pytorch")
    assert found == [(name, rows) for name in names for rows in (1, 3)]
    by_kernel, by_body, peer = made.measured[::2]
    assert "native CPU kernels" in by_kernel.operators
    assert "function bodies" in by_body.operators
    assert "torch reference, chunkwise, float32" in peer.name
    for m in made.measured:
        assert m.unit == "tokens"
        assert 0 < m.p50 <= m.p95 <= m.p99
        assert m.first > 0
        assert m.rate > 0
    assert made.ratio(by_kernel) == by_kernel.rate / peer.rate
    assert made.ratio(peer) is None
    (missing,) = made.missing
    assert missing[0] == "ort-cuda"
    assert "no CUDA provider" in missing[1]


def test_a_part_of_another_model_and_another_resolution(tmp_path: Path) -> None:
    """The PyTorch side is the model that the bundle was made from."""
    source = make_vil(tmp_path, layout="module", file="vil.safetensors")
    tensors = load_file(source.path)
    save_file({f"backbone.{name}": x for name, x in tensors.items()}, source.path)
    given = {"prefix": "backbone"}
    bundle = xe.export(source.path, tmp_path / "out", resolution="36x8", **given)  # type: ignore[arg-type]
    words = ("--rows", 1, "--steps", 2, "--threads", 1)
    found = succeed_json(
        "bench", bundle.path, "--reference", source.path, "--prefix", "backbone", *words
    )
    assert found["measured"][-1]["backend"] == "pytorch"


def test_another_model_beside_it_is_told_and_the_rest_kept(library: Library) -> None:
    bundle, other = library.bundle(BY_ID["stack-mixed"]), library.source(BY_ID["vil-two"]).path
    small = library.root / "small"
    make_block_stack(small)
    for reference, says in ((other, "takes no images|takes pixel_values"), (small, "logits of 11")):
        made = xe.bench(bundle, reference, rows=[1], prompt=2, steps=2, threads=1)
        assert [m.backend for m in made.measured] == ["ort", "ort, function bodies"]
        assert re.search(says, dict(made.missing)["pytorch"])


def test_a_gpu_is_measured_with_and_without_graphs(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is one: here the sessions bind the host's memory."""
    asked: list[bool] = []

    def opened(bundle: Path, how: Execution) -> OrtSession:
        asked.append(how.cuda_graph)
        return bound(bundle, graphs=how.cuda_graph)

    monkeypatch.setattr(benchmark, "open_session", opened)
    made = xe.bench(library.bundle(BY_ID["stack-mixed"]), rows=[2], prompt=3, steps=3)
    names = ["ort", "ort, function bodies", "ort-cuda", "ort-cuda, CUDA graphs"]
    assert [m.backend for m in made.measured] == names
    assert asked == [False, False, False, True]
    assert not made.missing


@pytest.mark.parametrize(
    ("case", "unit"), [("stack-bare", "steps"), ("tirex-small", "series"), ("vil-two", "images")]
)
def test_models_of_other_kinds(library: Library, case: str, unit: str) -> None:
    made = xe.bench(library.bundle(BY_ID[case]), threads=1, **QUICK)  # type: ignore[arg-type]
    assert {m.unit for m in made.measured} == {unit}
    assert {m.rows for m in made.measured} == {1, 3}


def test_a_rate_is_rows_over_time(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a clock that gains 10 ms a call: 3 rows a step are 300 tokens a second."""

    def seconds(call: object) -> float:
        call()  # type: ignore[operator]
        return 0.01

    monkeypatch.setattr(benchmark, "_seconds", seconds)
    made = xe.bench(library.bundle(BY_ID["stack-mixed"]), rows=[3], prompt=1025, steps=2)
    for m in made.measured:
        np.testing.assert_allclose([m.rate, m.p50, m.p99], [300, 0.01, 0.01])
        np.testing.assert_allclose(m.first, 0.03)  # three pieces of at most 512


def test_the_command_line(library: Library) -> None:
    bundle = library.bundle(BY_ID["stack-mixed"])
    words = ("bench", bundle, "--rows", 2, "--prompt", 3, "--steps", 2, "--threads", 1)
    content = succeed_json(*words)
    assert [m["rows"] for m in content["measured"]] == [2, 2]
    assert content["measured"][0]["times_pytorch"] is None
    table = succeed(*words)
    assert "tokens/s" in table
    assert "p99" in table


def test_what_cannot_be(library: Library, tmp_path: Path) -> None:
    bundle = library.bundle(BY_ID["stack-mixed"])
    with pytest.raises(xe.OptionError, match="0 is not 1 or more"):
        xe.bench(bundle, steps=0)
    bf16 = library.bundle(BY_ID["stack-mixed"], dtype="bfloat16")
    with pytest.raises(xe.BundleError, match="no backend runs it here"):
        xe.bench(bf16)
    assert_short_error(run_cli("bench", tmp_path / "none"), "no such folder")
