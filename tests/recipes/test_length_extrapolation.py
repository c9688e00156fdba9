"""What the page on length extrapolation draws: losses of a bundle far beyond the trained length."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

import xlstm_export as xe
from tests.recipes.scripts import RECIPES, script

CHAR_LM = RECIPES / "demo" / "char_lm"
measure = script("length_extrapolation", "measure")


def _windows(count: int, length: int) -> np.ndarray:
    text = (CHAR_LM / "excerpt.txt").read_text(encoding="utf-8")
    ids = np.array(Tokenizer.from_file(str(CHAR_LM / "tokenizer.json")).encode(text).ids)
    starts = np.linspace(0, len(ids) - length - 1, count).astype(int)
    return ids[starts[:, None] + np.arange(length + 1)]


def test_losses_are_those_of_torch_and_no_worse_at_eight_times_the_length(tmp_path: Path) -> None:
    session = xe.open(xe.export(CHAR_LM, tmp_path / "char_lm"), threads=1)
    windows = _windows(count=12, length=8 * measure.TRAINED)
    bits = measure.losses(session, windows)
    module = script("demo", "checkpoint").load_checkpoint(CHAR_LM)
    known = windows[:, : 2 * measure.TRAINED + 1]  # as far as upstream's parallel form reaches
    with torch.inference_mode():
        logits = module(torch.tensor(known[:, :-1]))
    wanted = torch.nn.functional.cross_entropy(
        logits.transpose(1, 2), torch.tensor(known[:, 1:]), reduction="none"
    )
    got = bits[:, : known.shape[1] - 1]
    assert got == pytest.approx(wanted.numpy() / np.log(2), abs=1e-3)
    anew = measure.losses(session, windows[:, -measure.TRAINED - 1 :])
    assert bits[:, -measure.TRAINED :].mean() < anew.mean()


def test_the_plot_and_table_show_every_span(tmp_path: Path) -> None:
    falling = np.linspace(3, 1, measure.MOST)
    measure.draw(falling, falling + 1, tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").stat().st_size < 60_000
    rows = measure.table(falling, falling + 1).splitlines()[2:]
    assert len(rows) == len(measure.SPANS) - 1
    assert rows[0].startswith("| 0 to 16 | 2.996 | 3.996 |")
