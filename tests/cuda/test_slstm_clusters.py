"""The sLSTM with R split over a cluster, on the CPU: which calls it takes, and the rule."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.cases import OpCase, make_inputs, poisoned, run_in_pieces
from tests.cuda import on_cpu
from tests.cuda.on_cpu import DESCENDING, CudaRun, library, needs_compiler, run_cuda
from tests.cuda.test_slstm_registers import assert_same_bits, case_of
from tests.gpu.kernels import PLAIN, VARIABLES
from tests.ops.op_models import assert_within_rule

pytestmark = needs_compiler

SHUFFLED = 7
CASES = (
    (case_of("B1 T5 N1 H256", state="zero"), "bfloat16"),
    (case_of("B3 T4 N2 H200", lengths=(4, 0, 2), n_floor=1.0, f_clamp=15.0), "float16"),
    (case_of("B5 T3 N1 H133", gate_scale=6.0), "bfloat16"),  # R has no whole pieces
    (case_of("B9 T2 N1 H160", state_rounding=1, lengths=(2,) * 8 + (1,)), "bfloat16"),
    (case_of("B133 T1 N1 H129"), "float16"),  # more clusters than run at once: of eight rows
    (case_of("B2 T3 N1 H512"), "bfloat16"),
    (case_of("B3 T2 N1 H400", state_rounding=1, f_clamp=15.0), "float16"),
    (case_of("B1 T2 N1 H768"), "bfloat16"),
)
Device = Callable[[int], None]


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Device:
    """Calls go to a device that takes clusters of at most so many blocks."""

    def make(most_cluster: int) -> None:
        shutil.copy(str(library()._name), tmp_path)  # a library asks its device once
        monkeypatch.setenv("XLSTM_CUDA_ON_CPU", str(tmp_path))
        other = library.__wrapped__()
        other.xlstm_emulator_most_cluster(most_cluster)
        monkeypatch.setattr(on_cpu, "library", lambda: other)

    return make


@pytest.mark.parametrize(("case", "tx"), CASES, ids=str)
def test_it_obeys_the_rule_in_any_order_and_in_place(case: OpCase, tx: str) -> None:
    inputs = make_inputs(case, tx)
    assert CudaRun(case, inputs, tx).variant() == "clusters"
    got = run_cuda(case, poisoned(case, inputs), tx, shift=0)
    assert_within_rule(case, inputs, tx, got)
    again = run_cuda(case, inputs, tx, alias=True, order=DESCENDING)
    assert_same_bits(again, got)


def test_two_warps_share_the_cells_of_eight_rows() -> None:
    case = case_of("B33 T2 N1 H528", lengths=(2,) * 31 + (1, 0))  # clusters for four rows: too many
    inputs = make_inputs(case, "bfloat16")
    got = run_cuda(case, inputs, "bfloat16", alias=True, order=DESCENDING)
    assert_within_rule(case, inputs, "bfloat16", got)


@pytest.mark.parametrize("state_rounding", [0, 1])
def test_sums_that_are_cut_obey_the_rule_and_cuts_in_time_change_no_bit(
    state_rounding: int,
) -> None:
    case = case_of("B2 T30 N1 H144", state_rounding=state_rounding)
    inputs = make_inputs(case, "bfloat16")
    library().xlstm_emulator_truncates(True)
    got = run_cuda(case, inputs, "bfloat16", order=SHUFFLED)
    pieces = run_in_pieces(lambda c, x: run_cuda(c, x, "bfloat16"), case, inputs, [1, 16])
    library().xlstm_emulator_truncates(False)
    assert_within_rule(case, inputs, "bfloat16", got)
    assert_same_bits(pieces, got)


def test_a_cluster_goes_from_one_head_to_the_next() -> None:
    case = case_of("B5 T2 N2 H136")
    inputs = make_inputs(case, "bfloat16")
    wanted = run_cuda(case, inputs, "bfloat16")
    got = run_cuda(case, inputs, "bfloat16", most_blocks=5, order=DESCENDING)  # room for one of 4
    assert_same_bits(got, wanted)


@pytest.mark.parametrize(
    ("sizes", "most", "variant"),
    [
        ("B1 T1 N4 H256", 16, "clusters"),
        ("B1 T1 N4 H256", 4, "clusters"),
        ("B1 T1 N4 H256", 2, PLAIN),
        ("B1 T1 N4 H512", 8, "clusters"),
        ("B1 T1 N4 H512", 4, PLAIN),
        ("B1 T1 N4 H513", 16, "clusters"),
        ("B1 T1 N4 H513", 8, PLAIN),
        ("B1 T1 N4 H769", 16, PLAIN),
        ("B1 T1 N4 H256", 1, PLAIN),
        ("B1 T1 N4 H128", 16, "registers"),
    ],
)
def test_what_the_device_schedules_decides(
    sizes: str, most: int, variant: str, device: Device
) -> None:
    case = case_of(sizes)
    device(most)
    assert CudaRun(case, make_inputs(case, "bfloat16"), "bfloat16").variant() == variant
    assert CudaRun(case, make_inputs(case), "float32").variant() == PLAIN


@pytest.mark.parametrize(
    "case", [case_of("B1 T2 N1 H512"), case_of("B2 T2 N1 H264", state_rounding=1)], ids=str
)
def test_where_no_clusters_of_16_are_to_be_had_8_blocks_do(case: OpCase, device: Device) -> None:
    device(8)
    inputs = make_inputs(case, "bfloat16")
    assert_within_rule(case, inputs, "bfloat16", run_cuda(case, inputs, "bfloat16"))


def test_it_is_forced_on_heads_that_registers_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    case = case_of("B2 T3 N1 H40")
    inputs = make_inputs(case, "bfloat16")
    wanted = run_cuda(case, inputs, "bfloat16")
    monkeypatch.setenv(VARIABLES["XlstmSLSTM"], "clusters")
    got = run_cuda(case, inputs, "bfloat16")
    assert_within_rule(case, inputs, "bfloat16", got)
    for name, value in wanted.items():
        close = np.isclose(got[name].astype(float), value.astype(float), rtol=1e-2, atol=1e-5)
        assert close.all(), name


def test_weights_beyond_float16_are_scaled_into_it() -> None:
    case = case_of("B1 T2 N1 H140")
    inputs = make_inputs(case, "bfloat16")
    inputs["R"][0, 5, 1, 7] = 4096.0
    assert_within_rule(case, inputs, "bfloat16", run_cuda(case, inputs, "bfloat16"))
