"""Networks with xLSTM inside, as their users write them; every parameter is random."""

from __future__ import annotations

import math
from typing import Any

import torch
from tirex.models.slstm.cell import sLSTMBlockConfig
from tirex.models.slstm.layer import sLSTMLayer as TirexLayer
from torch import Tensor, nn
from xlstm import mLSTMLayer, mLSTMLayerConfig, sLSTMLayer, sLSTMLayerConfig
from xlstm.xlstm_large.model import xLSTMLarge, xLSTMLargeConfig

from tests.families.block_stack_checkpoints import block_stack_config, build_upstream, randomise

CHANNELS, SIZE, CLASSES, VOCABULARY = 5, 16, 3, 11


class Classifier(nn.Module):
    """A CNN front, a block stack, the mean over time, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.front = nn.Conv1d(CHANNELS, SIZE, 3, padding=1)
        self.stack = build_upstream(block_stack_config(lm=False))
        self.head = nn.Linear(SIZE, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stack(self.front(x.transpose(1, 2)).transpose(1, 2)).mean(1))


class Detector(nn.Module):
    """A score for every step, and the last hidden state: causal throughout."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(CHANNELS, SIZE)
        self.mixer = mLSTMLayer(
            mLSTMLayerConfig(embedding_dim=SIZE, context_length=128, num_heads=2)
        )
        self.memory = sLSTMLayer(
            sLSTMLayerConfig(embedding_dim=SIZE, num_heads=2, backend="vanilla")
        )
        self.score = nn.Linear(SIZE, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        h = self.up(x)
        h = h + self.mixer(h)
        h = h + self.memory(h)
        return {"score": self.score(h), "last": h[:, -1]}


class Bottom(nn.Module):
    """A block at the bottom of a U-shaped net."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv1d(CHANNELS, SIZE, 4, stride=2, padding=1)
        self.stack = build_upstream(block_stack_config(lm=False))
        self.up = nn.ConvTranspose1d(SIZE, CHANNELS, 4, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.down(x.transpose(1, 2)).transpose(1, 2)
        return self.up(self.stack(h).transpose(1, 2)).transpose(1, 2) + x


class Rounding(nn.Module):
    """TiRex' layer, which rounds to bfloat16 between its steps."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(CHANNELS, SIZE), nn.Linear(SIZE, CLASSES)
        self.layer = TirexLayer(sLSTMBlockConfig(embedding_dim=SIZE, num_heads=2), "torch")

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.layer(self.up(x)))


class Flipped(Detector):
    """A detector that also reads its series from the end."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        h = self.up(x)
        return {"score": self.score(self.mixer(h) + self.mixer(h.flip(1)).flip(1))}


class HandWritten(nn.Module):
    """A recurrence of one's own, a Python loop over time."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(CHANNELS, CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        h, steps = torch.zeros_like(x[:, 0]), []
        for t in range(x.shape[1]):
            h = torch.tanh(self.mix(h) + x[:, t])
            steps.append(h)
        return torch.stack(steps, 1)


class BesideALoop(nn.Module):
    """A loop in front of a recurrence that is known."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.detector = HandWritten(), Detector()

    def forward(self, x: Tensor) -> Tensor:
        return self.detector(self.rnn(x))["score"]


class Branching(Detector):
    """Another way for other numbers."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        if x.mean() > 0:
            x = -x
        return super().forward(x)


def made(kind: type[nn.Module], seed: int = 0) -> Any:
    """The network in eval mode, random throughout."""
    torch.manual_seed(seed)
    network = kind()
    randomise(network)
    return network.eval()


def series(rows: int = 2, steps: int = 20, seed: int = 1) -> Tensor:
    """Inputs [rows, steps, CHANNELS]."""
    return torch.randn(rows, steps, CHANNELS, generator=torch.Generator().manual_seed(seed))


def large_model(**fields: Any) -> xLSTMLarge:
    """xLSTMLarge on kernels that compute on the CPU, random throughout."""
    torch.manual_seed(3)
    kernels = {
        "chunkwise_kernel": "chunkwise--native_autograd", "step_kernel": "native",
        "sequence_kernel": "native_sequence__native", "mode": "inference", "chunk_size": 16,
    }  # fmt: skip
    sizes = {"embedding_dim": 32, "num_heads": 2, "num_blocks": 1, "vocab_size": VOCABULARY}
    model = xLSTMLarge(xLSTMLargeConfig(**sizes | kernels | fields)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = 0.5 if parameter.dim() == 1 else 1 / math.sqrt(parameter.shape[-1])
            parameter.normal_(1.0 if "norm" in name else 0.0, scale)
    return model
