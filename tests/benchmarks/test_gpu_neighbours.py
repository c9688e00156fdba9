"""What joining a norm and a gate would save: a bound that docs/gpu.md quotes."""

from __future__ import annotations

import pytest

from benchmarks.gpu.model import BANDWIDTH, LAUNCH
from benchmarks.gpu.neighbours import NETWORKS, saving


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.title)
def test_a_step_saves_a_launch_a_layer_and_little_else(network) -> None:
    found = saving(network, 1)
    assert network.layers * LAUNCH < found.saved < 1.01 * network.layers * LAUNCH
    assert found.seconds > network.weights * 2 / BANDWIDTH + found.saved


def test_the_figures_of_the_page() -> None:
    large, small = NETWORKS
    shares = [saving(n, tokens).share for n in (large, small) for tokens in (1, 4096)]
    assert shares == pytest.approx([0.010, 0.011, 0.075, 0.126], abs=0.001)
