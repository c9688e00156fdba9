"""The script that trains the larger model: its text, its tokenizer, and a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.recipes.scripts import script

SMALL = {"num_blocks": 2, "embedding_dim": 32}


@pytest.fixture(scope="module")
def byte_lm() -> Any:
    return script("demo", "train_byte_lm")


def test_every_byte_has_an_id(byte_lm: Any) -> None:
    tokenizer = byte_lm.byte_tokenizer()
    text = "def f():\n\treturn 'ä → 1'\n"
    encoded = tokenizer.encode(text).ids
    assert len(encoded) == len(text.encode())
    assert tokenizer.decode(encoded) == text
    assert tokenizer.get_vocab_size() == byte_lm.CONFIG["vocab_size"]


def test_what_is_held_out_is_not_trained_on(byte_lm: Any) -> None:
    training, held_out = byte_lm.library_text()
    assert 0.02 < len(held_out) / len(training) < 0.2
    for text in (training, held_out):
        piece = byte_lm.excerpt(text)
        assert piece.isascii()
        assert 0.9 * byte_lm.EXCERPT_LENGTH < len(piece) <= byte_lm.EXCERPT_LENGTH
    assert byte_lm.excerpt(held_out)[:1000] not in training


def test_training_ends_by_the_clock_and_leaves_a_checkpoint(
    byte_lm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = [byte_lm.learning_rate(part) for part in (0.0, 0.03, 0.5, 1.0, 2.0)]
    assert rates[0] == 0
    assert max(rates) == rates[1]
    assert rates[3] == rates[4] == 0
    monkeypatch.setattr(byte_lm, "learning_rate", lambda part: 1e-3)
    monkeypatch.setattr(byte_lm, "CONFIG", byte_lm.CONFIG | SMALL)
    model = byte_lm.model_from_config(byte_lm.CONFIG)
    before = model.token_embedding.weight.detach().clone()
    ids = torch.arange(4096) % 256
    assert byte_lm.train(model, ids, 0, 1e-6, tmp_path) == 1
    loaded = byte_lm.load_checkpoint(tmp_path)
    assert not torch.equal(loaded.token_embedding.weight, before)
    assert byte_lm.perplexity(loaded, ids[:300]) > 1
