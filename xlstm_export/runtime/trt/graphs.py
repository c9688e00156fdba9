"""An engine's calls replayed as CUDA graphs.

A graph has the shapes and addresses of the call it was captured from, so that is what it is found
by. In a loop that passes back the states it got, memory comes from the pool in the same order every
other step: two graphs for each batch size. A call that is not met again is never captured, and what
a caller keeps only moves the loop to other addresses.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from xlstm_export.engine.profiles import Profile, Shape
from xlstm_export.errors import EngineError
from xlstm_export.runtime.trt.device import Device
from xlstm_export.runtime.trt.engine import Engine, EngineTensor

MOST_GRAPHS = 64
"""Kept on the device; the one that was not used for longest goes."""
_MOST_MET = 1024

_Shapes = tuple[int, tuple[tuple[str, Shape], ...]]
"""A profile, and the inputs' shapes by name."""
_Call = tuple[_Shapes, tuple[int, ...]]


class GraphedEngine:
    """``engine``, whose calls are captured on ``device`` the second time they come."""

    def __init__(self, engine: Engine, device: Device) -> None:
        self._engine = engine
        self._device = device
        self._shapes: dict[_Shapes, dict[str, Shape]] = {}
        self._next: _Shapes = (0, ())
        self._met: set[_Call] = set()
        self._graphs: OrderedDict[_Call, Any] = OrderedDict()
        weakref.finalize(self, _drop, device, self._graphs).atexit = False

    @property
    def title(self) -> str:
        """As ``Engine.title``."""
        return self._engine.title

    @property
    def tensors(self) -> Mapping[str, EngineTensor]:
        """As ``Engine.tensors``."""
        return self._engine.tensors

    @property
    def profiles(self) -> list[Profile]:
        """As ``Engine.profiles``."""
        return self._engine.profiles

    def output_shapes(self, profile: int, inputs: Mapping[str, Shape]) -> dict[str, Shape]:
        """As ``Engine.output_shapes``, which is asked once for the same shapes."""
        self._next = profile, tuple(inputs.items())
        if self._next not in self._shapes:
            if len(self._shapes) >= _MOST_MET:
                self._shapes.clear()
            self._shapes[self._next] = self._engine.output_shapes(profile, inputs)
        return self._shapes[self._next]

    def enqueue(self, profile: int, addresses: Mapping[str, int], stream: int) -> None:
        """As ``Engine.enqueue``; by its graph where this very call was captured."""
        call = self._next, tuple(addresses.values())
        if call in self._graphs:
            self._graphs.move_to_end(call)
            self._device.launch(self._graphs[call])
            return
        self._engine.output_shapes(profile, dict(self._next[1]))  # it was set to others since
        work = partial(self._engine.enqueue, profile, addresses, stream)
        work()
        if call in self._met and self._engine.can_capture(profile, stream):
            # after the same call: what TensorRT puts off until a call is no part of the graph
            self._keep(call, work)
        if len(self._met) >= _MOST_MET:
            self._met.clear()
        self._met.add(call)

    def can_capture(self, profile: int, stream: int) -> bool:
        """As ``Engine.can_capture``."""
        return self._engine.can_capture(profile, stream)

    def close(self) -> None:
        """As ``Engine.close``; graphs go first."""
        _drop(self._device, self._graphs)
        self._engine.close()

    def _keep(self, call: _Call, work: Callable[[], object]) -> None:
        try:
            graph = self._device.capture(work)
        except EngineError as error:
            raise EngineError(
                f"a call cannot be captured: leave cuda_graph out ({error})"
            ) from error
        if len(self._graphs) >= MOST_GRAPHS:
            _, oldest = self._graphs.popitem(last=False)
            self._device.synchronize()  # it may be running
            self._device.drop(oldest)
        self._graphs[call] = graph


def _drop(device: Device, graphs: OrderedDict[_Call, Any]) -> None:
    while graphs:
        device.drop(graphs.popitem()[1])
