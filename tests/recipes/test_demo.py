"""The shipped models: their bundles reproduce PyTorch's accuracy and perplexity."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

import xlstm_export as xe
from tests.recipes.scripts import script
from xlstm_export import export, validate
from xlstm_export.runtime.ort import OrtSession
from xlstm_export.runtime.session import Array, run_split

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "recipes" / "demo"
DIGITS = 1e-4

Model = Callable[[Array], Array]


def _torch_model(name: str) -> Model:
    """Upstream's own parallel forward in float32."""
    module = script("demo", "checkpoint").load_checkpoint(DEMO / name)

    def run(ids: Array) -> Array:
        with torch.inference_mode():
            return module(torch.tensor(ids)).numpy()

    return run


def _bundle_model(bundle: Path) -> Model:
    session = OrtSession(bundle, threads=1)
    return lambda ids: run_split(session, "input_ids", ids, most=100)[0]["logits"]


@pytest.fixture(scope="module", params=["float32", "float16"])
def bundles(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("demo")
    for name in ("parity", "char_lm"):
        export(DEMO / name, folder / name, dtype=request.param)
    return folder


def _parity_accuracy(model: Model, length: int, strings: int = 200) -> tuple[float, float]:
    """Share of right answers over all positions, and at the last one."""
    bits = np.random.default_rng(7).integers(0, 2, (strings, length))
    right = model(bits).argmax(-1) == np.cumsum(bits, axis=1) % 2
    return float(right.mean()), float(right[:, -1].mean())


def _perplexity(model: Model, ids: list[int], window: int) -> float:
    """Non-overlapping windows, each from the zero state; every id but the first is predicted."""
    losses = []
    for start in range(0, len(ids) - 1, window):
        inputs, targets = ids[start : start + window], ids[start + 1 : start + window + 1]
        logits = model(np.array([inputs[: len(targets)]]))[0].astype(np.float64)
        logits -= logits.max(-1, keepdims=True)
        log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        losses.extend(-log_p[np.arange(len(targets)), targets])
    return float(np.exp(np.mean(losses)))


def test_parity_stays_right_at_eight_times_its_training_length(bundles: Path) -> None:
    metrics = json.loads((DEMO / "parity" / "metrics.json").read_text())
    length = 8 * metrics["train_length"]
    got = _parity_accuracy(_bundle_model(bundles / "parity"), length)
    assert min(got) >= 0.99
    want = _parity_accuracy(_torch_model("parity"), length)
    assert np.abs(np.subtract(got, want)).max() < DIGITS


def test_perplexity_is_that_of_torch(bundles: Path) -> None:
    metrics = json.loads((DEMO / "char_lm" / "metrics.json").read_text())
    text = (DEMO / "char_lm" / "excerpt.txt").read_text(encoding="utf-8")
    ids = Tokenizer.from_file(str(DEMO / "char_lm" / "tokenizer.json")).encode(text).ids
    got = _perplexity(_bundle_model(bundles / "char_lm"), ids, window=256)
    want = _perplexity(_torch_model("char_lm"), ids, window=256)
    is_exact = (
        json.loads((bundles / "char_lm" / "xlstm_export.json").read_text())["dtype"] == "float32"
    )
    # float16 weights are other weights: their perplexity may differ in the fourth digit
    assert got == pytest.approx(want, rel=DIGITS / 2 if is_exact else 1e-3)
    assert want == pytest.approx(metrics["perplexity"], rel=DIGITS)


def test_the_tokenizer_gives_back_the_excerpt() -> None:
    text = (DEMO / "char_lm" / "excerpt.txt").read_text(encoding="utf-8")
    tokenizer = Tokenizer.from_file(str(DEMO / "char_lm" / "tokenizer.json"))
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


@pytest.mark.parametrize("name", ["parity", "char_lm", "forecaster"])
def test_shipped_models_are_validated(name: str, tmp_path: Path) -> None:
    bundle = export(DEMO / name, tmp_path / name)
    assert validate(bundle, DEMO / name).verdict == "validated"


@pytest.fixture(scope="module")
def forecaster(tmp_path_factory: pytest.TempPathFactory) -> xe.Session:
    bundle = export(DEMO / "forecaster", tmp_path_factory.mktemp("demo") / "forecaster")
    return xe.open(bundle, threads=1)


def test_the_forecaster_has_the_loss_that_upstream_had(forecaster: xe.Session) -> None:
    """bfloat16 inside its cell: two programs that compute it differ by that noise."""
    training = script("demo", "train_forecaster")
    stated = json.loads((DEMO / "forecaster" / "metrics.json").read_text())
    series, context, target = training.held_out(stated["training"]["seed"] + training.TEST_SEED)
    made = xe.forecast(forecaster, context.numpy(), 96, rollout="rerun")
    spread = training.spread(context)
    loss = training.quantile_loss(torch.from_numpy(made.quantiles), target[:, :96]) / spread
    wanted = stated["quantile_loss_by_horizon"]["96"]
    assert loss.mean().item() == pytest.approx(wanted["model"], rel=2e-3)
    assert wanted["model"] < 0.9 * wanted["seasonal_naive"]
    assert len(series.period) == stated["test_series"]


def test_the_table_of_series_is_that_of_its_script() -> None:
    import pandas as pd

    made = script("demo", "write_series").make_series()
    stored = pd.read_csv(DEMO / "forecaster" / "series.csv", index_col="date", parse_dates=True)
    pd.testing.assert_frame_equal(stored, made, check_dtype=False, check_freq=False)


def test_the_forecaster_foretells_the_last_days_of_the_table(
    forecaster: xe.Session, tmp_path: Path
) -> None:
    """A day ahead, four times: each series by less than half the error of its own median."""
    import pandas as pd

    day = 24
    table = pd.read_csv(DEMO / "forecaster" / "series.csv", index_col="date")
    ours, flat = [], []
    for end in range(len(table) - 4 * day, len(table), day):
        table[:end].to_csv(tmp_path / "past.csv")
        made = xe.forecast_file(forecaster, tmp_path / "past.csv", day)
        assert made.names == ("load", "temperature", "visitors")
        wanted = table[end : end + day].to_numpy().T
        ours.append(np.nanmean(np.abs(made.forecast.median - wanted), axis=1))
        median = table[:end].median().to_numpy()[:, None]
        flat.append(np.nanmean(np.abs(median - wanted), axis=1))
    assert (np.mean(ours, axis=0) < np.mean(flat, axis=0) / 2).all()


def test_shipped_files_are_small() -> None:
    for path in (*DEMO.rglob("*.safetensors"), DEMO / "forecaster" / "model.ckpt"):
        assert path.stat().st_size <= 2_000_000
    assert (DEMO / "char_lm" / "excerpt.txt").stat().st_size <= 20_000


@pytest.fixture
def stand_in(tmp_path: Path) -> Callable[..., tuple[str, list[str]]]:
    """Run a script of bash's, such as the demo's, where xlstm-export only writes down its words.

    Returns what is printed and, a line each, the commands; the script finds BIN and OUT.
    """
    bin_folder, out, log = tmp_path / "a bin", tmp_path / "my $out", tmp_path / "log"
    bin_folder.mkdir()
    stubs = {
        "xlstm-export": f"printf '<%s>' \"$@\" >> '{log}'; echo >> '{log}'",
        "python": "exit 1",
    }
    for name, body in stubs.items():
        (bin_folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (bin_folder / name).chmod(0o755)
    for model in ("char_lm", "parity", "forecaster"):
        (out / model / "reports").mkdir(parents=True)
        (out / model / "reports" / "validation.md").touch()

    def run(*words: object, stdout: int = subprocess.PIPE, **extra: str) -> tuple[str, list[str]]:
        environment = {"PATH": os.defpath, "BIN": str(bin_folder), "OUT": str(out), **extra}
        log.write_text("")
        done = subprocess.run(
            ["bash", *map(str, words)], cwd=ROOT, env=environment, check=True, text=True,
            stdout=stdout, stderr=subprocess.STDOUT,
        )  # fmt: skip
        return done.stdout, log.read_text().splitlines()

    return run


def test_the_printed_commands_can_be_pasted(stand_in: Callable[..., Any]) -> None:
    """Into a shell, where they do what the demo did."""
    printed, commands = stand_in(DEMO / "run.sh")
    lines = [line.removeprefix("$ ") for line in printed.splitlines() if line.startswith("$ ")]
    assert any("<The Rays of Light >" in command for command in commands)
    assert stand_in("-c", "\n".join(lines))[1] == commands


@pytest.mark.parametrize(
    ("extra", "is_bold"), [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True)]
)
def test_a_terminal_gets_bold_commands(
    stand_in: Callable[..., Any], extra: dict[str, str], is_bold: bool
) -> None:
    ours, theirs = pty.openpty()
    stand_in(DEMO / "run.sh", stdout=theirs, **extra)
    os.close(theirs)
    printed = os.read(ours, 4096)
    os.close(ours)
    assert (b"\n\033[1m$ " in printed) is is_bold
    assert is_bold or b"\033" not in printed


def test_a_file_gets_no_colour(stand_in: Callable[..., Any]) -> None:
    assert "\033" not in stand_in(DEMO / "run.sh")[0]
