"""A recurrent stack between two linear layers, and the folder it is kept in.

A folder holds `model.safetensors` and, but for the LSTM, `config.yaml`: upstream's fields of the
stack, whose tensors are those under `stack.`.
"""

from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file, save_file
from task import INPUTS
from torch import Tensor, nn
from xlstm import (
    FeedForwardConfig,
    mLSTMBlockConfig,
    mLSTMLayerConfig,
    sLSTMBlockConfig,
    sLSTMLayerConfig,
    xLSTMBlockStack,
    xLSTMBlockStackConfig,
)

SIZE, BLOCKS, HEADS = 32, 2, 2
LSTM_SIZE = 48
PREFIX = "stack."
_COMMON = {"context_length": 64, "num_blocks": BLOCKS, "embedding_dim": SIZE}
CONFIGS: dict[str, dict[str, Any]] = {
    "slstm": {
        **_COMMON,
        "slstm_at": "all",
        "slstm_block": {
            "slstm": {"backend": "vanilla", "dtype": "float32", "num_heads": HEADS},
            "feedforward": {"proj_factor": 1.3, "act_fn": "gelu"},
        },
    },
    "mlstm": {
        **_COMMON,
        "slstm_at": [],
        "mlstm_block": {"mlstm": {"num_heads": HEADS, "qkv_proj_blocksize": 4}},
    },
}
NAMES = (*CONFIGS, "lstm")


class Network(nn.Module):
    """Inputs [B, T, INPUTS] -> answers [B, T]."""

    def __init__(self, name: str) -> None:
        super().__init__()
        size = LSTM_SIZE if name == "lstm" else SIZE
        self.name = name
        self.inwards = nn.Linear(INPUTS, size)
        self.stack = nn.LSTM(size, size, batch_first=True) if name == "lstm" else _stack(name)
        self.outwards = nn.Linear(size, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        """As the class says."""
        found = self.stack(self.inwards(inputs))
        hidden = found[0] if self.name == "lstm" else found
        return self.outwards(hidden)[..., 0]


def _stack(name: str) -> xLSTMBlockStack:
    fields = dict(CONFIGS[name])
    if name == "slstm":
        block = fields.pop("slstm_block")
        fields["slstm_block"] = sLSTMBlockConfig(
            slstm=sLSTMLayerConfig(**block["slstm"]),
            feedforward=FeedForwardConfig(**block["feedforward"]),
        )
    else:
        block = fields.pop("mlstm_block")
        fields["mlstm_block"] = mLSTMBlockConfig(mlstm=mLSTMLayerConfig(**block["mlstm"]))
    stack = xLSTMBlockStack(xLSTMBlockStackConfig(**fields))
    stack.reset_parameters()
    return stack


def save(network: Network, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {key: value.detach().clone() for key, value in network.state_dict().items()}
    save_file(tensors, folder / "model.safetensors")
    if network.name in CONFIGS:
        text = yaml.safe_dump(CONFIGS[network.name], sort_keys=False)
        (folder / "config.yaml").write_text(text, encoding="utf-8")


def load(name: str, folder: Path) -> Network:
    network = Network(name)
    network.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
    return network.eval()


@torch.no_grad()
def answers(network: Network, inputs: Tensor) -> Tensor:
    """[B, T - 1]: what the network says after every vector but the reference."""
    return network(inputs)[:, 1:]
