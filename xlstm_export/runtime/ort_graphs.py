"""Decode steps replayed as CUDA graphs, through ONNX Runtime's CUDA provider.

ONNX Runtime captures a call under a number (its run option ``gpu_graph_id``, -1 for none) and
replays it, which needs the same addresses again. Tokens and outputs have one place for each batch
size. States are values, and come and go by sets of buffers: a set is free again when nobody holds
its states, so in a loop two sets take turns, and each of the two pairs is a graph. A pair that is
met for the first time, states from elsewhere, and calls of several steps are computed as usual.

What lives on beside the graphs is never of the session's own arena: a graph goes on using memory
that the arena has back.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xlstm_export.bundle.manifest import Dims, Manifest
from xlstm_export.errors import BackendUnavailableError, OptionError
from xlstm_export.runtime.ort_array import OrtArray
from xlstm_export.runtime.ort_cuda import run_bound
from xlstm_export.runtime.session import Array

NewValue = Callable[[Sequence[int], Any], Any]
"""An OrtValue of a shape and a numpy type on the device, in memory of its own."""
NO_GRAPH = -1
MOST_GRAPHS = 128
"""Pairs of sets that are captured: ONNX Runtime gives no graph back before the session ends."""
_MOST_MET = 1024
_MOST_IDLE = 4
"""Sets of one batch size that wait to be used again."""


class StateSet:
    """A batch's states in buffers that stay where they are; free when nobody holds this object."""

    def __init__(self, number: int, values: Mapping[str, Any]) -> None:
        self.number = number
        self.values = values
        """OrtValues by the state's key."""


class StateSets:
    """Sets of buffers by batch size, the lowest number that is free first."""

    def __init__(self, manifest: Manifest, new_value: NewValue) -> None:
        self._manifest = manifest
        self._new_value = new_value
        self._idle: dict[int, dict[int, Mapping[str, Any]]] = {}
        self._count = 0

    def take(self, batch: int) -> StateSet:
        """One for ``batch`` rows, with anything in it."""
        idle = self._idle.setdefault(batch, {})
        if idle:
            number = min(idle)
            values = idle.pop(number)
        else:
            self._count += 1
            number = self._count
            values = {
                s.key: self._new_value(s.sized(batch), np.dtype(s.dtype))
                for s in self._manifest.states
            }
        taken = StateSet(number, values)
        weakref.finalize(taken, _put_back, idle, number, values).atexit = False
        return taken


def _put_back(idle: dict[int, Mapping[str, Any]], number: int, values: Mapping[str, Any]) -> None:
    idle[number] = values
    if len(idle) > _MOST_IDLE:
        del idle[max(idle)]  # the lowest numbers are those that graphs know


