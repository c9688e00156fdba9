"""Who takes part where a user's network is compared."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from xlstm_export.bundle.manifest import Manifest
from xlstm_export.reference.network import Network, NetworkOracle, NetworkReference
from xlstm_export.runtime.open import Execution
from xlstm_export.runtime.operators import BundleOperators
from xlstm_export.runtime.session import Session
from xlstm_export.validation.checks.rollout import BASELINE_ROWS
from xlstm_export.validation.networks.inputs import Shapes, check_examples, taken_shapes
from xlstm_export.validation.participants import bundle_operators, open_subject

_ROUNDING_ROWS = 30
"""Rows of a network that rounds between its steps: a number that falls to the other side is rare
and large, so that a baseline has to see many."""


@dataclass(frozen=True)
class NetworkParticipants:
    """The bundle, the network in float64, and the same with our operators, in float64 and twice in
    the bundle's precision: ``recurrent`` and ``chunkwise``.

    ``shapes`` are of the calls that are compared, on ``rows`` rows. ``notes`` are of the report.
    """

    bundle: Path
    manifest: Manifest
    execution: Execution
    network: Network
    subject: Session
    oracle: NetworkOracle
    float64: NetworkReference
    recurrent: NetworkReference
    chunkwise: NetworkReference
    operators: dict[str, BundleOperators]
    shapes: Shapes
    rows: int
    notes: list[str]


def gather_network(
    bundle: Path, network: Network, execution: Execution, batch: int, notes: list[str]
) -> NetworkParticipants:
    """Open and copy everyone. Raises UnsupportedModelError where the network does not compute in
    float64, InputError where its examples are all of one number.
    """
    manifest = network.manifest
    check_examples(network, notes)
    oracle = network.oracle()
    rows = batch + (_ROUNDING_ROWS if network.rounds else BASELINE_ROWS)
    subject = open_subject(bundle, manifest, execution, notes)
    return NetworkParticipants(
        bundle, manifest, execution, network, subject, oracle, network.reference("float64"),
        network.reference(manifest.dtype, "recurrent"),
        network.reference(manifest.dtype, "chunkwise"),
        bundle_operators(bundle, manifest, execution, notes),
        taken_shapes(network, oracle, rows, notes), rows, notes,
    )  # fmt: skip
