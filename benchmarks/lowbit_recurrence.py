"""What fewer bits in the recurrences would cost: sLSTM's R, and the states, over 16,384 steps.

python -m benchmarks.lowbit_recurrence [--steps N]

The character model of the demos reads its held-out text again and again with carried states. R is
rounded once; matrix memories C [N,K,V] are rounded after every step, to bfloat16 or to 8 bits with
a scale for each row. KL divergence from the same model in float32, over stretches of the text.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer

from xlstm_export.bundle.low_bit import Blocks
from xlstm_export.checkpoint.hub import resolve_source
from xlstm_export.model.blocks import quantise
from xlstm_export.model.state import state_specs
from xlstm_export.pipeline import read_checkpoint
from xlstm_export.reference.model import ReferenceModel
from xlstm_export.runtime.session import Array
from xlstm_export.validation.measures.language import kl_divergence

SOURCE = Path(__file__).resolve().parents[1] / "recipes" / "demo" / "char_lm"
PIECE = 256
ENDS = (256, 1024, 4096, 16384)


def rounded_recurrence(matrix: Array, bits: int) -> Array:
    """R [N,H_in,4,H_out] with its inputs in blocks of ``bits``, at most 64 of them."""
    heads, inputs, gates, outputs = matrix.shape
    rows = matrix.transpose(0, 2, 3, 1).reshape(-1, inputs)
    size = min(64, 1 << (inputs - 1).bit_length())
    left = quantise(rows, Blocks(bits, size), np.dtype(np.float32)).dequantised()
    by_head = left.reshape(heads, gates, outputs, inputs).astype(np.float32)
    return np.ascontiguousarray(by_head.transpose(0, 3, 1, 2))


def rounded_rows(memory: Array) -> Array:
    """C [...,V] in 8 bits, a scale for each row."""
    scale = np.abs(memory).max(-1, keepdims=True) / 127
    return np.rint(memory / np.where(scale == 0, 1, scale)) * scale


ROUNDED_STATES: dict[str, Callable[[Array], Array]] = {
    "C in bfloat16": lambda c: c.astype(ml_dtypes.bfloat16).astype(np.float32),
    "C in 8 bits": rounded_rows,
}


def stretches(divergence: Array) -> list[str]:
    """Mean KL divergence up to each of ENDS, from the one before."""
    starts = (0, *ENDS[:-1])
    parts = [divergence[a:b] for a, b in zip(starts, ENDS, strict=True)]
    return [f"{part.mean():.1e}" if part.size else "" for part in parts]


def run(model: ReferenceModel, ids: Array) -> Array:
    """Logits [T,vocab] of ids [1,T], in pieces."""
    states, found = None, []
    for start in range(0, ids.shape[1], PIECE):
        outputs, states = model.run({"input_ids": ids[:, start : start + PIECE]}, states)
        found.append(outputs["logits"][0])
    return np.concatenate(found)


def run_with_rounded_states(model: ReferenceModel, ids: Array) -> dict[str, Array]:
    """KL divergence [T] of each of ROUNDED_STATES: rows of one batch, the first left as it is."""
    memories = [spec.key for spec in model.states if spec.letter == "C"]
    rows = np.repeat(ids, 1 + len(ROUNDED_STATES), axis=0)
    found, states = [], None
    for step in range(rows.shape[1]):
        outputs, after = model.run({"input_ids": rows[:, step : step + 1]}, states)
        logits = outputs["logits"][:, 0]
        found.append(kl_divergence(logits[1:], logits[:1]))
        states = dict(after)
        for key in memories:
            changed = states[key].copy()
            for row, rounded in enumerate(ROUNDED_STATES.values(), 1):
                changed[row] = rounded(changed[row])
            states[key] = changed
    return dict(zip(ROUNDED_STATES, np.stack(found, axis=1), strict=True))


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=ENDS[-1])
    steps = parser.parse_args().steps
    checkpoint = read_checkpoint(resolve_source(str(SOURCE), None))
    spec, weights = checkpoint.spec, checkpoint.weights
    text = (SOURCE / "excerpt.txt").read_text(encoding="utf-8")
    ids = np.asarray(Tokenizer.from_file(str(SOURCE / "tokenizer.json")).encode(text).ids)
    ids = np.resize(ids, (1, steps))
    model = ReferenceModel(spec, weights, "float32", "float32", "chunkwise")
    exact = run(model, ids)
    table = Table("rounded", *(f"KL to step {end}" for end in ENDS))
    recurrent = [name for name in weights if name.endswith(".R.weight")]
    for bits in (8, 4):
        numbers = {name: rounded_recurrence(weights[name].load(), bits) for name in recurrent}
        divergence = kl_divergence(run(model.with_numbers(numbers), ids), exact)
        table.add_row(f"R in {bits} bits", *stretches(divergence))
    for name, divergence in run_with_rounded_states(model.in_form("recurrent"), ids).items():
        table.add_row(name, *stretches(divergence))
    console = Console()
    total, share = (
        sum(math.prod(weights[name].shape) for name in names) for names in (weights, recurrent)
    )
    console.print(f"R is {100 * share / total:.1f} % of the weights")
    states = {s.key: 4 * math.prod(int(d) for d in s.shape[1:]) for s in state_specs(spec)}
    console.print(f"states: {sum(states.values()) / 1e3:.0f} kB")
    console.print(table)


if __name__ == "__main__":
    main()
