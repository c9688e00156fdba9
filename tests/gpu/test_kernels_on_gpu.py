"""Every CUDA kernel on a GPU, held to the one rule; `pytest tests/gpu` is all it takes.

The library is built beforehand (-DXLSTM_CUDA=ON) and looked for in xlstm_export/lib or in the
folder that XLSTM_LIBRARY_DIR names. Inputs are fresh in each run: XLSTM_SEED repeats one.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from threading import Barrier, Thread

import numpy as np
import pytest

from tests.cases import OP_CASES, Array, Inputs, OpCase, make_inputs, odd_states, poisoned
from tests.gpu.driver import DRIVER_VARIABLE, Stream, driver
from tests.gpu.kernels import DeviceRun, choose, run_gpu, why_not
from tests.ops.op_models import assert_within_rule
from xlstm_export.ops.catalog import CATALOG
from xlstm_export.ops.schema import TX_DTYPES

REASON = why_not()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))

SEED = int(os.environ.get("XLSTM_SEED") or secrets.randbelow(1 << 31))
STEPS = 200
every_tx = pytest.mark.parametrize("tx", TX_DTYPES)


def case_of(op: str, sizes: str, **attributes: float) -> OpCase:
    pairs = tuple((word[0], int(word[1:])) for word in sizes.split())
    return OpCase(op, pairs, tuple(attributes.items()))


MODEL_SIZES = (
    case_of("XlstmMLSTM", "B1 T1 N8 K256 V512", gate_soft_cap=15.0),  # xLSTM-7B
    case_of("XlstmMLSTM", "B1 T300 N8 K256 V512", gate_soft_cap=15.0),
    case_of("XlstmMLSTM", "B32 T1 N8 K256 V512", gate_soft_cap=15.0),
    case_of("XlstmMLSTM", "B1 T40 N4 K1024 V1024", scale_side=1),  # xLSTM[7:1]-1.3B
    case_of("XlstmMLSTM", "B3 T7 N2 K512 V96", gate_soft_cap=15.0),
    case_of("XlstmMLSTM", "B3 T65 N4 K192 V384"),
    case_of("XlstmSLSTM", "B4 T64 N4 H128", state_rounding=1, f_clamp=15.0),  # TiRex
    case_of("XlstmSLSTM", "B160 T12 N4 H128", state_rounding=1, f_clamp=15.0),
    case_of("XlstmSLSTM", "B2 T40 N4 H512", n_floor=1.0),
    case_of("XlstmSLSTM", "B1 T10 N1 H2048"),
    case_of("XlstmCausalConv1d", "B2 T300 D4096 W4", activation=1),
    case_of("XlstmCausalConv1d", "B64 T1 D2048 W4", activation=1),
)
STEP_CASES = (
    case_of("XlstmMLSTM", "B2 T1 N3 K96 V80", gate_soft_cap=15.0),
    case_of("XlstmMLSTM", "B1 T1 N1 K600 V40", scale_side=1),
    case_of("XlstmSLSTM", "B3 T1 N4 H96"),
    case_of("XlstmSLSTM", "B2 T1 N2 H64", state_rounding=1, n_floor=1.0),
    case_of("XlstmCausalConv1d", "B3 T1 D200 W4", activation=1),
)


def assert_same_bits(got: Inputs, wanted: Inputs, what: str) -> None:
    for name, value in wanted.items():
        assert got[name].tobytes() == value.tobytes(), f"{what}: {name} differs, seed {SEED}"


# --- the numbers -------------------------------------------------------------------------------


@every_tx
@pytest.mark.parametrize("case", [*OP_CASES, *MODEL_SIZES], ids=str)
def test_kernel_obeys_the_rule(case: OpCase, tx: str) -> None:
    inputs = make_inputs(case, tx, SEED)
    separate = run_gpu(case, poisoned(case, inputs), tx, shift=1)
    print(f"seed {SEED}")
    assert_within_rule(case, inputs, tx, separate)
    assert_same_bits(run_gpu(case, inputs, tx), separate, "again")
    assert_same_bits(run_gpu(case, inputs, tx, alias=True), separate, "states in place")


@every_tx
@pytest.mark.parametrize("op", list(CATALOG))
@pytest.mark.parametrize("alias", [False, True])
def test_rows_without_a_step_keep_their_states_bit_for_bit(op: str, tx: str, alias: bool) -> None:
    case = next(c for c in OP_CASES if c.op == op and c.size["B"] > 1 and c.size["T"] > 60)
    case = OpCase(op, case.sizes, lengths=(0,) * case.size["B"])
    inputs = poisoned(case, odd_states(case, make_inputs(case, tx, SEED)))
    got = run_gpu(case, inputs, tx, alias=alias)
    for given, out in CATALOG[op].states:
        assert got[out].tobytes() == inputs[given].astype(got[out].dtype).tobytes(), out
    assert not got[CATALOG[op].outputs[0].name].astype(np.float64).any()


def test_the_likeliest_token_of_each_row() -> None:
    """Of few values, so that many are equal, at a step of each row's own."""
    random = np.random.default_rng(SEED)
    for batch, vocabulary in ((1, 50_304), (300, 1025), (3, 5)):
        logits = random.integers(-3, 4, (batch, 2, vocabulary)).astype(np.float32)
        logits[-1, 1, vocabulary // 2] = np.nan
        steps = random.integers(0, 2, batch)
        steps[-1] = 1
        tokens, values = choose(logits, steps)
        rows = logits[range(batch), steps]
        np.testing.assert_array_equal(tokens, rows.argmax(axis=1), f"seed {SEED}")
        np.testing.assert_array_equal(values, rows[range(batch), tokens], f"seed {SEED}")


# --- graphs ------------------------------------------------------------------------------------


def warm(run: DeviceRun) -> DeviceRun:
    """Launched once: the runtime loads a kernel when it is first launched, and not in a capture."""
    run.launch()
    run.results()
    return run


def fresh_steps(case: OpCase, tx: str) -> list[Inputs]:
    """Inputs over time of each step of a rollout."""
    over_time = {spec.name for spec in CATALOG[case.op].inputs if "T" in spec.dims}
    drawn = [make_inputs(case, tx, SEED + step) for step in range(STEPS)]
    return [{n: a for n, a in inputs.items() if n in over_time} for inputs in drawn]


def plain_rollout(case: OpCase, tx: str) -> list[dict[str, Array]]:
    """Results of every step, states in buffers of their own that change places."""
    run = DeviceRun(case, make_inputs(case, tx, SEED), tx)
    results = []
    for step, inputs in enumerate(fresh_steps(case, tx)):
        if step > 0:
            run.exchange_states()
        run.write(inputs)
        run.launch()
        results.append(run.results())
    return results


@every_tx
@pytest.mark.parametrize("case", STEP_CASES, ids=str)
def test_a_graph_with_states_in_place_equals_plain_runs(case: OpCase, tx: str) -> None:
    inputs = make_inputs(case, tx, SEED)
    run = warm(DeviceRun(case, inputs, tx, alias=True))
    run.write(inputs)
    with run.stream.capture() as graph:
        run.launch()
    assert 1 <= graph.nodes() <= 2
    for step, (inputs, wanted) in enumerate(
        zip(fresh_steps(case, tx), plain_rollout(case, tx), strict=True)
    ):
        run.write(inputs)
        graph.launch(run.stream)
        assert_same_bits(run.results(), wanted, f"step {step}")


def assert_two_graphs_equal_plain_runs(run: DeviceRun, case: OpCase, tx: str) -> None:
    """A rollout by one graph for each way round of the states' two sets of buffers."""
    graphs = []
    for _ in range(2):
        with run.stream.capture() as graph:
            run.launch()
        graphs.append(graph)
        run.exchange_states()
    for step, (inputs, wanted) in enumerate(
        zip(fresh_steps(case, tx), plain_rollout(case, tx), strict=True)
    ):
        if step > 0:
            run.exchange_states()
        run.write(inputs)
        graphs[step % 2].launch(run.stream)
        assert_same_bits(run.results(), wanted, f"step {step}")


@every_tx
@pytest.mark.parametrize("case", STEP_CASES, ids=str)
def test_two_graphs_with_separate_states_equal_plain_runs(case: OpCase, tx: str) -> None:
    run = warm(DeviceRun(case, make_inputs(case, tx, SEED), tx))
    assert_two_graphs_equal_plain_runs(run, case, tx)


@pytest.mark.parametrize("case", [c for c in OP_CASES if c.size["T"] > 60], ids=str)
def test_a_graph_of_a_sequence_equals_a_plain_run(case: OpCase) -> None:
    inputs = make_inputs(case, "float32", SEED)
    run = warm(DeviceRun(case, inputs, "float32"))
    with run.stream.capture() as graph:
        run.launch()
    assert 1 <= graph.nodes() <= 2
    graph.launch(run.stream)
    assert_same_bits(run.results(), run_gpu(case, inputs, "float32"), "graph")


# --- several at once ---------------------------------------------------------------------------


@pytest.mark.parametrize("op", list(CATALOG))
def test_threads_with_streams_of_their_own_do_not_disturb_each_other(op: str) -> None:
    cases = [c for c in (*OP_CASES, *MODEL_SIZES) if c.op == op and 7 <= c.size["T"] < 200][-2:]
    jobs = [(case, make_inputs(case, "float32", SEED)) for case in cases]
    alone = [run_gpu(case, inputs, "float32") for case, inputs in jobs]
    barrier = Barrier(len(jobs))
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            driver().use()
            case, inputs = jobs[number]
            runs = [DeviceRun(case, inputs, "float32", stream=stream) for stream in (Stream(),) * 8]
            barrier.wait()
            for run in runs:
                run.launch()
            for run in runs:
                assert_same_bits(run.results(), alone[number], f"thread {number}")
        except BaseException as error:
            failures.append(error)

    threads = [Thread(target=work, args=(number,)) for number in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures


# --- compute-sanitizer -------------------------------------------------------------------------


@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "synccheck", "initcheck"])
def test_compute_sanitizer_reports_nothing(tool: str) -> None:
    if os.environ.get(DRIVER_VARIABLE):
        pytest.skip("compute-sanitizer needs a real GPU")
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        pytest.skip("no compute-sanitizer: install the CUDA toolkit")
    command = [sanitizer, "--tool", tool, "--error-exitcode", "9", sys.executable, "-m",
               "tests.gpu.sweep"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "calls" in done.stdout
