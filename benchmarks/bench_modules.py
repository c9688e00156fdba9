"""A network's bundle by export_module against the same stack by export, and against PyTorch.

python -m benchmarks.bench_modules [sequence] [step] [lm-sequence] [lm-step] [--quick]
                                   [--threads N] [--work DIR] [--json F] [--check]

The network is upstream's block stack of `bench_models`, alone, so that all three compute the same;
for `lm` it is an xLSTMLMModel, and the export is that of its checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import xlstm_export as xe
from benchmarks.checkpoints import block_stack
from benchmarks.harness import Contender, compare
from benchmarks.model_run import Plan, Result, export, measure_parts, open_native
from benchmarks.upstream import BlockStackModel, difference
from xlstm_export.runtime.ort import OrtSession
from xlstm_export.runtime.session import Array

MODULE, FAMILY, PEER = 0, 1, 2
STEPS = {"sequence": (256, 15), "step": (1, 60), "lm-sequence": (256, 15), "lm-step": (1, 60)}
"""Steps of a call, and turns."""
LEAST_OF_FAMILY = 0.9
"""How much of the family export's speed is reached."""


def bench(part: str, plan: Plan, result: Result) -> None:
    """Calls of one length, from states that are carried where it is one step."""
    steps, turns = STEPS[part]
    lm = part.startswith("lm-")
    name = "lm" if lm else "stack"
    source, module = block_stack(plan.work / name, small=plan.quick, lm=lm)
    size = module.config.vocab_size if lm else module.config.embedding_dim
    example = torch.randint(0, size, (2, 16)) if lm else torch.randn(2, 16, size)
    own = xe.export_module(
        module.eval(), example, plan.work / f"{name}-module.bundle", states=True, overwrite=True
    )
    sessions = [open_native(own.path, plan), open_native(export(source, plan), plan)]
    random = np.random.default_rng(0)
    x = (
        random.integers(0, size, (1, steps)) if lm
        else random.standard_normal((1, steps, size), np.float32)
    )  # fmt: skip
    peer = BlockStackModel(module)
    runs = [_call(session, x, part) for session in sessions]
    runs.append((lambda: peer.forward(x)) if steps > 1 else _step_of(peer, x))
    ours = runs[MODULE]()
    names = ("export_module", "export", "PyTorch, eager")
    sides = [
        Contender(name, run, None if run is runs[MODULE] else difference(ours, run()))
        for name, run in zip(names, runs, strict=True)
    ]
    calls = 1 if steps > 1 else 20
    measured = compare(
        f"{'xLSTMLMModel' if lm else 'block stack'}, {part} of {steps}",
        sides,
        turns=plan.turns(turns),
        calls=calls,
    )
    result.comparisons.append(measured)
    result.faster(measured, MODULE, FAMILY, LEAST_OF_FAMILY)
    result.faster(measured, MODULE, PEER, 1.0)


def _call(session: OrtSession, x: Array, part: str) -> Callable[[], Any]:
    """A call from the states of one before; a sequence begins at zero."""
    given, output = session.manifest.inputs[0].name, session.manifest.outputs[0].name
    states = session.run({given: x})[1] if part.endswith("step") else None
    return lambda: session.run({given: x}, states)[0][output]


def _step_of(peer: BlockStackModel, x: Array) -> Callable[[], Any]:
    _, state = peer.run(x)
    return lambda: peer.run(x, state)[0]


def main() -> None:
    """Measure the chosen calls, print, and say whether the bars hold."""
    measure_parts(__doc__, STEPS, bench, quick="a small stack, few turns: a try-out")


if __name__ == "__main__":
    main()
