"""The grid of operator cases every backend is held to, and their seeded inputs.

Body, kernel and plugin tests and the benchmarks take their cases from here. Sizes are awkward on
purpose: one step, primes, one past a chunk, K != V, odd heads, several rows of unequal length.

Queries and keys have a mean of +-1 so that q.n stays away from zero: where it crosses zero h is
a quotient of two roundings, and no two correct implementations agree there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import ml_dtypes
import numpy as np
import numpy.typing as npt

from xlstm_export.ops.catalog import CATALOG
from xlstm_export.ops.schema import state_dtype

Array = npt.NDArray[Any]
Inputs = dict[str, Array]

NUMPY_DTYPES = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float64": np.dtype(np.float64),
}


@dataclass(frozen=True)
class OpCase:
    """One operator at one size. ``sizes`` gives each dimension letter of the catalogue."""

    op: str
    sizes: tuple[tuple[str, int], ...]
    attributes: tuple[tuple[str, int | float], ...] = ()
    lengths: tuple[int, ...] = (-1,)
    state: Literal["zero", "random"] = "random"
    gate_scale: float = 1.0
    """Standard deviation of the gate pre-activations."""
    forget_bias: float = 3.0
    """Mean of the forget gate; 12 forgets 6e-6 a step, which log-sigmoid must not round away."""
    input_bias: float = 0.0
    """Mean of the input gate; below 0 the mLSTM denominator is exp(-m), else mostly |q.n|."""

    def __str__(self) -> str:
        """Test and benchmark id."""
        parts = [self.op.removeprefix("Xlstm").lower(), "".join(f"{d}{n}" for d, n in self.sizes)]
        parts += [f"{name}={value:g}" for name, value in self.attributes]
        parts += [f"gate*{self.gate_scale:g}"] if self.gate_scale != 1 else []
        parts += [f"forget+{self.forget_bias:g}"] if self.forget_bias != 3 else []
        parts += [f"input{self.input_bias:g}"] if self.input_bias != 0 else []
        parts += ["zero"] if self.state == "zero" else []
        parts += ["len" + ",".join(map(str, self.lengths))] if self.lengths != (-1,) else []
        return "-".join(parts)

    @property
    def size(self) -> dict[str, int]:
        """Size of each dimension letter."""
        return dict(self.sizes)

    def shape(self, dims: tuple[str, ...]) -> tuple[int, ...]:
        """``dims`` of the catalogue as numbers."""
        known = {**self.size, "4": 4}
        if "W" in known:
            known["W-1"] = known["W"] - 1
        return tuple(known[d] for d in dims)

    def attribute_values(self) -> dict[str, int | float]:
        """Every attribute; floats as ONNX stores them, in float32."""
        values = CATALOG[self.op].complete_attributes(dict(self.attributes))
        return {k: float(np.float32(v)) if isinstance(v, float) else v for k, v in values.items()}


def rounded(array: Array, dtype: str) -> Array:
    """``array`` rounded to ``dtype``, as float64."""
    return array.astype(NUMPY_DTYPES[dtype]).astype(np.float64)


def make_inputs(case: OpCase, tx: str = "float32", seed: int = 0) -> Inputs:
    """Inputs by name: float64 arrays whose values are exact in the operand's type; lengths int32.

    The same ``case`` and ``seed`` give the same draw for every ``tx``, rounded to it.
    """
    schema = CATALOG[case.op]
    random = np.random.default_rng([seed, *case.op.encode(), *case.size.values()])
    inputs: Inputs = {}
    for spec in schema.inputs:
        if spec.type == "lengths":
            inputs[spec.name] = np.array(case.lengths, np.int32)
            continue
        shape = case.shape(spec.dims)
        draw = _DRAWS[case.op, spec.name](random.standard_normal(shape), case)
        is_state = spec.name in dict(schema.states)
        if is_state and case.state == "zero":
            draw = np.zeros(shape)
        inputs[spec.name] = rounded(draw, tx if spec.type == "TX" else state_dtype(tx))
    if case.op == "XlstmSLSTM":
        _empty_some_cells(inputs)
    return inputs


def row_alone(case: OpCase, inputs: Inputs, row: int) -> tuple[OpCase, Inputs]:
    """One batch row cut to its valid steps (at least one), as a case of its own."""
    steps = max(1, int(valid_steps(case)[row]))
    sizes = tuple((d, {"B": 1, "T": steps}.get(d, n)) for d, n in case.sizes)
    alone = {}
    for spec in CATALOG[case.op].inputs:
        array = inputs[spec.name]
        if spec.dims[0] == "B":
            array = array[row : row + 1]
        alone[spec.name] = array[:, :steps] if "T" in spec.dims else array
    alone["lengths"] = np.array([-1], np.int32)
    return replace(case, sizes=sizes, lengths=(-1,)), alone


def rows_of(
    case: OpCase, inputs: Inputs, batch: Mapping[str, Array]
) -> Iterator[tuple[OpCase, Inputs, Inputs]]:
    """Each row that has steps: its case and inputs alone, and what ``batch`` gave for it.

    Raises AssertionError where ``batch`` is not 0 past a row's length.
    """
    over_time = CATALOG[case.op].outputs[0].name
    for row, steps in enumerate(valid_steps(case)):
        assert not batch[over_time][row, steps:].any()
        if steps:
            got = {name: a[row : row + 1] for name, a in batch.items()}
            got[over_time] = got[over_time][:, :steps]
            yield *row_alone(case, inputs, row), got


def valid_steps(case: OpCase) -> Array:
    """Number of valid steps of each row [B]."""
    lengths = np.broadcast_to(np.array(case.lengths), case.size["B"])
    T = case.size["T"]
    return np.where(lengths < 0, T, np.minimum(lengths, T))


def run_in_pieces(
    run: Callable[[OpCase, Inputs], Inputs], case: OpCase, inputs: Inputs, cuts: Sequence[int]
) -> Inputs:
    """``run`` on the steps between ``cuts``, states carried; outputs as if run at once."""
    schema = CATALOG[case.op]
    over_time = schema.outputs[0].name
    carried = dict(inputs)
    pieces = []
    for start, stop in pairwise([0, *cuts, case.size["T"]]):
        for spec in schema.inputs:
            if "T" in spec.dims:
                carried[spec.name] = inputs[spec.name][:, start:stop]
        given = inputs["lengths"]
        carried["lengths"] = np.where(given < 0, given, np.maximum(given - start, 0))
        carried["lengths"] = carried["lengths"].astype(np.int32)
        results = run(case, carried)
        pieces.append(results[over_time])
        carried.update({name: results[out].astype(np.float64) for name, out in schema.states})
    return {**results, over_time: np.concatenate(pieces, axis=1)}


def poisoned(case: OpCase, inputs: Inputs) -> Inputs:
    """``inputs`` with NaN at every step past its row's length."""
    beyond = np.arange(case.size["T"]) >= valid_steps(case)[:, None]
    result = dict(inputs)
    for spec in CATALOG[case.op].inputs:
        if "T" in spec.dims:
            result[spec.name] = inputs[spec.name].copy()
            result[spec.name][beyond] = np.nan
    return result


