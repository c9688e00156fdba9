"""Checkpoints and bundles that the tests of the command line share; each test copies or reads."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from tests.cli.terminal import succeed
from tests.families.block_stack_checkpoints import make_block_stack
from tests.families.large_checkpoints import make_hf, make_xlstm_large
from tests.generation.byte_tokenizer import save_byte_tokenizer


class Made(NamedTuple):
    """One checkpoint of each kind, and the bundles of some."""

    checkpoints: Path
    """Folders hf (in 2 shards), large, stack (a language model), bare."""
    bundles: Path
    """Folders hf (with a byte tokenizer), stack (without one), bare, bf16."""


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("made")
    checkpoints, bundles = folder / "checkpoints", folder / "bundles"
    make_hf(checkpoints / "hf", shards=2, vocab_size=256)
    save_byte_tokenizer(checkpoints / "hf" / "tokenizer.json")
    make_xlstm_large(checkpoints / "large")
    make_block_stack(checkpoints / "stack")
    make_block_stack(checkpoints / "bare", lm=False)
    for name in ("hf", "stack", "bare"):
        succeed("export", checkpoints / name, "-o", bundles / name)
    succeed("export", checkpoints / "stack", "-o", bundles / "bf16", "--dtype", "bf16")
    return Made(checkpoints, bundles)
