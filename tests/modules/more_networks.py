"""More networks with xLSTM inside, as docs/networks.md has them; and what goes into each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import xLSTMConfig, xLSTMModel
from xlstm.blocks.slstm.cell import sLSTMCell, sLSTMCellConfig

from tests.families.block_stack_checkpoints import block_stack_config, build_upstream
from tests.modules.networks import CHANNELS, SIZE, VOCABULARY, Bottom, Classifier, Detector, series


class Forecaster(nn.Module):
    """Linear, a block stack, Linear: every step foretells the next four."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(CHANNELS, SIZE), nn.Linear(SIZE, 4)
        self.stack = build_upstream(block_stack_config(lm=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.stack(self.up(x)))


class Encoder(nn.Module):
    """A sequence of any length as one vector: the mean over the steps that a mask leaves."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, SIZE)
        self.stack = build_upstream(block_stack_config(lm=False))

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        weights = mask[..., None].float()
        h = self.stack(self.embedding(ids)) * weights.to(self.embedding.weight.dtype)
        return nn.functional.normalize(h.sum(1) / weights.sum(1).clamp(min=1), dim=-1)


class Tagger(nn.Module):
    """An sLSTM cell where an LSTM was."""

    def __init__(self) -> None:
        super().__init__()
        self.gates, self.out = nn.Linear(CHANNELS, 4 * SIZE), nn.Linear(SIZE, 3)
        self.cell = sLSTMCell(sLSTMCellConfig(hidden_size=SIZE, num_heads=2, backend="vanilla"))

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.cell(self.gates(x))
        return self.out(y.transpose(1, 2).flatten(-2))


class TextClassifier(nn.Module):
    """transformers' model with a head."""

    def __init__(self) -> None:
        super().__init__()
        config = xLSTMConfig(
            vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, num_heads=2,
            chunkwise_kernel="chunkwise--native_autograd", step_kernel="native",
            sequence_kernel="native_sequence__native", mode="inference",
        )  # fmt: skip
        self.backbone, self.head = xLSTMModel(config), nn.Linear(32, 3)

    def forward(self, input_ids: Tensor) -> Tensor:
        h = self.backbone(input_ids, use_cache=False).last_hidden_state
        return self.head(h[:, -1])


def _ids(rows: int = 2, steps: int = 20, seed: int = 1) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randint(0, VOCABULARY, (rows, steps), generator=random)


def _masked(rows: int = 2, steps: int = 20, seed: int = 1) -> dict[str, Tensor]:
    return {"ids": _ids(rows, steps, seed), "mask": _ids(rows, steps, seed + 1) % 2}


Inputs = Callable[..., Any]
NETWORKS: dict[str, tuple[type[nn.Module], Inputs, bool]] = {
    "classifier": (Classifier, series, False), "forecaster": (Forecaster, series, True),
    "encoder": (Encoder, _masked, False), "bottom": (Bottom, series, False),
    "tagger": (Tagger, series, True), "detector": (Detector, series, True),
    "texts": (TextClassifier, _ids, False),
}  # fmt: skip
"""By name: the class, what makes its inputs of rows and steps, and whether it carries states."""
