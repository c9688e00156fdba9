"""A network that calls ``step``, as it is: the states that upstream's cells hand out are carried.

Such a network begins at zero where it is given no states. Here every recurrence goes on from what
it handed out in the call before, in upstream's own form.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

_PLACES = {
    "mLSTMCell": ("step", "mlstm_state"), "CausalConv1d": ("step", "conv_state"),
    "sLSTMCell_vanilla": ("forward", "state"), "sLSTMCell_cuda": ("forward", "state"),
}  # fmt: skip
"""By upstream's class: the method that a step calls, and its parameter for the states."""


class CarriedSteps:
    """The states of every recurrence of ``network`` at one of ``paths``, by path.

    ``network`` is changed: it is a copy of one's own.
    """

    def __init__(self, network: nn.Module, paths: Iterable[str]) -> None:
        self._past: Mapping[str, Any] = {}
        self._present: dict[str, Any] = {}
        for path in paths:
            module = network.get_submodule(path)
            names = {kind.__name__ for kind in type(module).__mro__}
            for name in names & _PLACES.keys():
                method, parameter = _PLACES[name]
                setattr(module, method, self._carrying(path, getattr(module, method), parameter))

    def begin(self, past: Mapping[str, Any] | None) -> dict[str, Any]:
        """A new call, from the states of another; those after it are put in what is returned."""
        self._past, self._present = past or {}, {}
        return self._present

    def _carrying(self, path: str, method: Any, parameter: str) -> Any:
        signature = inspect.signature(method)

        def call(*args: Any, **kwargs: Any) -> Any:
            given = signature.bind(*args, **kwargs).arguments
            if given.get(parameter) is None and path in self._past:
                given[parameter] = _copied(self._past[path])  # upstream writes into it
            rest = given.pop("kwargs", {})
            y, state = method(**given, **rest)
            self._present[path] = _copied(state)
            return y, state

        return call


def _copied(states: Any) -> Any:
    return states.clone() if isinstance(states, Tensor) else tuple(x.clone() for x in states)
