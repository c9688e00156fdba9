"""What one kernel for the norm of the heads and the output gate would save, by model.py's rates.

python -m benchmarks.gpu.neighbours

An upper bound: TensorRT joins pointwise nodes to a norm by itself, and where it does nothing is
saved; a plugin of ours is a border that it joins nothing across. The soft cap, log sigmoid and
scan of the gates, before, are in the mLSTM's kernels already.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.gpu.model import BANDWIDTH, LAUNCH

DENSE = 798e12
"""FLOP a second of an H100's bf16 products, measured: the projections' bound."""
ELEMENT = 2
"""Bytes of bfloat16."""


@dataclass(frozen=True)
class Network:
    """Layers that are alike. ``width`` is N V; ``launches`` a layer's, without what is saved."""

    title: str
    layers: int
    width: int
    weights: int
    launches: int


@dataclass(frozen=True)
class Saving:
    """Of a call on ``tokens`` of one row: its seconds, and those that one kernel would save."""

    seconds: float
    saved: float

    @property
    def share(self) -> float:
        """Of the call."""
        return self.saved / self.seconds


NETWORKS = (
    # norm, q k v o, gates, mLSTM, head norm and gate, out; norm, up, down
    Network("xLSTM-7B", 32, 4096, 6_660_000_000, 9),
    # norm, up, conv, q k, v, two of gates, mLSTM, head norm, skip and gate, out
    Network("block stack, 125M", 24, 1536, 125_000_000, 10),
)


def saving(network: Network, tokens: int) -> Saving:
    """The normed h written and read once more, and a launch, in each layer."""
    moved = 2 * tokens * network.width * ELEMENT / BANDWIDTH
    saved = network.layers * (moved + LAUNCH)
    read = network.weights * ELEMENT / BANDWIDTH
    computed = 2 * network.weights * tokens / DENSE
    launched = network.layers * network.launches * LAUNCH
    return Saving(max(read, computed) + launched + saved, saved)


def main() -> None:
    """Print the table."""
    for network in NETWORKS:
        for tokens in (1, 4096):
            found = saving(network, tokens)
            print(f"{network.title:20}{tokens:6} tokens{found.seconds * 1e3:8.2f} ms, "
                  f"saved at most {found.saved * 1e6:6.1f} us: {found.share:.1%}")  # fmt: skip


if __name__ == "__main__":
    main()
