"""What few bits cost trained models: perplexity, parity and quantile loss, as the bundles run.

python -m benchmarks.lowbit_quality [--work DIR] [--language FOLDER [--windows N]] [--kinds WORDS]

Activations in 8 bits are included, as ONNX Runtime's low-bit products take them. Calibration sees
the first quarter of the demo's text, and other series; all is judged on the rest. With --language,
one model alone: a folder as recipes/demo/train_byte_lm.py makes it, calibrated on its
calibration.txt and judged on its excerpt.txt, or on so many windows of it. --kinds: only those
whose names hold the words.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer

import xlstm_export as xe
from recipes.demo.synthetic_series import random_series
from xlstm_export.runtime.session import Array, Runner
from xlstm_export.validation.measures.forecast import ForecastTally
from xlstm_export.validation.measures.language import kl_divergence, next_token_loss

DEMO = Path(__file__).resolve().parents[1] / "recipes" / "demo"
WINDOW = 256
"""Characters that are read from the zero state, as metrics.json has it."""
PARITY_LENGTH, PARITY_ROWS = 512, 1024
"""Eight times the longest strings of training."""
CONTEXT, PATCH, SERIES = 504, 24, 512
KINDS: dict[str, dict[str, Any]] = {
    f"{bits}, blocks of {size}{', asymmetric' if asymmetric else ''}": {
        "weight_format": bits, "block_size": size, "symmetric": not asymmetric,
    }
    for bits in ("int8", "int4") for size in (32, 64, 128) for asymmetric in (False, True)
}  # fmt: skip


class Language:
    """A language model on ``text`` that it was not trained on."""

    mixed_kl: float | None = 2e-3

    def __init__(self, folder: Path, text: str, calibration: Path) -> None:
        self.source, self.calibration = folder, calibration
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        ids = np.asarray(tokenizer.encode(text).ids)
        rows = (ids.size - 1) // WINDOW
        self._given = ids[: rows * WINDOW].reshape(rows, WINDOW)
        self._next = ids[1 : rows * WINDOW + 1].reshape(rows, WINDOW)
        self._exact: Array | None = None

    def keep(self, rows: int | None) -> None:
        """Judge by the first ``rows`` windows alone; None: by all."""
        self._given, self._next = self._given[:rows], self._next[:rows]

    def measure(self, session: Runner) -> str:
        """Perplexity, its change, and the KL divergence from the first that was measured."""
        logits = session.run({"input_ids": self._given})[0]["logits"]
        loss = next_token_loss(logits, self._next).mean()
        if self._exact is None:
            self._exact = logits
            return f"perplexity {np.exp(loss):.4f}"
        change = np.exp(loss - next_token_loss(self._exact, self._next).mean()) - 1
        return f"{100 * change:+.2f} %, KL {kl_divergence(logits, self._exact).mean():.1e}"


def character_model(work: Path) -> Language:
    """The demo's: the first quarter of its held-out text calibrates."""
    text = (DEMO / "char_lm" / "excerpt.txt").read_text(encoding="utf-8")
    (work / "text.txt").write_text(text[: len(text) // 4], encoding="utf-8")
    return Language(DEMO / "char_lm", text[len(text) // 4 :], work / "text.txt")


def larger_model(folder: Path) -> Language:
    """The one of ``folder``, on its own texts."""
    text = (folder / "excerpt.txt").read_text(encoding="utf-8")
    return Language(folder, text, folder / "calibration.txt")


class Parity:
    """Strings of bits, right at every position."""

    source, calibration, mixed_kl = DEMO / "parity", None, None

    def measure(self, session: xe.Session) -> str:
        """Positions of long strings that are right."""
        bits = np.random.default_rng(0).integers(0, 2, (PARITY_ROWS, PARITY_LENGTH))
        logits = session.run({"input_ids": bits})[0]["logits"]
        right = (logits.argmax(-1) == bits.cumsum(1) % 2).mean()
        return f"{100 * right:.2f} %"


class Forecaster:
    """The next day of series that it was not trained on."""

    source, mixed_kl = DEMO / "forecaster", None

    def __init__(self, work: Path) -> None:
        self.calibration = work / "series.csv"
        _, other = _series(1)
        header = ",".join(f"s{number}" for number in range(16))
        np.savetxt(
            self.calibration, other[:16, :CONTEXT].T, "%.7g", ",", header=header, comments=""
        )
        self._context, self._whole = _series(0)
        self._exact: Array | None = None

    def measure(self, session: xe.Session) -> str:
        """Quantile loss, and its change from the first that was measured."""
        quantiles = session.run({"context": self._context})[0]["quantiles"]
        self._exact = quantiles if self._exact is None else self._exact
        assert session.manifest.forecast is not None
        tally = ForecastTally(session.manifest.forecast.levels)
        observed = self._whole[:, CONTEXT : CONTEXT + PATCH]
        tally.add(quantiles, self._exact, self._context, observed)
        found = tally.measures()
        assert found is not None
        assert found.subject is not None
        assert found.reference is not None
        if quantiles is self._exact:
            return f"loss {2 * found.subject.quantile_loss:.4f}"
        change = found.subject.quantile_loss / found.reference.quantile_loss - 1
        return f"{100 * change:+.2f} %, error {found.spread_rms:.1e} of the spread"


def _series(seed: int) -> tuple[Array, Array]:
    """Contexts [series, CONTEXT] and the same series with what comes after them."""
    generator = torch.Generator().manual_seed(20_000 + seed)
    made = random_series(SERIES, CONTEXT + PATCH, generator)
    values = made.values.numpy().astype(np.float32)
    return values[:, :CONTEXT], values


def main() -> None:
    """Export every kind, measure, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, help="keep bundles in this folder")
    parser.add_argument("--language", type=Path, help="a language model in place of the demos")
    parser.add_argument("--windows", type=int, help="judge by so many of its windows of 256")
    parser.add_argument("--kinds", default="", help="only kinds whose names hold these words")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="xlstm-quality-") as name:
        work = arguments.work or Path(name)
        work.mkdir(parents=True, exist_ok=True)
        models: list[Any] = [character_model(work), Parity(), Forecaster(work)]
        if arguments.language is not None:
            models = [larger_model(arguments.language)]
            models[0].keep(arguments.windows)
        table = Table("weights", *(model.source.name for model in models))
        for kind, options in _kinds().items():
            if kind == "fp32" or arguments.kinds in kind:
                row = [_measured(model, kind, options, work) for model in models]
                print(kind, *row, sep=" | ", file=sys.stderr, flush=True)
                table.add_row(kind, *row)
        Console().print(table)


def _kinds() -> dict[str, dict[str, Any]]:
    """Options of each row; "calibrate" and "mixed" where the model has what they need."""
    four = {n: k for n, k in KINDS.items() if k["weight_format"] == "int4"}
    calibrated = {f"{n}, calibrated": {**k, "calibrate": True} for n, k in four.items()}
    mixed = {f"{n}, mixed": {**k, "mixed": True} for n, k in calibrated.items()}
    return {"fp32": {}, **KINDS, **calibrated, **mixed}


def _measured(model: Any, kind: str, options: dict[str, Any], work: Path) -> str:
    chosen = dict(options)
    if chosen.pop("calibrate", False):
        if model.calibration is None:
            return ""
        chosen["calibrate"] = model.calibration
    if chosen.pop("mixed", False):
        if model.mixed_kl is None:
            return ""
        chosen["max_kl"] = model.mixed_kl
    out = work / f"{model.source.name} {kind}"
    made = xe.export(model.source, out, overwrite=True, **chosen)
    size = made.manifest.data_bytes / 1e6
    return f"{model.measure(xe.open(made))}; {size:.2f} MB"


if __name__ == "__main__":
    main()
