"""Trains the parity demo: after every bit, the model says whether the number of ones is odd.

Input ids are the bits (0, 1); the two logits at position t classify the parity of bits 0..t. It is
the state-tracking task of the xLSTM paper. It needs sLSTM: flipping a stored state on each one
requires memory mixing, the recurrent matrix R from the last hidden state to the gates, which mLSTM
does not have (its gates see only the input). The causal convolution is left out: with it, some
seeds learn the parity of the last few bits instead and stop there.

Half of the training strings are fair coin flips; the others have their own density of ones, for
long runs. Strings grow from 4 to 64 bits while training (a curriculum: longer once the current
length is solved). The model is then measured, reloaded from its files, on fresh fair strings 1, 2,
4 and 8 times longer than any it was trained on. Takes one to two minutes on one CPU core.
"""

import time
from typing import Any

import torch
from checkpoint import (
    Config,
    Run,
    load_checkpoint,
    model_from_config,
    run_arguments,
    save_checkpoint,
    write_metrics,
)
from torch.nn.functional import cross_entropy
from xlstm import xLSTMLMModel

FIRST_LENGTH = 4
TRAIN_LENGTH = 64
MULTIPLES = (1, 2, 4, 8)
TEST_STRINGS = 4096
TEST_SEED = 10_000  # added to the run's seed: the test strings are not the training strings
BATCH = 64
LEARNING_RATE = 1e-2

CONFIG: Config = {
    "vocab_size": 2,
    "context_length": TRAIN_LENGTH * max(MULTIPLES),
    "num_blocks": 2,
    "embedding_dim": 32,
    "slstm_at": [0, 1],
    "slstm_block": {
        "slstm": {
            "backend": "vanilla",
            "dtype": "float32",
            "num_heads": 2,
            "conv1d_kernel_size": 0,
        },
        "feedforward": {"proj_factor": 1.3, "act_fn": "gelu"},
    },
}


def random_strings(
    count: int, length: int, generator: torch.Generator, fair: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Bits [count, length] and the parity of every prefix [count, length].

    The first `fair` strings are fair coin flips; each other one has its own density of ones, so
    that long runs occur.
    """
    density = torch.rand(count, 1, generator=generator)
    density[:fair] = 0.5
    bits = (torch.rand(count, length, generator=generator) < density).long()
    return bits, bits.cumsum(dim=1) % 2


def train(model: xLSTMLMModel, run: Run) -> None:
    generator = torch.Generator().manual_seed(run.seed)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=run.steps, pct_start=0.05
    )
    length = FIRST_LENGTH
    model.train()
    for step in range(run.steps):
        bits, parity = random_strings(BATCH, length, generator, fair=BATCH // 2)
        logits = model(bits)
        loss = cross_entropy(logits.flatten(0, 1), parity.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        accuracy = (logits.argmax(-1) == parity).float().mean().item()
        if step % 50 == 0 or step == run.steps - 1:
            print(
                f"step {step:5d}  length {length:3d}  loss {loss.item():.5f}  right {accuracy:.4f}",
                flush=True,
            )
        if accuracy > 0.99:
            length = min(TRAIN_LENGTH, length + 2)
    if length < TRAIN_LENGTH:
        raise RuntimeError(
            f"the curriculum only reached length {length} of {TRAIN_LENGTH}: raise --steps"
        )


@torch.no_grad()
def measure(model: xLSTMLMModel, seed: int) -> dict[str, Any]:
    """Accuracy over all positions, at the final one, and over whole strings, for each length."""
    generator = torch.Generator().manual_seed(seed)
    accuracy = {}
    for multiple in MULTIPLES:
        bits, parity = random_strings(
            TEST_STRINGS, TRAIN_LENGTH * multiple, generator, fair=TEST_STRINGS
        )
        right = (model(bits).argmax(-1) == parity).double()
        accuracy[f"{multiple}x"] = {
            "length": TRAIN_LENGTH * multiple,
            "per_position": right.mean().item(),
            "final_position": right[:, -1].mean().item(),
            "whole_string": right.amin(dim=1).mean().item(),
        }
    return accuracy


@torch.no_grad()
def longest_memory(model: xLSTMLMModel, zeros: int = 2048) -> int:
    """How many zeros after a single one the model reads before its first wrong answer."""
    bits = torch.tensor([[1] + [0] * zeros])
    right = model(bits).argmax(-1)[0] == 1
    return int(right.long().cumprod(dim=0).sum()) - 1


def main() -> None:
    arguments = run_arguments(
        "Train the parity demo model (sLSTM only).", "parity", steps=500
    ).parse_args()
    run = Run(arguments.seed, arguments.steps, arguments.threads)
    run.start()
    model = model_from_config(CONFIG)
    model.reset_parameters()
    start = time.monotonic()
    train(model, run)
    seconds = time.monotonic() - start
    save_checkpoint(model, CONFIG, arguments.out)
    reloaded = load_checkpoint(arguments.out)
    metrics = {
        "task": "parity of every prefix of a fair random bit string",
        "train_length": TRAIN_LENGTH,
        "test_strings_per_length": TEST_STRINGS,
        "accuracy": measure(reloaded, run.seed + TEST_SEED),
        "zeros_remembered_after_a_one": longest_memory(reloaded),
    }
    write_metrics(arguments.out, reloaded, run, seconds, metrics)


if __name__ == "__main__":
    main()