class StepGraphs:
    """Calls of one ONNX Runtime ``session`` of ``manifest``; for one thread at a time.

    ``new_value`` makes memory on ``device``, ``new_options`` run options.
    """

    def __init__(
        self, session: Any, manifest: Manifest, new_value: NewValue,
        new_options: Callable[[], Any], device: str = "cuda",
    ) -> None:  # fmt: skip
        self._session = session
        self._manifest = manifest
        self._new_value = new_value
        self._new_options = new_options
        self._device = device
        self._sets = StateSets(manifest, new_value)
        self._ends: dict[int, dict[str, Any]] = {}
        """By batch size the OrtValues of the inputs and outputs of one step."""
        self._met: set[tuple[int, int]] = set()
        self._bindings: dict[tuple[int, int], tuple[Any, Any]] = {}
        """By the numbers of past and present set: the binding and the options of its graph."""
        self._usual = self._options(NO_GRAPH)

    def run(
        self, feeds: Mapping[str, Array], past: Mapping[str, Any], cut: Sequence[str]
    ) -> dict[str, OrtArray]:
        """Every result by name: states and the outputs ``cut`` on the device, others may be too."""
        batch, steps = feeds[self._manifest.inputs[0].name].shape[:2]
        present = self._sets.take(batch)
        before = _set_of(self._manifest, past)
        if steps == 1 and before is not None and self._is_graph((before.number, present.number)):
            results = self._replayed(feeds, before, present)
        else:
            results = self._computed(feeds, past, present, cut)
        states = {
            s.output: OrtArray(present.values[s.key], s.dtype, present)
            for s in self._manifest.states
        }
        return results | states

    def _is_graph(self, pair: tuple[int, int]) -> bool:
        """Whether ``pair`` has been met, and there is room for its graph."""
        if pair in self._bindings:
            return True
        if pair in self._met:
            return len(self._bindings) < MOST_GRAPHS
        if len(self._met) >= _MOST_MET:
            self._met.clear()
        self._met.add(pair)
        return False

    def _computed(
        self, feeds: Mapping[str, Array], past: Mapping[str, Any], present: StateSet,
        cut: Sequence[str],
    ) -> dict[str, OrtArray]:  # fmt: skip
        """Without a graph. Only what is read before the next call comes from the arena."""
        outputs = {t.name: t.dtype for t in self._manifest.outputs}
        into = {s.output: present.values[s.key] for s in self._manifest.states}
        return run_bound(
            self._session, feeds, past, {n: t for n, t in outputs.items() if n not in cut},
            {name: outputs[name] for name in cut}, self._device, into, self._usual,
        )  # fmt: skip

    def _replayed(
        self, feeds: Mapping[str, Array], before: StateSet, present: StateSet
    ) -> dict[str, OrtArray]:
        ends = self._ends_of(feeds)
        for name, array in feeds.items():
            ends[name].update_inplace(array)
        binding, options = self._binding((before, present), ends)
        try:
            self._session.run_with_iobinding(binding, options)
        except Exception as error:  # ONNX Runtime raises many types of its own
            raise BackendUnavailableError(
                f"a decode step did not run as a CUDA graph: leave cuda_graph out ({error})"
            ) from error
        # the next call writes there again
        return {t.name: OrtArray(ends[t.name], t.dtype, ends) for t in self._manifest.outputs}

    def _ends_of(self, feeds: Mapping[str, Array]) -> dict[str, Any]:
        batch = len(feeds[self._manifest.inputs[0].name])
        if batch not in self._ends:
            made = {n: self._new_value(array.shape, array.dtype) for n, array in feeds.items()}
            for tensor in self._manifest.outputs:
                shape = _step_shape(tensor.shape, batch)
                made[tensor.name] = self._new_value(shape, np.dtype(tensor.dtype))
            self._ends[batch] = made
        return self._ends[batch]

    def _binding(self, pair: tuple[StateSet, StateSet], ends: Mapping[str, Any]) -> tuple[Any, Any]:
        before, present = pair
        key = (before.number, present.number)
        if key not in self._bindings:
            binding, manifest = self._session.io_binding(), self._manifest
            for tensor in manifest.inputs:
                binding.bind_ortvalue_input(tensor.name, ends[tensor.name])
            for tensor in manifest.outputs:
                binding.bind_ortvalue_output(tensor.name, ends[tensor.name])
            for state in manifest.states:
                binding.bind_ortvalue_input(state.input, before.values[state.key])
                binding.bind_ortvalue_output(state.output, present.values[state.key])
            self._bindings[key] = binding, self._options(len(self._bindings) + 1)
        return self._bindings[key]

    def _options(self, graph: int) -> Any:
        options = self._new_options()
        options.add_run_config_entry("gpu_graph_id", str(graph))
        return options


def check_steps(bundle: Path, manifest: Manifest) -> None:
    """Raise OptionError where a bundle has no steps whose addresses and sizes could stay."""
    ends = (*manifest.inputs, *manifest.outputs)
    free = {size for end in ends for size in end.shape if isinstance(size, str)}
    if not manifest.takes_states or not manifest.states or free != {"batch", "sequence"}:
        raise OptionError(
            "cuda_graph", f"{bundle}: is no model that steps from its states; leave it out"
        )


def _set_of(manifest: Manifest, past: Mapping[str, Any]) -> StateSet | None:
    """The set that holds all of ``past``, each in its place; None: they are from elsewhere."""
    owner = getattr(past[manifest.states[0].input], "owner", None)
    if not isinstance(owner, StateSet):
        return None
    is_whole = all(
        getattr(past[s.input], "value", None) is owner.values[s.key] for s in manifest.states
    )
    return owner if is_whole else None


def _step_shape(dims: Dims, batch: int) -> tuple[int, ...]:
    return tuple({"batch": batch, "sequence": 1}[d] if isinstance(d, str) else d for d in dims)
