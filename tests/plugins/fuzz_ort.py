"""Random models and calls through ONNX Runtime, good and bad: outputs, or an exception.

python -m tests.plugins.fuzz_ort [--calls N] [--seed S] [--first N] [--exact]

A call depends on the seed and its number alone: ``--first N --calls 1`` repeats one. Each call is
announced on standard error before it is made. ``--exact`` gives every tensor an allocation of its
own, for AddressSanitizer.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter

import numpy as np
import onnx
from onnx import helper

from tests.cases import Array, Inputs, OpCase, make_inputs
from tests.ops.op_models import run_session
from tests.ops.shapes import output_shapes
from tests.plugins.ort_library import PACKED, kernel_model, make_session, run_aliased
from xlstm_export.ops.catalog import CATALOG
from xlstm_export.ops.schema import TX_DTYPES

OPS = tuple(CATALOG)
MOST = {"B": 4, "T": 40, "N": 4, "K": 40, "V": 40, "H": 40, "D": 70, "W": 6}
RARELY = {"B": 9, "T": 200, "N": 3, "K": 130, "V": 150, "H": 140, "D": 300, "W": 20}
LENGTHS = (-1, -1, -7, 0, 1, 3, 40, 10**6, 2**31 - 1, -(2**31))
INTEGERS = (-1, 0, 1, 2, 3, 64, 2**31 - 1, 2**31, -(2**31), 2**32, 2**63 - 1, -(2**63))
FLOATS = (0.0, -0.0, 1.0, -3.5, 1e-6, 15.0, 1e30, 3e38, float("nan"), float("inf"))
LARGEST = 10**6
"""Elements of one operand."""


class WrongAnswerError(AssertionError):
    """A good call was refused, a bad one was not, or the outputs are not right."""


class Fuzz:
    """One random model and call."""

    def __init__(self, seed: int, number: int) -> None:
        self.random = np.random.default_rng([seed, number])
        self.op = OPS[self._below(len(OPS))]
        self.schema = CATALOG[self.op]
        self.tx = TX_DTYPES[self._below(len(TX_DTYPES))]
        most = RARELY if self.random.random() < 0.15 else MOST
        letters = {d[0] for s in self.schema.inputs if s.type != "lengths" for d in s.dims}
        self.sizes = {d: int(self.random.integers(1, most[d] + 1)) for d in most if d in letters}
        self.case = OpCase(self.op, tuple(self.sizes.items()))
        self.attributes = self._attributes()
        self.inputs = self._inputs()
        self.mutations = [self._mutate() for _ in range(self._below(3))]
        self.constant = self.op in PACKED and self.random.random() < 0.5
        self.declared = str(self.random.choice(["rank", "nothing", "sizes"]))
        self.threads = int(self.random.integers(1, 4))
        self.parts = (None, 1, 2, 7, 64)[self._below(5)]

    def __str__(self) -> str:
        shapes = " ".join(f"{name}{list(a.shape)}" for name, a in self.inputs.items())
        words = [self.op, self.tx, shapes, str(self.attributes), f"declared={self.declared}"]
        words += [f"threads={self.threads}", f"parts={self.parts}", f"constant={self.constant}"]
        return " ".join([*words, *self.mutations])

    def is_good(self) -> bool:
        """Whether the catalogue allows this call."""
        for attribute in self.schema.attributes:
            value = self.attributes.get(attribute.name)
            if not isinstance(value, int if attribute.kind == "int" else float):
                return False
            try:
                attribute.check(value)
            except ValueError:
                return False
            if not np.isfinite(np.float32(value)):
                return False
        shapes = [self.inputs[s.name].shape for s in self.schema.inputs]
        try:
            outputs = output_shapes(self.schema, shapes)
        except ValueError:
            return False
        batch = outputs[0][0]
        sizes = [n for s, shape in zip(self.schema.inputs, shapes, strict=True)
                 for d, n in zip(s.dims, shape, strict=True)
                 if d not in ("B", "W-1") and s.type != "lengths"]  # fmt: skip
        return min(sizes) >= 1 and len(self.inputs["lengths"]) in (1, batch)

    def run(self, exact: bool) -> str:
        """``good`` or ``refused``, once it has proved right. Raises WrongAnswerError otherwise."""
        good = self.is_good()
        try:
            session = make_session(
                self._model(), threads=self.threads, parts=self.parts, arena=not exact
            )
            with np.errstate(all="ignore"):
                got = run_session(session, self.op, self.inputs, self.tx)
        except Exception as error:
            if good:
                raise WrongAnswerError(f"refused: {error}") from error
            return "refused"
        if not good:
            raise WrongAnswerError("not refused")
        self._check(got)
        with np.errstate(all="ignore"):
            again = run_aliased(self.case, self.inputs, self.tx, session)
        for name, value in got.items():
            if value.tobytes() != again[name].tobytes():
                raise WrongAnswerError(f"{name} differs where the states are one buffer")
        return "good"

    def _check(self, got: dict[str, Array]) -> None:
        shapes = output_shapes(self.schema, [self.inputs[s.name].shape for s in self.schema.inputs])
        for spec, shape in zip(self.schema.outputs, shapes, strict=True):
            if got[spec.name].shape != shape:
                raise WrongAnswerError(f"{spec.name} has shape {got[spec.name].shape}, not {shape}")
        over_time = got[self.schema.outputs[0].name]
        lengths = np.broadcast_to(self.inputs["lengths"].astype(np.int64), over_time.shape[:1])
        beyond = np.arange(over_time.shape[1]) >= np.where(lengths < 0, 2**31, lengths)[:, None]
        if over_time[beyond].astype(np.float64).any():
            raise WrongAnswerError("steps beyond the length are not 0")

    def _below(self, stop: int) -> int:
        return int(self.random.integers(stop))

    def _attributes(self) -> dict[str, int | float | str]:
        """Mostly right ones; sometimes one is missing, of another kind or out of range."""
        values: dict[str, int | float | str] = dict(self.schema.complete_attributes({}))
        for attribute in self.schema.attributes:
            if attribute.choices:
                values[attribute.name] = attribute.choices[self._below(len(attribute.choices))]
            elif attribute.kind == "int":
                values[attribute.name] = (1, 3, 7, 16, 64, 1000, 2**31 - 1)[self._below(7)]
            else:
                values[attribute.name] = FLOATS[self._below(8)]
        if self.random.random() < 0.15:
            name = list(values)[self._below(len(values))]
            choice = self._below(3)
            if choice == 0:
                del values[name]
            elif choice == 1:
                values[name] = INTEGERS[self._below(len(INTEGERS))]
            else:
                values[name] = FLOATS[self._below(len(FLOATS))]
        return values

    def _inputs(self) -> Inputs:
        inputs = make_inputs(self.case, self.tx, seed=self._below(2**31))
        rows = self.sizes["B"] if self.random.random() < 0.6 else 1
        inputs["lengths"] = self.random.choice(LENGTHS, rows).astype(np.int32)
        if self.random.random() < 0.4:
            for name, array in inputs.items():
                odd = self.random.random(array.shape) < 0.05
                if name != "lengths":
                    values = self.random.choice([np.nan, np.inf, -np.inf, 3e38, -1e5], array.shape)
                    inputs[name] = np.where(odd, values, array)
        return inputs

    def _mutate(self) -> str:
        """Change one operand's shape, or make the batch empty; says which."""
        choice = self._below(6)
        if choice == 0:
            for spec in self.schema.inputs:
                if spec.dims[0] == "B":
                    self.inputs[spec.name] = self.inputs[spec.name][:0]
            return "no rows"
        if choice < 4:
            return "nothing"
        spec = self.schema.inputs[self._below(len(self.schema.inputs))]
        shape = list(self.inputs[spec.name].shape)
        place = self._below(len(shape))
        kind = self._below(3)
        if kind == 0 and len(shape) > 1:
            del shape[place]
        elif kind == 1:
            shape.insert(place, 1 + self._below(3))
        else:
            sizes = (0, 1, 2, shape[place] + 1, shape[place] - 1, 10**5, 2**40)
            shape[place] = max(0, sizes[self._below(len(sizes))])
        if 0 not in shape and np.prod(shape, dtype=np.float64) > LARGEST:
            return "nothing"
        self.inputs[spec.name] = np.resize(self.inputs[spec.name], shape)
        return f"{spec.name} mutated"

    def _model(self) -> onnx.ModelProto:
        name = PACKED.get(self.op, "")
        constants = {name: self.inputs[name]} if self.constant else {}
        with np.errstate(all="ignore"):
            model = kernel_model(self.case, self.tx, constants=constants)
        node = model.graph.node[0]
        kept = [a for a in node.attribute if a.name.startswith("plugin_")]
        del node.attribute[:]
        node.attribute.extend(kept)
        node.attribute.extend(helper.make_attribute(k, v) for k, v in self.attributes.items())
        for info in [*model.graph.input, *model.graph.output]:
            tensor = info.type.tensor_type
            if self.declared != "rank":
                tensor.ClearField("shape")
            if self.declared == "sizes" and info.name in self.inputs:
                tensor.shape.CopyFrom(onnx.TensorShapeProto())
                for size in self.inputs[info.name].shape:
                    tensor.shape.dim.add().dim_value = size
        return model


def fuzz(calls: int, seed: int, first: int, exact: bool) -> Counter[str]:
    """How often each outcome came. Raises WrongAnswerError at the first wrong one."""
    seen: Counter[str] = Counter()
    for number in range(first, first + calls):
        call = Fuzz(seed, number)
        print(f"--seed {seed} --first {number} --calls 1: {call}", file=sys.stderr, flush=True)
        try:
            seen[call.run(exact)] += 1
        except WrongAnswerError as error:
            raise WrongAnswerError(f"seed {seed}, call {number}, {call}: {error}") from error
    return seen


def main() -> None:
    """Print how often each outcome came."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--exact", action="store_true")
    given = parser.parse_args()
    for outcome, count in sorted(fuzz(given.calls, given.seed, given.first, given.exact).items()):
        print(outcome, count)


if __name__ == "__main__":
    main()
