"""What carrying the state costs, or gains, in forecasts: against beginning again, on made series.

python -m benchmarks.forecast_quality BUNDLE [--series 256] [--seed 0] [--json F]

Pinball loss, mean over levels and steps, in units of each series' standard deviation. Horizons:
``carried`` goes on by unknown patches, ``rerun`` begins again for each. Observations: ``carried``
began some patches ago and was fed what came since, ``begun`` begins with the newest context.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.harness import write_json
from xlstm_export.bundle.manifest import ForecastInfo
from xlstm_export.generation.forecast import forecast_series
from xlstm_export.runtime.ort import OrtSession
from xlstm_export.runtime.session import Array

PATCHES = (2, 4, 8, 16)
"""Patches foretold, and patches fed since the beginning."""


@dataclass(frozen=True)
class Loss:
    """Losses of both ways, and how far apart they are in units of the series' deviation."""

    what: str
    carried: float
    anew: float
    apart: float


def made_series(rows: int, length: int, random: np.random.Generator) -> Array:
    """Two seasons, trends, random walks and noise, each of its own strength."""
    time = np.arange(length)
    periods = np.exp(random.uniform(np.log(6), np.log(200), (rows, 2, 1)))
    phases = time / periods + random.random((rows, 2, 1))
    series = (random.exponential(1, (rows, 2, 1)) * np.sin(2 * np.pi * phases)).sum(1)
    has_trend, walks = random.random((2, rows, 1)) < 0.5
    series += has_trend * random.normal(0, 2, (rows, 1)) * time / length
    series += walks * 0.05 * np.cumsum(random.standard_normal((rows, length)), axis=1)
    noise = random.uniform(0.02, 0.4, (rows, 1)) * random.standard_normal((rows, length))
    return np.asarray(series + noise + random.normal(0, 3, (rows, 1)), np.float32)


def pinball(quantiles: Array, truth: Array, levels: tuple[float, ...], unit: Array) -> float:
    """quantiles [B,T,Q] of truth [B,T], in ``unit`` [B,1]."""
    off = truth[..., None] - quantiles
    q = np.array(levels)
    return float((np.maximum(q * off, (q - 1) * off).mean((1, 2)) / unit[:, 0]).mean())


def horizons(session: OrtSession, info: ForecastInfo, rows: int, seed: int) -> list[Loss]:
    """Far forecasts, from half a context and from a whole one."""
    random, found = np.random.default_rng(seed), []
    for length in (info.context // 2, info.context):
        series = made_series(rows, length + max(PATCHES) * info.patch, random)
        past, unit = series[:, :length], series.std(1, keepdims=True)
        ways = [
            forecast_series(session, past, max(PATCHES) * info.patch, rollout=way).quantiles
            for way in ("carried", "rerun")
        ]
        for patches in PATCHES:
            steps = patches * info.patch
            truth = series[:, length : length + steps]
            parts = [way[:, :steps] for way in ways]
            losses = [pinball(part, truth, info.levels, unit) for part in parts]
            apart = float((np.abs(parts[0] - parts[1]).mean((1, 2)) / unit[:, 0]).mean())
            found.append(Loss(f"{length} known, {steps} ahead", *losses, apart))
    return found


def observations(session: OrtSession, info: ForecastInfo, rows: int, seed: int) -> list[Loss]:
    """The next patch, after observations that were fed since the beginning."""
    random, found = np.random.default_rng(seed + 1), []
    for length in (info.context // 2, info.context):
        for patches in PATCHES:
            fed = patches * info.patch
            series = made_series(rows, length + fed + info.patch, random)
            unit, truth = series.std(1, keepdims=True), series[:, -info.patch :]
            _, states = session.run({"context": series[:, :length]})
            more, _ = session.run({"context": series[:, length : length + fed]}, states)
            carried = more["quantiles"][:, -info.patch :]
            anew = session.run({"context": series[:, : length + fed]})[0]["quantiles"]
            losses = [pinball(x, truth, info.levels, unit) for x in (carried, anew)]
            apart = float((np.abs(carried - anew).mean((1, 2)) / unit[:, 0]).mean())
            found.append(Loss(f"{length} known, then {fed} fed", *losses, apart))
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--series", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="file to write everything to")
    arguments = parser.parse_args()
    session = OrtSession(arguments.bundle)
    info = session.manifest.forecast
    if info is None or session.manifest.takes_states:
        parser.error(f"{arguments.bundle}: is no forecaster that goes on from its state")
    rows: list[Any] = [arguments.series, arguments.seed]
    found = [*horizons(session, info, *rows), *observations(session, info, *rows)]
    table = Table(title=f"Pinball loss of {arguments.series} series")
    for name in ("", "carried", "begun again", "apart"):
        table.add_column(name, justify="right" if name else "left")
    for loss in found:
        table.add_row(loss.what, *(f"{x:.4f}" for x in (loss.carried, loss.anew, loss.apart)))
    Console().print(table)
    if arguments.json:
        write_json(arguments.json, {"bundle": arguments.bundle.name, "losses": found})


if __name__ == "__main__":
    main()
