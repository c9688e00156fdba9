"""Forecast quality of the demo forecaster's bundle, with the state carried and begun anew.

`carried` feeds one call's state on, over missing values; `rerun` is the default of tirex-ts: it
begins every patch again, over a window that ends with the patches foretold. Held-out synthetic
series; mean quantile loss in units of the context's spread, as in `train_forecaster.py`, and cut as
there: a short context that hardly moves has no scale.
"""

import argparse
from pathlib import Path

import torch
from synthetic_series import random_series
from train_forecaster import CONTEXT, MOST_LOSS, quantile_loss, spread

import xlstm_export as xe

SEED, SERIES = 20_000, 512
CONTEXTS, HORIZONS = (504, 240, 96), (64, 128, 256, 504)


def losses(session: xe.Session, length: int) -> dict[str, list[float]]:
    """Rollout -> loss by HORIZONS, over the same series for every `length` of context."""
    generator = torch.Generator().manual_seed(SEED)
    values = random_series(SERIES, CONTEXT + max(HORIZONS), generator).values
    context, target = values[:, CONTEXT - length : CONTEXT], values[:, CONTEXT:]
    found = {}
    for rollout in ("carried", "rerun"):
        made = xe.forecast(session, context.numpy(), max(HORIZONS), rollout=rollout)
        loss = quantile_loss(torch.from_numpy(made.quantiles), target) / spread(context)
        loss = loss.clamp(max=MOST_LOSS)
        found[rollout] = [loss[:, :steps].mean().item() for steps in HORIZONS]
    return found


def table(session: xe.Session) -> str:
    """Markdown: a row for each context and horizon."""
    lines = [
        "| context | horizon | carried | begun again | difference |",
        "|---|---|---|---|---|",
    ]
    for length in CONTEXTS:
        found = losses(session, length)
        for steps, ours, other in zip(HORIZONS, found["carried"], found["rerun"], strict=True):
            change = f"{100 * (ours / other - 1):+.1f} %"
            lines.append(f"| {length} | {steps} | {ours:.4f} | {other:.4f} | {change} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path, help="export of recipes/demo/forecaster")
    print(table(xe.open(parser.parse_args().bundle, threads=1)))


if __name__ == "__main__":
    main()
