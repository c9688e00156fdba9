"""Exports the trained stacks and shows their errors: PyTorch's, and that of the bundles.

A bundle holds the stack. The linear layers before and after it are numpy's here, as they would be
any code's of yours.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from network import CONFIGS, NAMES, PREFIX, Network, answers, load
from task import TEST_LENGTHS, test_sequences
from torch import Tensor

import xlstm_export as xe
from xlstm_export.runtime.session import Array, Session


def bundle_answers(network: Network, session: Session, inputs: Tensor) -> Array:
    """As `network.answers`, the stack run by `session`."""
    ends = {key: value.numpy() for key, value in network.state_dict().items()}
    embeds = inputs.numpy() @ ends["inwards.weight"].T + ends["inwards.bias"]
    hidden = session.run({"inputs_embeds": embeds})[0]["last_hidden_state"]
    return (hidden @ ends["outwards.weight"].T + ends["outwards.bias"])[:, 1:, 0]


def squared_errors(got: Array, wanted: Tensor) -> tuple[float, float]:
    """Mean over all steps, and at the last one."""
    squares = np.square(got.astype(np.float64) - wanted.numpy())
    return float(squares.mean()), float(squares[:, -1].mean())


def compare(name: str, folder: Path, bundle: Path) -> dict[int, list[tuple[float, float]]]:
    """Length -> squared errors of PyTorch and, but for the LSTM, of the bundle written there."""
    network, session = load(name, folder), None
    if name in CONFIGS:
        session = xe.open(xe.export(folder, bundle, prefix=PREFIX), threads=1)
    found = {}
    for length in TEST_LENGTHS:
        inputs, wanted = test_sequences(length)
        found[length] = [squared_errors(answers(network, inputs).numpy(), wanted)]
        if session is not None:
            found[length].append(squared_errors(bundle_answers(network, session, inputs), wanted))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, default=Path(__file__).parent, help="parent folder")
    weights = parser.parse_args().weights
    print("| | parameters | length | PyTorch | bundle | last step: PyTorch | bundle |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name in NAMES:
            count = sum(p.numel() for p in load(name, weights / name).parameters())
            for length, errors in compare(name, weights / name, Path(folder) / name).items():
                shown = [[f"{error:.4g}" for error in pair] for pair in errors]
                theirs, ours = shown if len(shown) > 1 else (*shown, ["-", "-"])
                row = [theirs[0], ours[0], theirs[1], ours[1]]
                print(f"| {name} | {count:,} | {length} | {' | '.join(row)} |")


if __name__ == "__main__":
    main()
