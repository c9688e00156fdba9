"""The real IPluginV3 objects on a GPU, from fields to numbers: bit for bit what the kernels give.

The kernels themselves are held to the rule in test_kernels_on_gpu.py. Both libraries are built
beforehand: python -m tests.plugins.trt_library FOLDER.
"""

from __future__ import annotations

from threading import Barrier, Thread

import pytest

from tests.cases import OP_CASES, OpCase, make_inputs, poisoned
from tests.gpu.driver import Stream, driver
from tests.gpu.kernels import run_gpu
from tests.gpu.plugins import TX, Plugin, PluginRun, why_no_plugins
from tests.gpu.test_kernels_on_gpu import (
    SEED,
    STEP_CASES,
    assert_same_bits,
    assert_two_graphs_equal_plain_runs,
    warm,
)
from xlstm_export.ops.catalog import CATALOG

REASON = why_no_plugins()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))
every_tx = pytest.mark.parametrize("tx", TX)


@every_tx
@pytest.mark.parametrize("case", OP_CASES, ids=str)
@pytest.mark.parametrize("alias", [False, True])
def test_plugin_gives_the_kernels_numbers(case: OpCase, tx: str, alias: bool) -> None:
    inputs = poisoned(case, make_inputs(case, tx, SEED))
    wanted = run_gpu(case, inputs, tx)
    run = PluginRun(Plugin(case), case, inputs, tx, alias=alias)
    run.launch()
    assert_same_bits(run.results(), wanted, f"plugin, states in place: {alias}")


@every_tx
@pytest.mark.parametrize("case", STEP_CASES, ids=str)
def test_a_graph_of_a_plugin_equals_plain_runs(case: OpCase, tx: str) -> None:
    """Two graphs, since states change places; a rollout of 200 steps."""
    run = warm(PluginRun(Plugin(case), case, make_inputs(case, tx, SEED), tx))
    assert_two_graphs_equal_plain_runs(run, case, tx)


@pytest.mark.parametrize("op", list(CATALOG))
def test_two_contexts_of_a_plugin_do_not_disturb_each_other(op: str) -> None:
    """Each on a stream and a thread of its own, at different shapes."""
    size = next(case.size for case in OP_CASES if case.op == op)
    shapes = ({"B": 1, "T": 1}, {"B": 2, "T": 7}, {"B": 3, "T": 33})
    cases = [OpCase(op, tuple((size | changes).items())) for changes in shapes]
    jobs = [(case, make_inputs(case, "float16", SEED)) for case in cases]
    alone = [run_gpu(case, inputs, "float16") for case, inputs in jobs]
    plugin = Plugin(cases[0], contexts=len(jobs))
    barrier = Barrier(len(jobs))
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            driver().use()
            case, inputs = jobs[number]
            runs = [
                PluginRun(plugin, case, inputs, "float16", context=number, stream=stream)
                for stream in (Stream(),) * 4
            ]
            barrier.wait()
            for run in runs:
                run.launch()
            for run in runs:
                assert_same_bits(run.results(), alone[number], f"context {number}")
        except BaseException as error:
            failures.append(error)

    threads = [Thread(target=work, args=(number,)) for number in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures
