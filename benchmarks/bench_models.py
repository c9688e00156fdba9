"""Whole models against upstream's CPU path and ONNX Runtime's MatMul; memory of a long prompt.

python -m benchmarks.bench_models [hf] [block_stack] [memory] [--quick] [--threads N]
                                  [--work DIR] [--json F] [--check]

Ratios are taken turn by turn within this one process; all sides give all logits (or outputs)
and carry the state, and their numbers are compared before anything is timed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks import model_matmuls
from benchmarks.checkpoints import HF_VOCABULARY, block_stack, hf_125m
from benchmarks.child import run_cli
from benchmarks.harness import Bar, Comparison, Contender, compare
from benchmarks.model_matmuls import MatMuls, read_matmuls
from benchmarks.model_run import Plan, Result, export, measure_parts, open_bodies, open_native
from benchmarks.upstream import BlockStackModel, TransformersModel, difference
from xlstm_export.runtime.session import Array, Session

HF_PROMPT, STACK_PROMPT = 512, 256
SHORT_PROMPT, LONG_PROMPT = 512, 16_384
PAGE_NOISE = 0.01
"""Two runs of one command differ by this much in peak memory."""
NATIVE, BODIES = "native kernels", "function bodies"
OURS, STOCK, PEER = 0, 1, 2
"""Places of the contenders: native kernels, function bodies, upstream."""
STEPS_A_TURN = 15

Run = Callable[..., tuple[Any, Any]]
"""Inputs and state (None: zero) to outputs and the state after them."""


def one_output(session: Session) -> Run:
    """``session`` by its one input and its one output."""
    name, result = session.manifest.inputs[0].name, session.manifest.outputs[0].name

    def run(inputs: Array, states: Any = None) -> tuple[Array, Any]:
        outputs, after = session.run({name: inputs}, states)
        return outputs[result], after

    return run


def bench_hf(plan: Plan, result: Result) -> None:
    """The 125M-shaped language model against transformers and its own MatMuls."""
    source = hf_125m(plan.work / "hf", small=plan.quick)
    bundle = export(source, plan)
    matmuls = read_matmuls(bundle)
    peer = TransformersModel(source.path)
    runs = [one_output(open_native(bundle, plan)), one_output(open_bodies(bundle, plan)), peer.run]
    random = np.random.default_rng(0)
    prompt = random.integers(0, HF_VOCABULARY, (1, HF_PROMPT))
    token = random.integers(0, HF_VOCABULARY, (1, 1))
    names = [NATIVE, BODIES, "transformers"]
    sides = _prefill(names, runs, prompt, work=HF_PROMPT * matmuls.flop)
    prefill = _with_limit(matmuls, sides, plan, result)
    result.faster(prefill, OURS, PEER, 1.4)
    result.faster(prefill, STOCK, PEER, 1.25)
    result.reaches(prefill, OURS, len(prefill.timings) - 1, 85)
    step = compare(
        "hf: decode of one token",
        [
            *_decode(names, runs, prompt, token, work=matmuls.flop),
            model_matmuls.one_step(matmuls, plan.threads),
        ],
        turns=plan.turns(15),
        calls=STEPS_A_TURN,
        unit="GFLOP/s",
    )
    result.comparisons.append(step)
    result.faster(step, OURS, PEER, 2.5)
    result.faster(step, STOCK, PEER, 2.0)
    result.reaches(step, OURS, len(step.timings) - 1, 80)
    for steps in (HF_PROMPT, 1):
        result.profiled(bundle, plan, steps)


def _with_limit(matmuls: MatMuls, sides: list[Contender], plan: Plan, result: Result) -> Comparison:
    """The prefill and, in the same turns, each MatMul alone; these become one last contender."""
    alone = model_matmuls.shapes_alone(matmuls, HF_PROMPT, plan.threads)
    what = f"hf: prefill of {HF_PROMPT}, logits and state"
    measured = compare(what, [*sides, *alone], turns=plan.turns(15), unit="GFLOP/s")
    own, shapes = measured.timings[: len(sides)], measured.timings[len(sides) :]
    limit = model_matmuls.all_alone(matmuls, HF_PROMPT, shapes)
    prefill = replace(measured, timings=(*own, limit))
    result.comparisons.append(prefill)
    for shape in shapes:
        result.comparisons.append(Comparison("hf", (shape,), unit="GFLOP/s"))
    return prefill


def bench_block_stack(plan: Plan, result: Result) -> None:
    """The bare block stack against upstream's module."""
    source, module = block_stack(plan.work / "block_stack", small=plan.quick)
    bundle, peer = export(source, plan), BlockStackModel(module)
    ours, stock = open_native(bundle, plan), open_bodies(bundle, plan)
    width = int(ours.manifest.inputs[0].shape[-1])
    random = np.random.default_rng(0)
    prompt = random.standard_normal((1, STACK_PROMPT, width)).astype(np.float32)
    runs = [one_output(ours), one_output(stock), peer.run]
    names = [NATIVE, BODIES, "xlstm, step by step"]
    stateful = compare(
        f"block stack: prefill of {STACK_PROMPT} that yields the state",
        _prefill(names, runs, prompt),
        turns=plan.turns(7),
    )
    result.comparisons.append(stateful)
    result.faster(stateful, OURS, PEER, 25)
    result.faster(stateful, STOCK, PEER, 10)
    parallel = peer.forward(prompt)
    stateless = compare(
        f"block stack: {STACK_PROMPT} without a state (ours gives it)",
        [
            *_prefill(names[:PEER], runs[:PEER], prompt),
            Contender(
                "xlstm, parallel form",
                lambda: peer.forward(prompt),
                difference(runs[OURS](prompt, None)[0], parallel),
            ),
        ],
        turns=plan.turns(15),
    )
    result.comparisons.append(stateless)
    result.faster(stateless, OURS, PEER, 2)
    names[PEER] = "xlstm"
    step = compare(
        "block stack: decode of one step",
        _decode(names, runs, prompt, prompt[:, :1]),
        turns=plan.turns(15),
        calls=STEPS_A_TURN,
    )
    result.comparisons.append(step)
    result.faster(step, OURS, PEER, 2.7)
    result.faster(step, STOCK, PEER, 2)
    for steps in (STACK_PROMPT, 1):
        result.profiled(bundle, plan, steps)


