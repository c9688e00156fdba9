"""Trains an sLSTM stack, an mLSTM stack and an LSTM of like size on nearest-neighbour search.

All three get the same sequences, the same steps and the same schedule; the loss is the squared
error of the answer at every step. Sequences grow from 4 to 32 steps in the first half of training.
Takes three minutes for the sLSTM, a loop in Python, and one for the others, on one CPU core.
"""

import argparse
from pathlib import Path

import torch
from network import NAMES, Network, load, save
from task import TRAIN_LENGTH, random_sequences, test_sequences
from torch.nn.functional import mse_loss

BATCH = 128
LEARNING_RATE = 1e-2
FIRST_LENGTH = 4


def train(network: Network, seed: int, steps: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.1
    )
    network.train()
    total = 0.0
    for step in range(steps):
        length = min(TRAIN_LENGTH, FIRST_LENGTH + 2 * step * (TRAIN_LENGTH - FIRST_LENGTH) // steps)
        inputs, wanted = random_sequences(BATCH, length, generator)
        loss = mse_loss(network(inputs)[:, 1:], wanted)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        total += loss.item()
        if step % 100 == 99:
            where = f"{network.name} step {step + 1:5d}  length {length:2d}"
            print(f"{where}  squared error {total / 100:.5f}", flush=True)
            total = 0.0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train on nearest-neighbour search.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="parent folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    for name in arguments.names or NAMES:
        torch.manual_seed(arguments.seed)
        network = Network(name)
        train(network, arguments.seed, arguments.steps)
        save(network, arguments.out / name)
        inputs, wanted = test_sequences(TRAIN_LENGTH)
        with torch.no_grad():
            error = mse_loss(load(name, arguments.out / name)(inputs)[:, 1:], wanted).item()
        print(f"{name}: squared error on fresh sequences {error:.6f}")


if __name__ == "__main__":
    main()
