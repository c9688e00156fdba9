"""The two shapes the benchmarks use, as random checkpoints written by upstream's own packages."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from tests.families.block_stack_checkpoints import make_block_stack
from tests.families.large_checkpoints import make_hf
from xlstm_export.checkpoint.source import Source

HF_VOCABULARY = 32_000


def hf_125m(folder: Path, *, small: bool = False) -> Source:
    """A transformers checkpoint: D 768, 12 blocks, 4 heads, vocabulary 32,000 (134M weights).

    ``small`` makes 2 blocks of D 256, to try a benchmark out.
    """
    width, blocks = (256, 2) if small else (768, 12)
    folder = folder.with_name(f"{folder.name}-{width}x{blocks}")
    if not (folder / "config.json").is_file():
        make_hf(
            folder, embedding_dim=width, num_blocks=blocks, num_heads=4, vocab_size=HF_VOCABULARY
        )
    return Source(folder)


def block_stack(folder: Path, *, small: bool = False, lm: bool = False) -> tuple[Source, nn.Module]:
    """A bare block stack: D 512, 8 blocks, 4 heads, an sLSTM at 1 with feed-forward network.

    Returns upstream's module as well. ``small`` makes 2 blocks of D 128. ``lm``: the same as a
    language model, vocabulary 32,000 (small: 500).
    """
    width, blocks = (128, 2) if small else (512, 8)
    folder = folder.with_name(f"{folder.name}-{width}x{blocks}")
    rounded = {"round_proj_up_to_multiple_of": 64}  # upstream's default
    ends = {"vocab_size": 500 if small else HF_VOCABULARY} if lm else {}
    source, module = make_block_stack(
        folder, lm=lm, **ends, embedding_dim=width, num_blocks=blocks, slstm_at=[1],
        context_length=2048, mlstm=rounded, slstm={"num_heads": 4}, feedforward=rounded,
    )  # fmt: skip
    return source, module
