"""Each way in which a weight or a number can be wrong has its words."""

from __future__ import annotations

import numpy as np
import pytest

from xlstm_export.lowering.differences import Differences, OtherAttribute, OtherWeight
from xlstm_export.validation.location.causes import UNKNOWN, likely_cause, weight_words
from xlstm_export.validation.location.parts import Seen, Wrong
from xlstm_export.validation.tally import TensorResult
from xlstm_export.validation.tolerance import Judgement

RANDOM = np.random.default_rng(0)
NORM = RANDOM.standard_normal(12)
MATRIX = RANDOM.standard_normal((12, 12))
PACKED = RANDOM.standard_normal((12, 36))
NOTHING = Differences((), (), (), ())


def _block_transposed() -> np.ndarray:
    packed = PACKED.copy()
    packed[:, 12:24] = packed[:, 12:24].T
    return packed


def _one_changed() -> np.ndarray:
    matrix = MATRIX.copy()
    matrix[3, 4:6] += 5
    return matrix


@pytest.mark.parametrize(
    ("name", "file", "right", "words"),
    [
        ("/norm.weight", NORM - 1, NORM, "/norm.weight is a norm without its +1"),
        ("/norm.weight", NORM + 1, NORM, "is a norm with one too many"),
        ("/m.weight", MATRIX.T, MATRIX, "/m.weight is transposed"),
        ("/m.weight", _block_transposed(), PACKED, "/m.weight is transposed"),
        ("/gates.bias", np.roll(NORM, 6), NORM, "in another order along axis 0 (swapped gates)"),
        ("/v.weight", np.roll(PACKED, 12, 1), PACKED, "parts in another order along axis 1"),
        ("/conv.bias", 0 * NORM, NORM, "/conv.bias is all zeros"),
        ("/m.weight", 3 * MATRIX, MATRIX, "/m.weight is 3 times the checkpoint's"),
        ("/m.weight", _one_changed(), MATRIX, "is stale: 2 of its 144 numbers"),
    ],
)
def test_a_weight(name: str, file: np.ndarray, right: np.ndarray, words: str) -> None:
    assert words in weight_words(OtherWeight(name, file, right))


def _wrong(name: str, finite: bool = True) -> Wrong:
    result = TensorResult(name, "part", Judgement(1, 0.1, 1, 0.1), 1.0, (1.0,), finite)
    return Wrong(name, "layers.0.mlstm", "XlstmMLSTM", "value", result)


def _cause(wrong: Wrong, *calls: Seen, differences: Differences = NOTHING) -> str:
    return likely_cause(wrong, calls, differences, {})


def _operands(**got: np.ndarray) -> Seen:
    exact = {f"layers.0.mlstm XlstmMLSTM.{n}": RANDOM.standard_normal((2, 5, 3)) for n in "qkvif"}
    own = {f"layers.0.mlstm XlstmMLSTM.{n}": value for n, value in got.items()}
    return Seen({**exact, **own}, exact, {})


def test_swapped_operands_are_named() -> None:
    call = _operands()
    name = "layers.0.mlstm XlstmMLSTM.i"
    other = call.exact["layers.0.mlstm XlstmMLSTM.f"]
    swapped = Seen({**call.got, name: other}, call.exact, {})
    assert _cause(_wrong(name), swapped) == "the input gate and the forget gate are swapped"


def test_slots_of_gates_are_named() -> None:
    name = "layers.1.slstm XlstmSLSTM.gates"
    exact = RANDOM.standard_normal((2, 3, 4, 2, 5))
    call = Seen({name: exact[:, :, [0, 1, 3, 2]]}, {name: exact}, {})
    assert "cell input and output gate are in each other's slots" in _cause(_wrong(name), call)


def test_a_scale_is_named() -> None:
    name = "layers.0.mlstm XlstmMLSTM.h"
    exact = RANDOM.standard_normal((2, 3, 4))
    call = Seen({name: 8 * exact}, {name: exact}, {})
    assert "it is 8 times the exact one" in _cause(_wrong(name), call)


@pytest.mark.parametrize(("value", "words"), [(1.0, "what went in"), (0.0, "as zeros")])
def test_a_state_that_stays_is_named(value: float, words: str) -> None:
    before = np.ones((2, 3), np.float32)
    call = Seen({"0.mlstm.n": value * before}, {"0.mlstm.n": before + 1}, {"0.mlstm.n": before})
    assert words in _cause(_wrong("0.mlstm.n"), call)


def test_an_attribute_is_named_with_both_values() -> None:
    cap = OtherAttribute("/x", "XlstmMLSTM", "gate_soft_cap", 14.0, 15.0)
    name = "layers.0.mlstm XlstmMLSTM.h"
    exact, got = RANDOM.standard_normal((2, 2, 3, 4))
    call = Seen({name: got}, {name: exact}, {})
    words = _cause(_wrong(name), call, differences=Differences((), (cap,), (), ()))
    assert words == "gate_soft_cap of XlstmMLSTM is 14 in the file, and 15 by the checkpoint"
    assert _cause(_wrong(name), call) == UNKNOWN
    wired = Differences((), (), ("/layers.0/mlstm/Mul",), ())
    assert "wired otherwise" in _cause(_wrong(name), call, differences=wired)
    assert "NaN" in _cause(_wrong(name, finite=False), call)