def odd_states(case: OpCase, inputs: Inputs) -> Inputs:
    """``inputs`` whose states hold -0.0, infinities and NaN in every row."""
    result = dict(inputs)
    for name, _ in CATALOG[case.op].states:
        result[name] = np.resize([-0.0, np.inf, -np.inf, np.nan, 1.5], inputs[name].shape)
    return result


def _query(z: Array, case: OpCase) -> Array:
    """Odd heads point away from the keys, so q.n takes both signs."""
    signs = np.where(np.arange(case.size["N"]) % 2 == 0, 1.0, -1.0)
    return z + signs[:, None]


def _slstm_gates(z: Array, case: OpCase) -> Array:
    """Slots i, f, z, o."""
    return case.gate_scale * z + np.array([case.input_bias, case.forget_bias, 0, 0])[:, None, None]


def _empty_some_cells(inputs: Inputs) -> None:
    """Row 0 and every fifth cell have n == 0; half of those keep c != 0 (a foreign state)."""
    n, c = inputs["n"], inputs["c"]
    n[0] = 0.0
    n.reshape(-1)[::5] = 0.0
    c.reshape(-1)[::10] = 0.0
    c[0] = 0.0


_DRAWS = {
    ("XlstmMLSTM", "q"): _query,
    ("XlstmMLSTM", "k"): lambda z, case: z + 1,
    ("XlstmMLSTM", "v"): lambda z, case: z,
    ("XlstmMLSTM", "i"): lambda z, case: case.gate_scale * z + case.input_bias,
    ("XlstmMLSTM", "f"): lambda z, case: case.gate_scale * z + case.forget_bias,
    ("XlstmMLSTM", "C"): lambda z, case: z,
    ("XlstmMLSTM", "n"): lambda z, case: z + 1,
    ("XlstmMLSTM", "m"): lambda z, case: z,
    ("XlstmSLSTM", "gates"): _slstm_gates,
    ("XlstmSLSTM", "R"): lambda z, case: z * 0.4 / np.sqrt(case.size["H"]),
    ("XlstmSLSTM", "b"): lambda z, case: 0.5 * z,
    ("XlstmSLSTM", "y"): lambda z, case: 0.5 * np.tanh(z),
    ("XlstmSLSTM", "c"): lambda z, case: np.tanh(z),
    ("XlstmSLSTM", "n"): lambda z, case: 0.5 + np.abs(z),
    ("XlstmSLSTM", "m"): lambda z, case: z,
    ("XlstmCausalConv1d", "x"): lambda z, case: z,
    ("XlstmCausalConv1d", "w"): lambda z, case: z,
    ("XlstmCausalConv1d", "b"): lambda z, case: z,
    ("XlstmCausalConv1d", "state"): lambda z, case: z,
}


