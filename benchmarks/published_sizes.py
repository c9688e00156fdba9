"""Forecasters and Vision-LSTMs of the published sizes: what validate says, and engines of them.

python -m benchmarks.published_sizes [NAME ...] [--engines] [--work DIR]

Weights are random in every place. Each model is exported, validated against upstream's own module
(for Vision-LSTM the folder ``vision_lstm`` of NX-AI/vision-lstm is to be on PYTHONPATH), and with
--engines built by TensorRT-RTX, which needs no GPU. Prints a row of a table for each as it is done;
the exit code is 1 where a verdict is not ``validated``. All of them take hours.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import xlstm_export as xe
from tests.families.tirex2_checkpoints import PUBLISHED, write_tirex2
from tests.families.tirex_checkpoints import FULL, make_tirex
from tests.families.vil_checkpoints import make_vil
from xlstm_export.report.summary import evidence as figures


@dataclass(frozen=True)
class Size:
    """A model: ``make`` writes its checkpoint into a folder, and says where it is."""

    make: Callable[[Path], Path]
    export: Mapping[str, Any] = field(default_factory=dict)
    shapes: Mapping[str, Any] = field(default_factory=dict)
    """Of its engine, as ``build`` takes them."""


def _tirex(folder: Path) -> Path:
    return make_tirex(folder, **FULL).source.path


def _tirex2(folder: Path) -> Path:
    return write_tirex2(folder, **PUBLISHED)


def _vil(folder: Path, *, file: str = "vil.th", grid: int = 14, **sizes: Any) -> Path:
    """Images of 224, patches of 16."""
    return make_vil(
        folder, file=file, blocks=24, patch=16, grid=(grid, grid), classes=1000, **sizes
    ).path


_STRIDE_8: dict[str, Any] = {"file": "vil_stride8.th", "grid": 27}
_IMAGES = {"max_batch_size": 8}
_SERIES = {"min_shapes": {"context": [1, 1]}, "opt_shapes": {"context": [1, 2048]},
           "max_shapes": {"context": [16, 2048]}}  # fmt: skip
_VARIATES = {
    "min_shapes": {"context": [1, 1, 1], "past_covariates": [1, 0, 1],
                   "future_covariates": [1, 0, 2]},
    "opt_shapes": {"context": [1, 1, 2048], "past_covariates": [1, 1, 2048],
                   "future_covariates": [1, 1, 2112]},
    "max_shapes": {"context": [4, 3, 2048], "past_covariates": [4, 2, 2048],
                   "future_covariates": [4, 2, 2368]},
}  # fmt: skip

SIZES = {
    "tirex": Size(_tirex, shapes=_SERIES),
    "tirex-fp32": Size(_tirex, {"numerics": "fp32"}),
    "tirex-bf16": Size(_tirex, {"dtype": "bf16"}, _SERIES),
    "tirex2": Size(_tirex2, shapes=_VARIATES),
    "tirex2-bf16": Size(_tirex2, {"dtype": "bf16"}, _VARIATES),
    "vil-tiny": Size(partial(_vil, version=1, size=192), shapes=_IMAGES),
    "vil2-tiny": Size(partial(_vil, size=192), shapes=_IMAGES),
    "vil-small": Size(partial(_vil, version=1, size=384), shapes=_IMAGES),
    "vil2-small": Size(partial(_vil, size=384), shapes=_IMAGES),
    "vil-small-stride8": Size(partial(_vil, version=1, size=384, **_STRIDE_8), shapes=_IMAGES),
    "vil-base": Size(partial(_vil, version=1, size=768), shapes=_IMAGES),
    "vil2-base": Size(partial(_vil, size=768), shapes=_IMAGES),
    "vil-base-stride8": Size(partial(_vil, version=1, size=768, **_STRIDE_8), shapes=_IMAGES),
}
"""Version 2 of upstream computes no patches that overlap."""

_HEAD = ("model", "verdict", "reference", "largest error, of what rounding explains", "checks",
         "engine", "minutes")  # fmt: skip


def measured(name: str, folder: Path, *, engines: bool) -> tuple[bool, str]:
    """Whether the model ``name`` is validated, and its row of the table."""
    size, start = SIZES[name], time.monotonic()
    source = size.make(folder / name / "source")
    bundle = xe.export(source, folder / name / "bundle", overwrite=True, **size.export)
    report = xe.validate(bundle, source)
    (folder / name / "report.md").write_text(report.to_markdown(), encoding="utf-8")
    facts = dict(figures(report))
    engine = "–"
    if engines and size.shapes:
        built = xe.build(
            bundle, backend="tensorrt_rtx", compute_capabilities=["8.9"], **size.shapes
        )
        engine = f"{len(built.record.plugins)} plugins"
    cells = (
        name, report.verdict, report.reference,
        facts.get("largest error, of what rounding explains", "–"),
        facts.get("checks passed", "–"), engine, f"{(time.monotonic() - start) / 60:.1f}",
    )  # fmt: skip
    return report.verdict == "validated", f"| {' | '.join(cells)} |"


def main() -> None:
    """Measure the chosen sizes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(SIZES)}; default: all")
    parser.add_argument("--engines", action="store_true")
    parser.add_argument("--work", type=Path, help="to keep checkpoints, bundles and reports in")
    given = parser.parse_args()
    if unknown := [name for name in given.names if name not in SIZES]:
        parser.error(f"{unknown[0]} is not one of {', '.join(SIZES)}")
    print(f"| {' | '.join(_HEAD)} |\n|{'---|' * len(_HEAD)}", flush=True)
    every = True
    with tempfile.TemporaryDirectory(prefix="xlstm-sizes-") as made:
        for name in given.names or SIZES:
            is_right, row = measured(name, given.work or Path(made), engines=given.engines)
            every &= is_right
            print(row, flush=True)
    sys.exit(0 if every else 1)


if __name__ == "__main__":
    main()
