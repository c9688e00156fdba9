"""Weights in 8 and 4 bits: decode and prefill at the 125M shape, and an export of the 7B shape.

python -m benchmarks.bench_lowbit [125m] [7b] [--quick] [--threads N] [--work DIR] [--json F]
                                  [--check]

Decode is held to transformers in fp32, to reading as many bytes as the bundle has weights, and to
its low-bit products alone in ONNX Runtime. The 7B part takes 20 GB of disk and some minutes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.bench_models import Run, one_output
from benchmarks.checkpoint_7b import xlstm_7b
from benchmarks.checkpoints import HF_VOCABULARY, hf_125m
from benchmarks.child import run_cli
from benchmarks.harness import Bar, Contender, compare
from benchmarks.lowbit_products import one_step
from benchmarks.model_run import Plan, Result, measure_parts, open_native
from benchmarks.profile_model import profile
from benchmarks.upstream import TransformersModel
from xlstm_export import pipeline
from xlstm_export.bundle.manifest import read_manifest
from xlstm_export.runtime.session import Array

PROMPT, FIRST = 512, 32
GIB, GB = 2**30, 1e9
FASTER = {"int8": 6.0, "int4": 9.0}
"""Decode over transformers in fp32, at least."""
OF_LIMIT = 75.0
"""Per cent of the rate of the lower of the two limits, at least."""
PREFILL_LOSS = 1.15
PEAK_EXPORT, PEAK_RUN, SIZE = 3.0, 6.0, 4.3


def bench_125m(plan: Plan, result: Result) -> None:
    """Loading, decode of one token and prefill of 512, beside fp32 and transformers; and where
    the time of a step of int4 goes.
    """
    source = hf_125m(plan.work / "hf", small=plan.quick)
    bundles = {name: plan.work / f"lowbit-{name}" for name in ("fp32", *FASTER)}
    for name, path in bundles.items():
        chosen = {} if name == "fp32" else {"weight_format": name}
        pipeline.export(source.path, path, overwrite=True, **chosen)  # type: ignore[arg-type]
    runs = {name: one_output(open_native(path, plan)) for name, path in bundles.items()}
    runs["transformers"] = TransformersModel(source.path).run
    random = np.random.default_rng(0)
    prompt = random.integers(0, HF_VOCABULARY, (1, PROMPT))
    names = list(runs)
    _load(bundles, prompt[:, :FIRST], plan, result)
    for name in FASTER:
        _decode(name, bundles[name], [name, "fp32", "transformers"], runs, prompt, plan, result)
    sides = [Contender(name, _prefill(runs[name], prompt)) for name in names]
    prefill = compare(f"prefill of {PROMPT}", sides, turns=plan.turns(9))
    result.comparisons.append(prefill)
    for name in FASTER:
        ratio = prefill.ratio(names.index("fp32"), names.index(name)).median
        what = f"{prefill.what}: time of {name} over that of fp32"
        result.bars.append(Bar(what, ratio, PREFILL_LOSS, "x", at_least=False))
    result.profiles.append(
        profile(bundles["int4"], 1, threads=plan.threads, runs=5 if plan.quick else 50)
    )


def _load(bundles: dict[str, Path], prompt: Array, plan: Plan, result: Result) -> None:
    """A bundle in the system's cache, opened; and opened and given a short prompt."""
    names = ("int8", "int4", "fp32")
    opened = [Contender(name, partial(open_native, bundles[name], plan)) for name in names]

    def first(name: str) -> object:
        return open_native(bundles[name], plan).run({"input_ids": prompt})

    answered = [Contender(name, partial(first, name)) for name in names]
    result.comparisons += [
        compare("load", opened, turns=plan.turns(7)),
        compare(f"load and first token after {FIRST}", answered, turns=plan.turns(7)),
    ]


def _decode(
    name: str, bundle: Path, sides: list[str], runs: dict[str, Run], prompt: Array,
    plan: Plan, result: Result,
) -> None:  # fmt: skip
    """One token at a time, the state carried on; the limits take turns with it."""
    bytes_read = read_manifest(bundle).step_bytes
    contenders = [Contender(side, _decoder(runs[side], prompt), work=bytes_read) for side in sides]
    reader = torch.ones(bytes_read // 4)
    contenders.append(Contender("limit: reading its bytes", reader.sum, work=bytes_read))
    contenders.append(one_step(bundle, plan.threads, bytes_read))
    step = compare(
        f"{name}: decode of one token", contenders, turns=plan.turns(15), calls=15, unit="GB/s"
    )
    result.comparisons.append(step)
    result.faster(step, 0, sides.index("transformers"), FASTER[name])
    limits = range(len(sides), len(contenders))
    slowest = max(limits, key=lambda index: step.timings[index].median)
    result.reaches(step, 0, slowest, OF_LIMIT)


def _decoder(run: Run, prompt: Array) -> Callable[[], None]:
    token, state = prompt[:, :1], run(prompt, None)[1]

    def step() -> None:
        nonlocal state
        _, state = run(token, state)

    return step


def _prefill(run: Run, prompt: Array) -> Callable[[], object]:
    return lambda: run(prompt, None)


def bench_7b(plan: Plan, result: Result) -> None:
    """Size and memory of an int4 bundle of the 7B shape: made, loaded, and asked for tokens."""
    source = xlstm_7b(plan.work / "7b", blocks=1) if plan.quick else xlstm_7b(plan.work / "7b")
    out = plan.work / "7b.int4"
    made = run_cli(
        ["export", str(source.path), "-o", str(out), "--weight-format", "int4", "--matmul-nbits",
         "--overwrite", "--json"]
    )  # fmt: skip
    size = sum(json.loads(made.stdout)["files"].values())
    few, many = (_run(out, tokens, plan) for tokens in (1, 9))
    manifest = read_manifest(out)
    seconds = (many[0] - few[0]) / 8
    moved = manifest.step_bytes + 2 * manifest.state_bytes
    result.numbers |= {
        "7B int4: export, seconds": made.seconds,
        "7B int4: tokens a second": 1 / seconds,
        "7B int4: GB moved a second": moved / seconds / GB,
    }
    for what, value, limit, unit in (
        ("7B int4: bundle", size / GB, SIZE, "GB"),
        ("7B int4: peak memory of export", made.peak_bytes / GIB, PEAK_EXPORT, "GiB"),
        ("7B int4: peak memory of decode", many[1] / GIB, PEAK_RUN, "GiB"),
    ):
        result.bars.append(Bar(what, value, limit, unit, at_least=False))


def _run(bundle: Path, tokens: int, plan: Plan) -> tuple[float, int]:
    """Seconds and peak bytes of ``run`` with a short prompt."""
    command = ["run", str(bundle), "--ids", "1,2,3", "-n", str(tokens), "--json"]
    child = run_cli([*command, "--threads", str(plan.threads)])
    return child.seconds, child.peak_bytes


PARTS: dict[str, Callable[[Plan, Result], None]] = {"125m": bench_125m, "7b": bench_7b}


def _part(part: str, plan: Plan, result: Result) -> None:
    PARTS[part](plan, result)


def main() -> None:
    """Measure the chosen parts, print, and say whether the bars hold."""
    measure_parts(__doc__, PARTS, _part, quick="small models, few turns: a try-out")


if __name__ == "__main__":
    main()