def _case(op: str, sizes: str, **given: Any) -> OpCase:
    """``sizes`` like "B2 T65"; attributes and the other fields by name."""
    pairs = tuple((word[0], int(word[1:])) for word in sizes.split())
    own = OpCase.__dataclass_fields__
    fields = {k: given.pop(k) for k in list(given) if k in own}
    return OpCase(op, pairs, tuple(given.items()), **fields)


def _mlstm_cases() -> Iterator[OpCase]:
    op = "XlstmMLSTM"
    yield _case(op, "B1 T1 N4 K64 V128", state="zero")
    yield _case(op, "B2 T1 N4 K64 V128", state="zero", scale_side=1, input_bias=-4.0)
    yield _case(op, "B2 T1 N3 K24 V24", gate_soft_cap=15.0, input_bias=-10.0)
    yield _case(op, "B3 T1 N3 K33 V17", gate_soft_cap=15.0, scale_side=1, lengths=(1, 0, -1))
    yield _case(op, "B2 T1 N1 K1 V1", eps=1e-3, gate_scale=3.0)
    yield _case(op, "B2 T2 N1 K1 V1", scale_side=1)
    yield _case(op, "B1 T2 N2 K96 V192", gate_soft_cap=15.0, gate_scale=9.0, state="zero")
    yield _case(op, "B4 T7 N3 K5 V3", eps=1e-3, lengths=(7, 0, 1, 9))
    yield _case(op, "B2 T7 N1 K8 V8", chunk_size=1, scale_side=1, lengths=(5,))
    yield _case(op, "B1 T33 N1 K1 V7", chunk_size=7)
    yield _case(op, "B2 T33 N3 K96 V192", eps=1e-3, gate_soft_cap=15.0)
    yield _case(op, "B2 T64 N3 K64 V32", state="zero", scale_side=1, input_bias=-6.0)
    yield _case(op, "B1 T64 N4 K64 V128", gate_soft_cap=15.0, state="zero")
    yield _case(op, "B2 T65 N2 K16 V24", scale_side=1, chunk_size=16)
    yield _case(op, "B2 T65 N5 K24 V16", lengths=(64, 65), gate_scale=3.0)
    yield _case(op, "B2 T127 N3 K31 V37", chunk_size=7, lengths=(-1, 126))
    yield _case(
        op, "B5 T130 N1 K24 V40", gate_soft_cap=15.0, eps=1e-3, scale_side=1, chunk_size=16,
        lengths=(-1, 0, 1, 64, 200), gate_scale=9.0,
    )  # fmt: skip
    yield _case(op, "B1 T131 N5 K32 V32", gate_scale=3.0)
    yield _case(op, "B1 T1000 N2 K64 V64", state="zero")
    yield _case(op, "B1 T1000 N3 K16 V16", gate_scale=0.0, forget_bias=12.0)
    yield _case(
        op, "B2 T1000 N2 K32 V48", gate_soft_cap=15.0, scale_side=1, gate_scale=5.0,
        lengths=(1000, 777),
    )  # fmt: skip


