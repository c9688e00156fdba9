"""Random calls of the kernels through the C API, good and bad, each held to the status it deserves.

python -m tests.plugins.fuzz_kernels [--calls N] [--seed S] [--first N] [--exact] [--trace]

A call depends on the seed and its number alone: ``--first N --calls 1`` repeats one. ``--exact``
ends each allocation where its buffer ends, for AddressSanitizer; else canaries lie behind.
"""

from __future__ import annotations

import argparse
import ctypes
from collections import Counter
from collections.abc import Mapping

import numpy as np

from tests.cases import Inputs, OpCase
from tests.plugins.fuzz_faults import FAULTS, absurd_sizes, deserved
from tests.plugins.kernels import (
    ALIGNMENT,
    OP_NAMES,
    KernelRun,
    Status,
    letters_of,
    library,
    shape_of,
    shared_pool,
)
from xlstm_export.ops.catalog import CATALOG
from xlstm_export.ops.schema import TX_DTYPES

REACHABLE = tuple(s for s in Status if s not in (Status.UNAVAILABLE, Status.LAUNCH_FAILED))
"""What can be answered on a CPU whose instruction set nobody forced."""

MOST = {"B": 4, "T": 40, "N": 4, "K": 40, "V": 40, "H": 40, "D": 70, "W": 6}
RARELY = {"B": 9, "T": 200, "N": 3, "K": 130, "V": 150, "H": 140, "D": 300, "W": 20}


class WrongAnswerError(AssertionError):
    """The library answered wrongly."""


