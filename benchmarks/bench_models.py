"""Whole models against upstream's CPU path, and the memory of a long prompt.

python -m benchmarks.bench_models [hf] [block_stack] [memory] [--quick] [--threads N]
                                  [--work DIR] [--json F] [--check]

Ratios are taken turn by turn within this one process; both sides give all logits (or outputs)
and carry the state, and their numbers are compared before anything is timed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from benchmarks.checkpoints import HF_VOCABULARY, block_stack, hf_125m
from benchmarks.child import run_cli
from benchmarks.harness import (
    Bar,
    Comparison,
    Contender,
    compare,
    machine_facts,
    print_bars,
    print_comparisons,
    write_json,
)
from benchmarks.upstream import BlockStackModel, TransformersModel, difference
from xlstm_export import pipeline
from xlstm_export.families.source import Source
from xlstm_export.lowering.lower import LoweringOptions
from xlstm_export.runtime.ort import OrtSession, cpu_threads
from xlstm_export.runtime.session import Array

HF_PROMPT, STACK_PROMPT = 512, 256
SHORT_PROMPT, LONG_PROMPT = 512, 16_384
PAGE_NOISE = 0.01
"""Two runs of one command differ by this much in peak memory."""


@dataclass(frozen=True)
class Plan:
    """How much to do, and where."""

    work: Path
    threads: int
    quick: bool

    def turns(self, full: int) -> int:
        """Turns of a comparison: ``full``, or three when quick."""
        return 3 if self.quick else full


@dataclass
class Result:
    """What the parts add to the report."""

    comparisons: list[Comparison] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    numbers: dict[str, float] = field(default_factory=dict)

    def add(self, comparison: Comparison, bar: float | None) -> None:
        """A comparison and, where there is one, the least ratio it must reach."""
        self.comparisons.append(comparison)
        if bar is not None:
            ratio = comparison.speedup().median
            self.bars.append(Bar(comparison.what, ratio, bar, "x"))


def bench_hf(plan: Plan, result: Result) -> None:
    """The 125M-shaped language model against transformers."""
    source = hf_125m(plan.work / "hf", small=plan.quick)
    session = _open(source, plan)
    peer = TransformersModel(source.path)
    random = np.random.default_rng(0)
    prompt = random.integers(0, HF_VOCABULARY, (1, HF_PROMPT))
    token = random.integers(0, HF_VOCABULARY, (1, 1))
    ours, states = session.run(prompt, None)
    theirs, cache = peer.run(prompt)
    result.add(
        compare(
            f"hf: prefill of {HF_PROMPT}, logits and state",
            [
                Contender("xlstm-export", lambda: session.run(prompt, None)),
                Contender("transformers", lambda: peer.run(prompt)),
            ],
            turns=plan.turns(15),
            difference=difference(ours, theirs),
        ),
        1.25,
    )
    close = difference(session.run(token, states)[0], peer.run(token, cache)[0])
    result.add(
        compare(
            "hf: decode of one token",
            [
                Contender("xlstm-export", _decoder(session.run, token, states)),
                Contender("transformers", _decoder(peer.run, token, cache)),
            ],
            turns=plan.turns(15),
            calls=15,
            difference=close,
        ),
        2.0,
    )


def bench_block_stack(plan: Plan, result: Result) -> None:
    """The bare block stack against upstream's module."""
    source, module = block_stack(plan.work / "block_stack", small=plan.quick)
    session, peer = _open(source, plan), BlockStackModel(module)
    width = int(session.manifest.inputs[0].shape[-1])
    random = np.random.default_rng(0)
    prompt = random.standard_normal((1, STACK_PROMPT, width)).astype(np.float32)
    token = prompt[:, :1]
    ours, states = session.run(prompt, None)
    theirs, state = peer.run(prompt)
    own = Contender("xlstm-export", lambda: session.run(prompt, None))
    result.add(
        compare(
            f"block stack: prefill of {STACK_PROMPT} that yields the state",
            [own, Contender("xlstm, step by step", lambda: peer.run(prompt))],
            turns=plan.turns(7),
            difference=difference(ours, theirs),
        ),
        10.0,
    )
    result.add(
        compare(
            f"block stack: {STACK_PROMPT} without a state (ours gives it)",
            [own, Contender("xlstm, parallel form", lambda: peer.forward(prompt))],
            turns=plan.turns(15),
            difference=difference(ours, peer.forward(prompt)),
        ),
        None,
    )
    close = difference(session.run(token, states)[0], peer.run(token, state)[0])
    result.add(
        compare(
            "block stack: decode of one step",
            [
                Contender("xlstm-export", _decoder(session.run, token, states)),
                Contender("xlstm", _decoder(peer.run, token, state)),
            ],
            turns=plan.turns(15),
            calls=15,
            difference=close,
        ),
        2.0,
    )


def bench_memory(plan: Plan, result: Result) -> None:
    """Peak memory of ``run`` on a long prompt and on a short one, each in its own process."""
    source = hf_125m(plan.work / "hf", small=plan.quick)
    bundle = _export(source, plan)
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


def _export(source: Source, plan: Plan) -> Path:
    bundle = plan.work / f"{source.path.name}.bundle"
    pipeline.export(source, bundle, LoweringOptions(), overwrite=True)
    return bundle


def _open(source: Source, plan: Plan) -> OrtSession:
    return OrtSession(_export(source, plan), threads=plan.threads)


def _decoder(
    run: Callable[[Array, Any], tuple[Any, Any]], token: Array, state: Any
) -> Callable[[], None]:
    """Each call feeds ``token`` and carries the state on from the call before."""

    def step() -> None:
        nonlocal state
        _, state = run(token, state)

    return step


def main() -> None:
    """Measure the chosen parts, print, and say whether the bars hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; default all")
    parser.add_argument("--quick", action="store_true", help="small models, few turns: a try-out")
    parser.add_argument("--threads", type=int, default=cpu_threads(), help="of both sides")
    parser.add_argument("--work", type=Path, help="keep checkpoints and bundles in this folder")
    parser.add_argument("--json", type=Path, help="file to write everything to")
    parser.add_argument("--check", action="store_true", help="exit 1 when a bar is missed")
    arguments = parser.parse_args()
    unknown = set(arguments.parts) - set(PARTS)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    torch.set_num_threads(arguments.threads)
    facts, result = machine_facts(arguments.threads), Result()
    with tempfile.TemporaryDirectory(prefix="xlstm-bench-") as folder:
        plan = Plan(arguments.work or Path(folder), arguments.threads, arguments.quick)
        for part in arguments.parts or PARTS:
            PARTS[part](plan, result)
    _report(facts, result, arguments.json)
    if arguments.check and not all(bar.passed for bar in result.bars):
        sys.exit(1)


def _report(facts: dict[str, Any], result: Result, path: Path | None) -> None:
    console = Console()
    for name, value in facts.items():
        console.print(f"{name}: {value}", markup=False, highlight=False)
    if result.comparisons:
        print_comparisons(result.comparisons, console)
    for name, number in result.numbers.items():
        console.print(f"{name}: {number:.1f}", markup=False)
    print_bars(result.bars, console)
    if path:
        write_json(path, {"machine": facts, **vars(result)})


if __name__ == "__main__":
    main()
