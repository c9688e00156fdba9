"""The benchmarks' own arithmetic: rates, ratios, a model's limit, the nodes of a profile."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.bench_serving import growth
from benchmarks.contender import Maker, Side
from benchmarks.harness import Comparison, Contender, Timing, compare
from benchmarks.limits import COPIES, ThreadedCopy, copy_contenders, ort_matmul
from benchmarks.model_matmuls import MatMuls, all_alone, one_step, read_matmuls
from benchmarks.op_contenders import contenders, ort_side
from benchmarks.op_peers import torch_makers
from benchmarks.profile_model import node_times, profile
from tests.cases import OpCase
from tests.families.large_checkpoints import make_hf
from xlstm_export import pipeline
from xlstm_export.checkpoint.source import Source
from xlstm_export.lowering.options import LoweringOptions

ROOT = Path(__file__).resolve().parents[2]
CASES = [
    OpCase("XlstmMLSTM", (("B", 1), ("T", 64), ("N", 2), ("K", 8), ("V", 16))),
    OpCase("XlstmMLSTM", (("B", 1), ("T", 1), ("N", 2), ("K", 8), ("V", 16))),
    OpCase("XlstmSLSTM", (("B", 1), ("T", 9), ("N", 2), ("H", 8)), state="zero"),
    OpCase("XlstmCausalConv1d", (("B", 2), ("T", 9), ("D", 8), ("W", 4)), (("activation", 1),)),
]


def test_rates_and_ratios_are_taken_turn_by_turn() -> None:
    ours = Timing("ours", (1.0, 2.0, 4.0), work=6.0)
    limit = Timing("limit", (1.0, 8.0, 8.0), work=3.0)
    comparison = Comparison("x", (ours, limit))
    assert comparison.ratio(0, 1).median == 2.0  # of 1, 4, 2; the medians' ratio is 4
    assert comparison.relative_rate(0, 1) == 4.0
    assert ours.rate == 3.0
    with pytest.raises(ValueError, match="work"):
        Comparison("x", (ours, Timing("y", (1.0, 1.0, 1.0)))).relative_rate(0, 1)


def test_time_of_one_repeat_counts() -> None:
    calls = []

    def call() -> None:
        calls.append(sum(range(20_000)))

    [once, tenth] = compare(
        "x", [Contender("a", call), Contender("b", call, repeats=10)], turns=9, calls=3
    ).timings
    assert 5 < once.median / tenth.median < 20
    assert len(calls) == 2 * (1 + 9 * 4)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_peer_computes_the_operator(case: OpCase) -> None:
    body = Maker("body", lambda: ort_side(case, 1, native=False))
    able, missing = contenders([body, *torch_makers(case, compiled=False)], None)
    assert not missing
    assert len(able) == 3
    assert all(peer.difference is not None and peer.difference < 1e-5 for peer in able[1:])


def test_contenders_that_disagree_are_not_timed() -> None:
    def side(value: float) -> Side:
        return Side(lambda: None, lambda: {"h": np.array([value])})

    def broken() -> Side:
        raise RuntimeError("no compiler\nand more")

    one = Maker("one", lambda: side(1.0))
    able, missing = contenders([one, Maker("broken", broken), one], 1.0)
    assert [c.name for c in able] == ["one", "one"]
    assert missing == [("broken", "no compiler")]
    for wrong in (1.1, np.nan):
        with pytest.raises(SystemExit, match="does not agree"):
            contenders([one, Maker("wrong", lambda wrong=wrong: side(wrong))], 1.0)  # type: ignore[misc]


def test_copies_read_and_write_every_byte() -> None:
    copier = ThreadedCopy(1001, 3)
    copier._source[:] = np.random.default_rng(0).integers(0, 256, 1001)
    copier()
    np.testing.assert_array_equal(copier._target, copier._source)
    assert {c.work for c in copy_contenders(4096, 2)} == {8192.0}
    assert [c.repeats for c in copy_contenders(4096, 2)] == [1, COPIES]


def test_matmul_session_writes_into_the_buffer() -> None:
    x, weight = np.ones((1, 3, 4), np.float32), np.full((4, 5), 2, np.float32)
    run = ort_matmul(x, weight, 1)
    run()
    assert (run.outputs["y"] == 8).all()


def test_matmuls_of_a_model_are_all_there(tmp_path: Path) -> None:
    make_hf(tmp_path / "source", embedding_dim=32, num_blocks=3, num_heads=2, vocab_size=50)
    bundle = tmp_path / "bundle"
    pipeline.export_source(Source(tmp_path / "source"), bundle, LoweringOptions())
    matmuls = read_matmuls(bundle)
    assert sum(matmuls.shapes.values()) == 3 * 4 + 1
    assert matmuls.shapes[32, 50] == 1
    N, K, V = 2, 8, 16
    assert matmuls.recurrent_flop == 3 * N * (4 * K * V + 64 * (K + V))
    step = one_step(matmuls, 1)
    step.call()
    assert step.work == sum(2 * np.prod(list(w.dims)) for w in matmuls.weights)


def test_limit_of_a_prefill_counts_each_shape_as_often_as_the_model_has_it() -> None:
    weights = tuple(_weight(dims) for dims in [(2, 3), (4, 5), (2, 3)])
    matmuls = MatMuls(Path("x"), weights, recurrent_flop=7.0)
    timing = all_alone(matmuls, 10, [Timing("a", (1.0, 2.0)), Timing("b", (10.0, 30.0))])
    assert timing.turns == (12.0, 34.0)
    assert timing.work == 10 * 2 * (2 * 6 + 20)
    assert matmuls.flop == 2 * (2 * 6 + 20) + 7


def test_recurrences_of_a_profile() -> None:
    def event(name: str, op: str, ts: int, dur: int) -> dict[str, Any]:
        return {"name": f"{name}_kernel_time", "ts": ts, "dur": dur, "args": {"op_name": op}}

    run = [
        event("/a", "MatMul", 0, 10),
        event("/b", "XlstmMLSTM", 10, 5),
        event("SkipLayerNormalization", "SkipLayerNormalization", 20, 3),
    ]
    events = run + [{**e, "ts": e["ts"] + 100} for e in run]
    native = node_times(events, 2, bodies=False)
    assert [n.recurrence for n in native] == [False, True, False]
    assert [n.seconds for n in native] == pytest.approx([10e-6, 5e-6, 3e-6])
    assert [n.recurrence for n in node_times(events, 2, bodies=True)] == [False, True, True]


def test_a_profile_feeds_ids_of_the_vocabulary(tmp_path: Path) -> None:
    make_hf(tmp_path / "source", num_blocks=1, vocab_size=11)
    pipeline.export_source(Source(tmp_path / "source"), tmp_path / "bundle", LoweringOptions())
    measured = profile(tmp_path / "bundle", 70, threads=1, runs=2)
    assert 0 < measured.recurrent_share < 1


@pytest.mark.parametrize(
    "bench", ["bench_export", "bench_images", "bench_models", "bench_ops", "bench_variates"]
)
def test_a_tryout_is_not_judged(bench: str) -> None:
    done = _run(bench, "--quick", "--check")
    assert done.returncode == 2
    assert "--check judges full sizes" in done.stderr


def test_a_tryout_shows_no_bars() -> None:
    done = _run("bench_export", "--quick")
    assert done.returncode == 0, done.stderr
    assert "peak VmHWM" in done.stdout
    assert "No bars" in done.stdout
    assert "pass" not in done.stdout
    assert "fail" not in done.stdout


def _run(bench: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"benchmarks.{bench}", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def _weight(dims: tuple[int, int]) -> Any:
    from onnx import helper

    return helper.make_tensor("w", 1, dims, np.zeros(dims, np.float32).tobytes(), raw=True)


def test_growth_of_memory_is_what_stays() -> None:
    """MiB a second for 300 s; a moment's use counts for nothing, least of all at the end."""
    seconds = np.arange(300)
    leak = (100 + seconds) * 2**20
    assert growth(leak.tolist()) == pytest.approx(120)
    warm = np.minimum(100 + seconds, 200) * 2**20
    warm[[155, 298, 299]] += 64 * 2**20
    assert growth(warm.tolist()) == 0
