"""A module that is recognised as another recurrence than it is: where that shows.

Bundle and reference then agree with each other and differ from the network, so no part of the
graph is wrong. What each recognised module gives out is seen in both by hooks; the first whose
inputs are the same and whose results are not is where they part.
"""

from __future__ import annotations

from xlstm_export.runtime.session import Array
from xlstm_export.validation.networks.inputs import draw_all
from xlstm_export.validation.networks.participants import NetworkParticipants
from xlstm_export.validation.result import Location
from xlstm_export.validation.tolerance import errors, magnitude

_SAME = 1e-4
"""Forms of one function are no farther apart, relative: upstream's parallel mLSTM adds its eps to
something of another scale, and some kernels keep their states in float32."""


def locate_recognition(everyone: NetworkParticipants, seed: int) -> Location | None:
    """Where the network with our operators leaves the network itself; None where it does not."""
    feeds = next(draw_all(everyone.network, everyone.shapes, seed))[0]
    upstream, own = (who.run_hooked(feeds) for who in (everyone.oracle, everyone.float64))
    for path, kind in everyone.network.recurrences.items():
        if path in upstream and path in own and _apart(upstream[path], own[path]) > _SAME:
            exact = upstream[path]
            return Location(
                path or everyone.network.source, kind, "its result",
                errors(own[path], exact).largest, _SAME * magnitude(exact),
                f"{kind} computes something else than the operator in its place; bundle and "
                "reference share that, the network does not",
            )  # fmt: skip
    return None


def _apart(exact: Array, own: Array) -> float:
    if exact.shape != own.shape:
        return float("inf")
    return errors(own, exact).largest / (magnitude(exact) or 1.0)