class Fuzz:
    """One random call: what it is made of, and what came of it."""

    def __init__(self, seed: int, number: int, guard: int) -> None:
        self.random = np.random.default_rng([seed, number])
        self.guard = guard
        self.op = OP_NAMES[self.random.integers(len(OP_NAMES))]
        self.tx = TX_DTYPES[self.random.integers(len(TX_DTYPES))]
        self.sizes = self._sizes()
        self.threads = int(self.random.integers(1, 4))
        self.alias, self.packed = (bool(b) for b in self.random.integers(0, 2, 2))
        self.tame = self.random.random() < 0.4
        self.kind = str(self.random.choice(["good", "fault", "absurd"], p=[0.5, 0.4, 0.1]))
        self.faults: list[str] = []

    def __str__(self) -> str:
        sizes = " ".join(f"{d}{n}" for d, n in self.sizes.items())
        words = [self.kind, self.op, self.tx, sizes, f"threads={self.threads}", *self.faults]
        words += [w for w in ("alias", "packed", "tame") if getattr(self, w)]
        return " ".join(words)

    def run(self) -> Status:
        """The answer, once it has proved right. Raises WrongAnswerError where it is not."""
        case = OpCase(self.op, tuple(self.sizes.items()), self._attributes())
        with np.errstate(over="ignore"):
            kernel = KernelRun(
                case,
                self._inputs(),
                self.tx,
                alias=self.alias,
                shift=int(self.random.integers(0, 4)),
                guard=self.guard,
            )
        if self.packed:
            kernel.pack()
        kernel.add_workspace(self.threads)
        if self.kind == "absurd":
            return self._run_absurd(kernel)
        wanted = {Status.OK}
        if self.kind == "fault":
            wanted = self._spoil(kernel) or wanted
        return self._run(kernel, wanted)

    def _sizes(self) -> dict[str, int]:
        most = RARELY if self.random.random() < 0.05 else MOST
        sizes = {d: int(self.random.integers(1, most[d] + 1)) for d in letters_of(CATALOG[self.op])}
        for letter in sizes:
            if self.random.random() < 0.1:
                sizes[letter] = 0 if letter == "B" else 1
        return sizes

    def _attributes(self) -> tuple[tuple[str, int | float], ...]:
        """Any allowed value of each."""
        given: dict[str, int | float] = {}
        for a in CATALOG[self.op].attributes:
            if a.choices:
                given[a.name] = int(self.random.choice(a.choices))
            elif a.kind == "int":
                given[a.name] = int(self.random.choice([1, 2, 7, 16, 64, 100, 2**31 - 1]))
            elif self.tame or self.random.random() < 0.5:
                given[a.name] = float(self.random.choice([0.0, 1e-6, 1.0, 15.0]))
            else:
                given[a.name] = float(self.random.choice([0.5, 1e-30, -0.0, 1e9, 1e-45]))
        return tuple(given.items())

    def _inputs(self) -> Inputs:
        inputs: Inputs = {}
        for spec in CATALOG[self.op].inputs:
            if spec.type == "lengths":
                inputs[spec.name] = self._lengths()
                continue
            shape = shape_of(spec, self.sizes)
            draw = self.random.standard_normal(shape)
            if not self.tame:
                draw = self._wild(draw)
            inputs[spec.name] = draw
        if self.tame and "n" in inputs:
            inputs["n"] = 0.5 + np.abs(inputs["n"])  # y = c / n stays within float16
        return inputs

    def _wild(self, draw: np.ndarray) -> np.ndarray:
        """``draw`` over all magnitudes, or with a few values that are no numbers."""
        if self.random.random() < 0.5:
            return draw * 2.0 ** self.random.uniform(-160, 160, draw.shape)
        odd = np.array([np.nan, np.inf, -np.inf, -0.0, 1e-310, 80.0, -80.0, 3e38])
        return np.where(
            self.random.random(draw.shape) < 0.1, self.random.choice(odd, draw.shape), draw
        )

    def _lengths(self) -> np.ndarray:
        rows, steps = self.sizes["B"], self.sizes["T"]
        count = rows if self.random.random() < 0.6 else 1
        some = [-1, 0, 1, steps, steps + 1, steps // 2, -7, 2**31 - 1, -(2**31)]
        return self.random.choice(some, count).astype(np.int32)

    def _spoil(self, kernel: KernelRun) -> set[Status]:
        """One or two faults; the statuses that would be right. Empty where none was possible."""
        wanted = set()
        for name in self.random.choice(list(FAULTS), self.random.integers(1, 3), replace=False):
            status = FAULTS[str(name)](kernel, self.sizes, self.random)
            if status is not None:
                self.faults.append(str(name))
                wanted.add(status)
        return wanted

    def _run_absurd(self, kernel: KernelRun) -> Status:
        """Sizes that no memory holds: an operand is missing too, so nothing can be touched."""
        self.sizes = absurd_sizes(self.sizes, self.random)
        kernel.call.sizes[: len(self.sizes)] = list(self.sizes.values())
        kernel.call.lengths_size = 1
        kernel.call.outputs[0] = None
        allowed = deserved(CATALOG[self.op], self.tx, self.sizes)
        size = ctypes.c_size_t(0)
        problem = Status(library().xlstm_cpu_workspace_size(kernel.call, self.threads, size))
        packed = Status(library().xlstm_cpu_packed_size(kernel.call, size))
        if packed != problem or problem not in allowed:
            raise WrongAnswerError(f"sizes: {problem.name} and {packed.name}, not {allowed}")
        if problem == Status.OK and self.sizes["B"]:
            problem = Status.NULL_POINTER
        return self._run(kernel, {problem})

    def _run(self, kernel: KernelRun, wanted: set[Status]) -> Status:
        before = {name: b.bytes.copy() for name, b in (kernel.inputs | kernel.outputs).items()}
        status = kernel.run(shared_pool(self.threads) if self.threads > 1 else None)
        if status not in wanted:
            names = " or ".join(s.name for s in wanted)
            raise WrongAnswerError(f"{status.name}, not {names}")
        continued = {given for given, _ in kernel.schema.states} if self.alias else set()
        kept = set(before) if status != Status.OK else kernel.inputs.keys() - continued
        for name in kept:
            now = (kernel.inputs | kernel.outputs)[name].bytes
            if not np.array_equal(now, before[name]):
                raise WrongAnswerError(f"{status.name}, and {name} was written")
        if status == Status.OK and self.tame and self.kind == "good":
            self._look_at(kernel)
        return status

    def _look_at(self, kernel: KernelRun) -> None:
        """Every result of a tame call was computed: it is neither the poison nor another NaN."""
        for name, array in kernel.results().items():
            if not np.isfinite(array.astype(np.float64)).all():
                raise WrongAnswerError(f"{name} is not finite")


def fuzz(calls: int, seed: int, first: int, guard: int, trace: bool) -> Counter[Status]:
    """How often each status came. Raises WrongAnswerError at the first wrong answer."""
    seen: Counter[Status] = Counter()
    for number in range(first, first + calls):
        call = Fuzz(seed, number, guard)
        if trace:
            print(f"{number}: {call}", flush=True)
        try:
            seen[call.run()] += 1
        except AssertionError as error:
            raise WrongAnswerError(f"call {number} of seed {seed}: {call}: {error}") from error
    return seen


def missing(seen: Mapping[Status, int]) -> list[str]:
    """Statuses that should have come at least once."""
    return [s.name for s in REACHABLE if not seen.get(s)]


def main() -> None:
    """Exit status 0 where every answer was right and every reachable status came."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--exact", action="store_true")
    parser.add_argument("--trace", action="store_true")
    given = parser.parse_args()
    guard = 0 if given.exact else ALIGNMENT
    seen = fuzz(given.calls, given.seed, given.first, guard, given.trace)
    for status in Status:
        print(f"{status.name} {seen[status]}")
    if given.calls >= 1000 and missing(seen):
        raise SystemExit(f"never seen: {', '.join(missing(seen))}")


if __name__ == "__main__":
    main()
