"""The GPU benchmark's whole course on the CUDA emulator: structure and numbers, never times."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.contender import Maker, Side
from benchmarks.gpu.bench_ops import (
    COPIES,
    NOT_COMPILED,
    PARTS,
    Bench,
    choose,
    own_failures,
    run,
    time_limit,
)
from benchmarks.gpu.measure import (
    AGREEMENT,
    Effort,
    Row,
    Table,
    difference,
    lines_of,
    measure,
)
from benchmarks.gpu.peers import peers
from benchmarks.gpu.place import Place
from benchmarks.gpu.workloads import DRAWN_STEPS, Workload, workloads
from tests.cases import OpCase
from tests.cuda.on_cpu import ROOT, build, needs_compiler
from tests.gpu.driver import DRIVER_VARIABLE
from tests.gpu.kernels import LIBRARY
from xlstm_export.native import FOLDER_VARIABLE
from xlstm_export.ops.catalog import CATALOG

SHIM = ROOT / "tests" / "cuda" / "shim"


def workload(op: str, sizes: str, **given: Any) -> Workload:
    pairs = tuple((word[0], int(word[1:])) for word in sizes.split())
    state = "zero" if op == "XlstmSLSTM" else "random"
    attributes = (("activation", 1),) if op == "XlstmCausalConv1d" else ()
    return Workload("x", f"{op} {sizes}", OpCase(op, pairs, attributes, state=state), **given)  # type: ignore[arg-type]


SMALL = {
    "step": workload("XlstmMLSTM", "B8 T1 N2 K16 V32"),
    "chunks": workload("XlstmMLSTM", "B2 T128 N2 K16 V32"),
    "odd": workload("XlstmMLSTM", "B1 T100 N2 K16 V32"),
    "slstm": workload("XlstmSLSTM", "B4 T9 N2 H16"),
    "slstm step": workload("XlstmSLSTM", "B1 T1 N2 H16"),
    "conv": workload("XlstmCausalConv1d", "B2 T40 D24 W4"),
    "conv step": workload("XlstmCausalConv1d", "B8 T1 D24 W4"),
}
PEERS = {
    "step": {"torch, our reference", "mlstm_kernels, native step"},
    "chunks": {"torch, our reference", "mlstm_kernels, native chunkwise"},
    "odd": {"torch, our reference"},
    "slstm": {"torch, our reference", "xlstm, vanilla"},
    "slstm step": {"torch, our reference", "xlstm, vanilla"},
    "conv": {"torch, our reference", "torch, grouped conv1d"},
    "conv step": {"torch, our reference", "torch, grouped conv1d"},
}
"""Those that run on a CPU too."""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Where the emulator stands for the library and, with events, for the driver."""
    folder, emulator = tmp_path_factory.mktemp("gpu"), build()
    (folder / LIBRARY).symlink_to(emulator / "libxlstm_cuda_on_cpu.so")
    driver = folder / "libtiming_driver.so"
    command = [
        "g++", "-std=c++17", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", f"-I{SHIM}",
        str(Path(__file__).with_name("timing_driver.cpp")), "-o", str(driver), f"-L{emulator}",
        f"-Wl,--no-as-needed,-rpath,{emulator}", "-lxlstm_cuda_on_cpu",
    ]  # fmt: skip
    subprocess.run(command, check=True)
    settings = {DRIVER_VARIABLE: str(driver), FOLDER_VARIABLE: str(folder)}
    return {**os.environ, **settings, "OMP_NUM_THREADS": "1"}


