"""Texts continued in C++ against Python: the same bundle, runtime, threads and ids.

python -m benchmarks.bench_cpp [125m] [demo] [--quick] [--threads N] [--work DIR] [--json F]
                               [--check]

The C++ library is called once for all tokens; both choose the likeliest id each time.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.checkpoints import hf_125m
from benchmarks.harness import Contender, compare
from benchmarks.model_run import Plan, Result, export, measure_parts, open_native
from tests.session.c_session import CSession
from xlstm_export import pipeline
from xlstm_export.generation.generate import generate_ids
from xlstm_export.generation.sampling import Sampling

PARTS = ("125m", "demo")
PROMPT = [3, 1, 4, 1, 5]
TOKENS = 64
OURS, PYTHON = 0, 1
LEAST = 1.0
"""How many times as fast as Python C++ is to be."""


def _bundle(part: str, plan: Plan) -> Path:
    if part == "125m":
        return export(hf_125m(plan.work / "125m", small=plan.quick), plan)
    source = Path(__file__).parents[1] / "recipes" / "demo" / "char_lm"
    return Path(pipeline.export(source, plan.work / "char_lm", overwrite=True).path)


def bench(part: str, plan: Plan, result: Result) -> None:
    """Tokens of the model ``part``, one at a time."""
    bundle = _bundle(part, plan)
    ours, python = CSession(bundle, threads=plan.threads), open_native(bundle, plan)
    runs: list[Callable[[], list[int]]] = [
        lambda: ours.generate(PROMPT, TOKENS, on_token=None)[0],
        lambda: list(generate_ids(python, PROMPT, TOKENS, Sampling())),
    ]
    expected, made = runs[PYTHON](), ours.generate(PROMPT, TOKENS)[0]
    if made != expected:
        raise SystemExit(f"{part}: C++ and Python choose other ids; nothing was timed")
    names = ("C++", "Python")
    sides = [Contender(name, run) for name, run in zip(names, runs, strict=True)]
    measured = compare(f"{part}: {TOKENS} tokens", sides, turns=plan.turns(15))
    result.comparisons.append(measured)
    result.faster(measured, OURS, PYTHON, LEAST)


def main() -> None:
    """Measure the chosen models, print, and say whether the bar holds."""
    measure_parts(__doc__, PARTS, bench, quick="a small model, few turns: a try-out")


if __name__ == "__main__":
    main()
