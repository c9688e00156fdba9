"""Networks of one's own as bundles: of tokens to logits, of embeddings to hidden states."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from xlstm import mLSTMLayer, mLSTMLayerConfig

import xlstm_export as xe
from tests.families.block_stack_checkpoints import randomise

VOCABULARY, SIZE = 11, 16


def _mixer() -> mLSTMLayer:
    return mLSTMLayer(mLSTMLayerConfig(embedding_dim=SIZE, context_length=1024, num_heads=2))


class _Speaker(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.mixer = nn.Embedding(VOCABULARY, SIZE), _mixer()
        self.head = nn.Linear(SIZE, VOCABULARY)

    def forward(self, input_ids: Tensor) -> dict[str, Tensor]:
        return {"logits": self.head(self.mixer(self.embedding(input_ids)))}


class _Stack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mixer = _mixer()

    def forward(self, inputs_embeds: Tensor) -> dict[str, Tensor]:
        return {"last_hidden_state": inputs_embeds + self.mixer(inputs_embeds)}


def speaker(out: Path, states: bool) -> Path:
    """A language model whose manifest tells no vocabulary; without ``states`` nothing goes on."""
    return _exported(_Speaker(), {"input_ids": torch.zeros((2, 9), dtype=torch.long)}, out, states)


def stack(out: Path) -> Path:
    """Hidden states of embeddings, without states."""
    return _exported(_Stack(), {"inputs_embeds": torch.zeros((2, 9, SIZE))}, out, states=False)


def _exported(network: nn.Module, examples: dict[str, Tensor], out: Path, states: bool) -> Path:
    torch.manual_seed(0)
    randomise(network)
    return xe.export_module(network.eval(), examples, out, states=states).path