def bench_memory(plan: Plan, result: Result) -> None:
    """Peak memory of ``run`` on a long prompt and on a short one, each in its own process."""
    bundle = export(hf_125m(plan.work / "hf", small=plan.quick), plan)
    for steps in (SHORT_PROMPT, LONG_PROMPT):
        ids = ",".join(str(i) for i in np.random.default_rng(0).integers(0, 1000, steps))
        command = ["run", str(bundle), "--ids", ids, "-n", "1", "--json"]
        child = run_cli([*command, "--threads", str(plan.threads)])
        assert len(json.loads(child.stdout)["prompt_ids"]) == steps
        result.numbers[f"run, {steps} tokens: peak VmHWM, MiB"] = child.peak_bytes / 2**20
    short, long = result.numbers.values()
    result.bars.append(
        Bar(
            f"run: peak memory of {LONG_PROMPT} tokens over {SHORT_PROMPT}",
            long / short,
            1 + PAGE_NOISE,
            "x",
            at_least=False,
        )
    )


PARTS: dict[str, Callable[[Plan, Result], None]] = {
    "hf": bench_hf,
    "block_stack": bench_block_stack,
    "memory": bench_memory,
}


def _prefill(
    names: list[str], runs: list[Run], prompt: Array, work: float | None = None
) -> list[Contender]:
    """Each side over the whole ``prompt``; ``work`` is that of ours."""
    ours = runs[OURS](prompt, None)[0]
    sides = []
    for index, (name, run) in enumerate(zip(names, runs, strict=True)):
        close = None if index == OURS else difference(ours, run(prompt, None)[0])

        def call(run: Run = run) -> object:
            return run(prompt, None)

        sides.append(Contender(name, call, close, work))
    return sides


def _decode(
    names: list[str], runs: list[Run], prompt: Array, token: Array, work: float | None = None
) -> list[Contender]:
    """Each side one ``token`` at a time, its state carried on from the prompt's."""
    ours: Array | None = None
    sides: list[Contender] = []
    for name, run in zip(names, runs, strict=True):
        output, state = run(token, run(prompt, None)[1])
        close = None if ours is None else difference(ours, output)
        ours = output if ours is None else ours
        sides.append(Contender(name, _decoder(run, token, state), close, work))
    return sides


def _decoder(run: Run, token: Array, state: Any) -> Callable[[], None]:
    """Each call feeds ``token`` and carries the state on from the call before."""

    def step() -> None:
        nonlocal state
        _, state = run(token, state)

    return step


def _part(part: str, plan: Plan, result: Result) -> None:
    PARTS[part](plan, result)


def main() -> None:
    """Measure the chosen parts, print, and say whether the bars hold."""
    measure_parts(__doc__, PARTS, _part, quick="small models, few turns: a try-out")


if __name__ == "__main__":
    main()