def python(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def measured_on_the_emulator(names: Sequence[str], device: str | None, path: Path) -> None:
    """What the child process of the tests below does: the run with small sizes."""
    from benchmarks.gpu.device import Timer
    from tests.gpu.driver import Stream

    stream = Stream()
    effort = Effort(turns=2, seconds=0.01, most_calls=2)
    bench = Bench(stream, Timer(stream), effort, time.monotonic() + 600, device, "no CUDA torch",
                  matmul_size=64)  # fmt: skip
    tables = run([(SMALL[n], tx) for n in names for tx in SMALL[n].dtypes], bench, lambda t: None)
    bench.deadline = 0
    assert run([(SMALL[names[0]], "float32")], bench, lambda t: None) == []
    late = bench.table(SMALL[names[0]], "float32").rows
    ours = [row for row in late if row.name.startswith("ours")]
    assert len(ours) >= 1 + SMALL[names[0]].is_step
    assert all(row.seconds for row in ours)
    assert device is None or {row.reason for row in late if not row.seconds} == {
        "the time of the whole run is up: --seconds"
    }
    rows = [
        {"title": t.title, "dtype": t.dtype, "name": r.name, "mode": r.mode, "reason": r.reason,
         "turns": len(r.seconds), "difference": r.difference, "text": "\n".join(lines_of(t))}
        for t in tables for r in t.rows
    ]  # fmt: skip
    path.write_text(json.dumps([rows, own_failures(tables)]))


def small_run(
    environment: dict[str, str], names: list[str], device: str | None, folder: Path
) -> list[dict[str, Any]]:
    path = folder / "rows.json"
    code = (
        "from pathlib import Path; import tests.benchmarks.test_gpu_bench as t;"
        f"t.measured_on_the_emulator({names!r}, {device!r}, Path({str(path)!r}))"
    )
    done = python(environment, "-c", code)
    assert done.returncode == 0, done.stderr[-4000:]
    rows, failures = json.loads(path.read_text())
    assert failures == []
    found: list[dict[str, Any]] = rows
    return found


def compiles(row: dict[str, Any]) -> bool:
    return bool(row["reason"] == NOT_COMPILED)


@needs_compiler
@pytest.mark.parametrize("name", list(SMALL))
def test_every_contender_is_compared_and_timed(
    environment: dict[str, str], name: str, tmp_path: Path
) -> None:
    rows = small_run(environment, [name], "cpu", tmp_path)
    step = SMALL[name].is_step
    for tx in SMALL[name].dtypes:
        found = [row for row in rows if row["dtype"] == tx]
        timed = {(row["name"], row["mode"]) for row in found if row["turns"] == 2}
        modes = {"stream", "graph"} if step else {"stream"}
        copy = "limit: copy of the same bytes"
        assert {(n, m) for n in ("ours, plain", copy) for m in modes} <= timed
        if name == "step":  # in the second type and the third too: the plain one stays its turn's
            assert {("ours, step", mode) for mode in modes} <= timed
        named = {(n.removesuffix(" (in float32)"), m) for n, m in timed}
        assert {(n, "stream") for n in PEERS[name]} <= named, found
        for row in found:
            assert (row["turns"] == 2) == (row["reason"] == ""), row
            if row["turns"] and not row["name"].startswith("limit"):
                assert row["difference"] < AGREEMENT[tx] / 2, row
        reasons = {row["name"]: row["reason"] for row in found if row["mode"] == "graph"}
        assert set(reasons) == {row["name"] for row in found if not compiles(row)} or not step
        for peer, reason in reasons.items():
            assert reason.startswith(("torch captures", "waits for", "mlstm_kernels finds")) or (
                peer.startswith("ours") or peer == copy
            )
        if not step and name in ("chunks", "odd"):
            assert ("limit: torch.matmul, 64 cubed", "stream") in {
                (row["name"], row["mode"]) for row in found
            }


@needs_compiler
def test_without_torch_on_the_gpu_ours_is_still_timed(
    environment: dict[str, str], tmp_path: Path
) -> None:
    rows = small_run(environment, ["step"], None, tmp_path)
    [missing] = {row["reason"] for row in rows if row["name"] == "torch and upstream"}
    assert missing == "no CUDA torch"
    assert all(row["turns"] == 2 for row in rows if row["name"].startswith("ours"))
    assert missing in rows[0]["text"]


@needs_compiler
def test_the_program_writes_tables_and_json(environment: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    only = ("conv", "--only", "B=1, T=1, bfloat16", "--json", str(path))
    done = python(environment, "-m", "benchmarks.gpu.bench_ops", *only)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "gpu: emulator" in done.stdout
    assert "no times of a GPU" in done.stdout
    assert "too large for the GPU" not in done.stdout
    found = json.loads(path.read_text())
    assert found["machine"]["gpu"] == "emulator"
    assert {"clocks", "clocks_after", "packages", "l2_cache_bytes"} <= found["machine"].keys()
    [table] = found["tables"]
    named = [row["name"] for row in table["rows"][:4]]
    assert named == 2 * ["ours, vector"] + 2 * ["ours, plain"]
    assert len(table["rows"][0]["seconds"]) == 5
    assert found["left_out"] == []


@needs_compiler
def test_what_the_gpu_cannot_hold_is_named(environment: dict[str, str]) -> None:
    """The emulator says 1 GiB."""
    large = ("mlstm_step", "--only", "8x256/512, B=256, T=1, float32")
    done = python(environment, "-m", "benchmarks.gpu.bench_ops", *large)
    assert done.returncode == 1
    assert "leave no size" in done.stderr
    late = ("conv", "--only", "T=1, bfloat16", "--seconds", "-1")
    done = python(environment, "-m", "benchmarks.gpu.bench_ops", *late)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "time was up (--seconds): convolution D=4096 W=4 SiLU, B=1, T=1, bfl" in done.stdout


def test_without_a_gpu_one_line_says_so(tmp_path: Path) -> None:
    (tmp_path / LIBRARY).touch()
    settings = {FOLDER_VARIABLE: str(tmp_path), DRIVER_VARIABLE: str(tmp_path / "none.so")}
    done = python({**os.environ, **settings}, "-m", "benchmarks.gpu.bench_ops")
    assert done.returncode == 1
    assert done.stderr.startswith("nothing to measure: no GPU")
    assert len(done.stderr.splitlines()) == 1


def test_needs_no_package_but_numpy_ml_dtypes_and_torch() -> None:
    """Every other package is hidden, by name, from a fresh process."""
    code = (
        "import sys\n"
        "for name in ('rich', 'onnx', 'onnx_ir', 'onnxruntime', 'typer', 'dacite', 'yaml',"
        " 'safetensors', 'xlstm', 'mlstm_kernels', 'flashrnn', 'triton', 'pytest'):\n"
        "    sys.modules[name] = None\n"
        "import benchmarks.gpu.bench_ops, benchmarks.gpu.place, benchmarks.gpu.peers\n"
    )
    done = python(dict(os.environ), "-c", code)
    assert done.returncode == 0, done.stderr[-2000:]


# --- the parts ---------------------------------------------------------------------------------


def test_repeated_inputs_have_every_row_and_step() -> None:
    big = workload("XlstmMLSTM", f"B8 T{DRAWN_STEPS + 3} N1 K2 V3")
    arrays = big.arrays("bfloat16")
    for spec in CATALOG["XlstmMLSTM"].inputs:
        if spec.type != "lengths":
            assert arrays[spec.name].shape == big.case.shape(spec.dims)
    assert (arrays["q"][:, DRAWN_STEPS:] == arrays["q"][:, :3]).all()
    assert (arrays["C"][4:] == arrays["C"][:4]).all()
    assert not (arrays["C"][0] == arrays["C"][1]).all()
    assert big.compared(arrays)["q"].shape[0] == 4
    assert big.nbytes("bfloat16") == sum(
        int(np.prod(big.case.shape(s.dims))) * (2 if s.type == "TX" else 4)
        for s in (*CATALOG["XlstmMLSTM"].inputs, *CATALOG["XlstmMLSTM"].outputs)
        if s.type != "lengths"
    )


def test_every_size_of_the_list_can_be_compared_at_both_ends() -> None:
    for each in workloads():
        assert each.case.size["B"] % each.rows == 0, each.title
        assert each.part in PARTS
        layers = each.layers("float32")
        assert layers == 1 or layers * each.nbytes("float32") <= 512 << 20
    quick = choose(PARTS, "", quick=True)
    assert {w.part for w, _ in quick} == set(PARTS)
    assert len(quick) <= 6
    every = choose(PARTS, "", quick=False)
    assert len(every) == sum(len(w.dtypes) for w in workloads())
    assert all(COPIES * w.nbytes(tx) < 72 << 30 for w, tx in every), "an H100 holds all"


def test_difference_sees_both_ends_and_nan() -> None:
    exact = {"h": np.array([[1.0], [2.0]])}
    good = np.array([[1.0], [2.0], [1.0], [2.0]])
    assert difference({"h": good}, exact) == 0
    for row in (0, 3):
        for wrong, far in ((good[row, 0] + 1, 0.5), (np.nan, np.inf)):
            bad = good.copy()
            bad[row] = wrong
            assert difference({"h": bad}, exact) == far


class SteppingTimer:
    """Every call takes as long as the side says, in turn."""

    def __init__(self) -> None:
        self.stream = self

    def wait(self) -> None:
        pass

    def seconds(self, queue: Any) -> float:
        return float(queue())


def test_who_is_wrong_or_missing_is_not_timed_and_ratios_are_of_the_same_mode() -> None:
    def side(value: float, seconds: float, repeats: int = 1) -> Side:
        return Side(lambda: seconds, lambda: {"h": np.array([[value]])}, repeats)

    def broken() -> Side:
        raise RuntimeError("no compiler\nand more")

    makers = [
        Maker("ours", lambda: side(1.0, 2e-3), "stream"),
        Maker("ours", lambda: side(1.0, 8e-3, repeats=8), "graph"),
        Maker("peer", lambda: side(1.001, 3e-3), "graph"),
        Maker("wrong", lambda: side(1.1, 1.0), "stream"),
        Maker("broken", broken, "stream"),
        Maker("limit", lambda: Side(lambda: 1e-3, work=5.0), "stream"),
    ]
    exact = {"h": np.array([[1.0]])}
    rows = measure(makers, exact, "float32", SteppingTimer(), Effort(turns=3), 7.0)  # type: ignore[arg-type]
    table = Table("x", "float32", 1, "B", rows)
    assert [len(row.seconds) for row in rows] == [3, 3, 3, 0, 0, 3]
    assert [table.ratio(row) for row in rows] == pytest.approx([None, None, 3.0, None, None, 0.5])
    assert rows[3].reason.startswith("does not agree with float64")
    assert rows[4].reason == "no compiler"
    assert rows[5].work == 5.0
    text = "\n".join(lines_of(table))
    assert all(row.name in text and row.reason in text for row in rows)
    failed = Table("x", "float32", 1, "B", (Row("ours", "stream", reason="r"), rows[4]))
    assert own_failures([failed]) == ["x, float32, stream: r"]


def test_time_limit_stops_the_body_and_leaves_no_alarm() -> None:
    with pytest.raises(TimeoutError, match="not ready after 1 s"), time_limit(1):
        time.sleep(30)
    with time_limit(0):
        time.sleep(0.01)


@pytest.mark.parametrize("name", list(SMALL))
@pytest.mark.parametrize("tx", ["float32", "bfloat16"])
def test_peers_that_need_a_gpu_give_a_reason_not_a_crash(name: str, tx: str) -> None:
    place = Place.__new__(Place)
    place.device, place._stream = "cpu", None
    tensors = place.tensors(SMALL[name].arrays(tx))
    assert all(torch.is_tensor(x) for x in tensors.values())
    names = [peer.name for peer in peers(SMALL[name], tx, "cpu")]
    assert PEERS[name] <= {name.removesuffix(" (in float32)") for name in names}
    assert len(names) == len(set(names))