def _slstm_cases() -> Iterator[OpCase]:
    op = "XlstmSLSTM"
    yield _case(op, "B1 T1 N4 H64", state="zero")
    yield _case(op, "B3 T1 N3 H5", n_floor=1.0, f_clamp=15.0, lengths=(1, 0, -1))
    yield _case(op, "B2 T1 N1 H1", state_rounding=1)
    yield _case(op, "B4 T7 N3 H5", lengths=(7, 0, 1, 9))
    yield _case(op, "B2 T7 N1 H1", gate_scale=3.0, lengths=(5,))
    yield _case(op, "B2 T33 N2 H33", n_floor=1.0)
    yield _case(op, "B1 T64 N4 H16", f_clamp=1.0, state="zero")
    yield _case(op, "B2 T65 N1 H96", f_clamp=15.0, gate_scale=6.0)
    yield _case(op, "B2 T127 N3 H7", state_rounding=1, f_clamp=15.0, state="zero")
    yield _case(
        op, "B5 T130 N2 H31", n_floor=1.0, f_clamp=15.0, state_rounding=1,
        lengths=(-1, 0, 1, 64, 200),
    )  # fmt: skip
    yield _case(op, "B1 T131 N5 H13", gate_scale=3.0)
    yield _case(op, "B2 T1000 N1 H16", lengths=(1000, 777))
    yield _case(op, "B1 T1000 N3 H16", gate_scale=0.0, forget_bias=12.0)


def _conv_cases() -> Iterator[OpCase]:
    op = "XlstmCausalConv1d"
    yield _case(op, "B1 T1 D64 W4", state="zero", activation=1)
    yield _case(op, "B3 T1 D17 W4", activation=1, lengths=(1, 0, -1))
    yield _case(op, "B2 T2 D1 W5")
    yield _case(op, "B2 T7 D6 W1", activation=1)
    yield _case(op, "B4 T7 D33 W2", lengths=(7, 0, 1, 9))
    yield _case(op, "B2 T33 D96 W3", activation=1, state="zero")
    yield _case(op, "B2 T64 D5 W5", activation=1, lengths=(3,))
    yield _case(op, "B5 T130 D7 W4", activation=1, lengths=(-1, 0, 1, 64, 200))
    yield _case(op, "B1 T1000 D31 W4")
    yield _case(op, "B1 T70 D300 W4", activation=1)
    yield _case(op, "B2 T131 D525 W4", lengths=(-1, 129))


OP_CASES = (*_mlstm_cases(), *_slstm_cases(), *_conv_cases())


def cases_of(op: str) -> tuple[OpCase, ...]:
    """The cases of one operator."""
    return tuple(case for case in OP_CASES if case.op == op)
