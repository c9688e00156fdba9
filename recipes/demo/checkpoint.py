"""Folder of a demo checkpoint: `config.yaml` (upstream's config fields) + `model.safetensors`."""

import argparse
import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file, save_file
from xlstm import (
    FeedForwardConfig,
    mLSTMBlockConfig,
    mLSTMLayerConfig,
    sLSTMBlockConfig,
    sLSTMLayerConfig,
    xLSTMLMModel,
    xLSTMLMModelConfig,
)

Config = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """What identifies one training run; written into `metrics.json`."""

    seed: int
    steps: int
    threads: int

    def start(self) -> None:
        """Fixes the thread count and the global random seed."""
        torch.set_num_threads(self.threads)
        torch.manual_seed(self.seed)


def run_arguments(what: str, name: str, steps: int) -> argparse.ArgumentParser:
    """The options that every training script has; `name` is the folder beside it."""
    parser = argparse.ArgumentParser(description=what)
    folder = Path(__file__).parent / name
    parser.add_argument("--out", type=Path, default=folder, help="folder to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--threads", type=int, default=1)
    return parser


def model_from_config(config: Config) -> xLSTMLMModel:
    """Builds upstream's model from the plain dictionary; an unknown field raises TypeError."""
    fields = dict(config)
    slstm = fields.pop("slstm_block")
    mlstm = fields.pop("mlstm_block", None)
    slstm_block = sLSTMBlockConfig(
        slstm=sLSTMLayerConfig(**slstm["slstm"]),
        feedforward=FeedForwardConfig(**slstm["feedforward"]),
    )
    mlstm_block = mLSTMBlockConfig(mlstm=mLSTMLayerConfig(**mlstm["mlstm"])) if mlstm else None
    return xLSTMLMModel(
        xLSTMLMModelConfig(mlstm_block=mlstm_block, slstm_block=slstm_block, **fields)
    )


def save_checkpoint(model: xLSTMLMModel, config: Config, folder: Path) -> None:
    """Every tensor gets its own contiguous storage: safetensors refuses aliases (tied weights)."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: tensor.detach().float().clone().contiguous()
        for name, tensor in model.state_dict().items()
    }
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")


def load_checkpoint(folder: Path) -> xLSTMLMModel:
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    model = model_from_config(config)
    model.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
    return model.eval()


def write_metrics(
    folder: Path,
    model: torch.nn.Module,
    run: Run,
    seconds: float,
    metrics: dict[str, Any],
    packages: tuple[str, ...] = ("torch", "xlstm"),
) -> None:
    training = {
        "seed": run.seed,
        "steps": run.steps,
        "threads": run.threads,
        "seconds": round(seconds, 1),
    }
    record = {
        **metrics,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "training": training,
        "versions": {name: version(name) for name in packages},
    }
    text = json.dumps(record, indent=2, ensure_ascii=False)
    (folder / "metrics.json").write_text(text + "\n", encoding="utf-8")
    print(text)
