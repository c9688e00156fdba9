"""A bundle's engine on a GPU, its states carried on the device.

The session's logic runs in tests on a stand-in (host memory, ONNX Runtime); what only a GPU can
show is that TensorRT computes the same numbers.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xlstm_export.bundle.manifest import (
    LENGTHS,
    Manifest,
    TensorInfo,
    read_manifest,
    shape_text,
)
from xlstm_export.engine.build import continued_engine
from xlstm_export.engine.profiles import Shape
from xlstm_export.engine.record import EngineRecord
from xlstm_export.errors import EngineError, InputError
from xlstm_export.ops.catalog import DOMAIN
from xlstm_export.runtime.choice import Choice, check_chooses
from xlstm_export.runtime.feeds import (
    as_numbers,
    check_ids,
    check_names,
    check_patches,
    has_time,
    prepare_lengths,
)
from xlstm_export.runtime.session import MOST_STEPS, Array
from xlstm_export.runtime.states import States, check_states
from xlstm_export.runtime.trt.array import (
    ALIGNMENT,
    DeviceArray,
    Pool,
    borrow,
    new_array,
    place,
)
from xlstm_export.runtime.trt.device import CudaDevice, Device
from xlstm_export.runtime.trt.engine import (
    Engine,
    TensorRTEngine,
    check_capability,
    check_files,
    find_engine,
    import_tensorrt,
    read_engine_record,
)
from xlstm_export.runtime.trt.graphs import GraphedEngine

_TIME = 1
"""The axis of time in the first input, whose shape is [B,T] or [B,T,D]."""
_MOST_BORROWED = 64
"""Arrays of others that are kept alive before the session waits for the device."""


def open_engine(
    bundle: Path, engine: str, *, gpu: int = 0, check: bool = True, cuda_graph: bool = False
) -> TrtSession:
    """The session of an engine of ``bundle``: a file, or a name such as tensorrt_rtx-sm89.

    ``check`` False skips the checksums, which read bundle and engine to the end. ``cuda_graph``
    replays calls that come again as CUDA graphs. Raises BundleError, EngineError,
    BackendUnavailableError.
    """
    manifest = read_manifest(bundle)
    path = find_engine(bundle, engine)
    record = read_engine_record(path)
    trt, title = import_tensorrt(record.backend)
    device = CudaDevice(gpu)
    check_capability(path, record, device.compute_capability)

    def load(path: Path, record: EngineRecord) -> Engine:
        if check:
            check_files(bundle, path, record)
        opened = TensorRTEngine(path, record, trt, title)
        return GraphedEngine(opened, device) if cuda_graph else opened

    begin, more, continuing = load(path, record), continued_engine(path), None
    if manifest.continuation is not None and more.is_file():
        continuing = load(more, read_engine_record(more))
    return TrtSession(bundle, manifest, record, begin, device, continuing)


class DeviceStates(States):
    """States on the device; reading one copies it to the host.

    ``arrays`` are those on the device. Given back to the session that made it, nothing is copied.
    """


@dataclass(frozen=True, eq=False)
class _Graph:
    """An engine, and the manifest as its calls see it."""

    manifest: Manifest
    engine: Engine

    def __post_init__(self) -> None:
        _check_tensors(self.manifest, self.engine)


class TrtSession:
    """An engine that continues a sequence from a state. For one thread at a time.

    Where calls that go on are another graph, ``continuing`` is its engine; without it, there are
    none but those that begin.

    States come and go by separate buffers: in a loop that passes back what it got, two sets take
    turns, and what a caller keeps is never written again. Raises EngineError.
    """

    def __init__(
        self,
        bundle: Path,
        manifest: Manifest,
        record: EngineRecord,
        engine: Engine,
        device: Device,
        continuing: Engine | None = None,
    ) -> None:
        self.bundle = bundle
        self.manifest = manifest
        self.name = f"{engine.title}, {device.name} ({device.compute_capability}), {manifest.dtype}"
        self._record = record
        self._begin = _Graph(manifest, engine)
        self._continuing = self._begin if manifest.takes_states else None
        if continuing is not None:
            self._continuing = _Graph(manifest.continued(), continuing)
        self._device = device
        self._pool = Pool(device)
        self._borrowed: list[DeviceArray] = []
        self._closed = False
        weakref.finalize(self, _finish, device, engine, continuing).atexit = False
        first = manifest.inputs[0].name
        self.most_steps = min(
            MOST_STEPS, max(profile[first].max[_TIME] for profile in engine.profiles)
        )
        """Steps a call at most, where a caller cuts a long input."""

    def describe(self) -> dict[str, str]:
        """Operator -> implementation that computes it, from the engine's record."""
        counts = Counter((p.implementation, p.op_type) for p in self._record.plugins)
        plugins = ", ".join(f"{n} {op} by {library}" for (library, op), n in counts.items())
        return {DOMAIN: f"CUDA plugins: {plugins}"}

    def run(
        self,
        feeds: Mapping[str, Any],
        states: Mapping[str, Any] | None = None,
        *,
        last: bool = False,
    ) -> tuple[dict[str, Array], DeviceStates]:
        """As ``Session.run``: outputs come to the host, the states stay on the device."""
        outputs, new = self.run_on_device(feeds, states)
        outputs_of = self._graph(states).manifest.outputs
        cut = {t.name for t in outputs_of if last and has_time(t)}
        lengths = _lengths(feeds)
        host = {
            name: array.last_steps(lengths) if name in cut else array.numpy()
            for name, array in outputs.items()
        }
        self._borrowed.clear()  # the device is done
        return host, new

    def choose(
        self, feeds: Mapping[str, Any], states: Mapping[str, Any] | None = None
    ) -> tuple[list[Choice], DeviceStates]:
        """As ``Session.choose``."""
        check_chooses(self.bundle, self.manifest)
        outputs, new = self.run_on_device(feeds, states)
        chosen = outputs[self.manifest.outputs[0].name].likeliest(_lengths(feeds), self._pool)
        self._borrowed.clear()  # the device is done
        return chosen, new

    def run_on_device(
        self, feeds: Mapping[str, Any], states: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, DeviceArray], DeviceStates]:
        """As ``run``, but nothing is waited for and the outputs stay on the device.

        Inputs and states are host arrays, or arrays of PyCUDA, CuPy, Numba or torch on this GPU,
        which are read in place and must not be changed before the device is done.
        """
        if self._closed:
            raise EngineError("this session is closed: open the engine again")
        graph = self._graph(states)
        self._device.activate()
        placed = self._place(graph.manifest, feeds, states)
        shapes = {name: array.shape for name, array in placed.items()}
        profile = _choose_profile(graph, shapes)
        outputs = self._outputs(graph.manifest, graph.engine.output_shapes(profile, shapes))
        addresses = {name: array.address for name, array in (placed | outputs).items()}
        graph.engine.enqueue(profile, addresses, self._device.stream)
        self._keep(placed.values())
        new = {s.key: outputs[s.output] for s in self.manifest.states}
        return {t.name: outputs[t.name] for t in graph.manifest.outputs}, DeviceStates(new)

    def synchronize(self) -> None:
        """Wait until everything that was asked for is done."""
        self._device.synchronize()
        self._borrowed.clear()

    def close(self) -> None:
        """Give the device's memory back, that of arrays handed out when they are dropped.

        The session runs no more.
        """
        self._closed = True
        self.synchronize()
        for graph in {self._begin, self._continuing or self._begin}:
            graph.engine.close()
        self._pool.close()

    def _graph(self, states: Mapping[str, Any] | None) -> _Graph:
        """What computes a call from ``states``. Raises InputError where nothing does."""
        if states is None:
            return self._begin
        if self._continuing is None:
            raise InputError(
                "the engine begins every call: give no states, or build again, for an engine of "
                "the calls that go on too"
            )
        return self._continuing

    def _place(
        self, manifest: Manifest, feeds: Mapping[str, Any], states: Mapping[str, Any] | None
    ) -> dict[str, DeviceArray]:
        """Every input of the graph on the device. Raises InputError, EngineError."""
        check_names(manifest, feeds)
        if states is not None and self._continuing is not self._begin:
            check_patches(manifest, feeds)
        placed = {t.name: self._input(t, feeds[t.name]) for t in manifest.inputs
                  if t.name != LENGTHS}  # fmt: skip
        batch = placed[manifest.inputs[0].name].shape[0]
        if manifest.ragged:
            given = feeds.get(LENGTHS)
            lent = None if given is None else borrow(self._device, LENGTHS, given)
            lengths = prepare_lengths(given, batch) if lent is None else lent
            placed[LENGTHS] = place(self._pool, LENGTHS, lengths, np.int32)
        if not manifest.takes_states:
            return placed
        if states is None:
            return placed | self._zero_states(batch)
        given_states = states.arrays if isinstance(states, States) else states
        placed_states = {
            s.key: place(self._pool, s.input, given_states[s.key], s.dtype)
            for s in manifest.states
            if s.key in given_states
        }
        # what lends its memory by a protocol alone has a shape no earlier than this
        check_states(manifest, {**given_states, **placed_states}, batch)
        return placed | {s.input: placed_states[s.key] for s in manifest.states}

    def _input(self, tensor: TensorInfo, given: Any) -> DeviceArray:
        if tensor.dtype.startswith("int"):
            lent = borrow(self._device, tensor.name, given)
            given = as_numbers(tensor.name, given, "iu") if lent is None else lent
            if lent is None:  # what lies on the device stays there, unchecked
                check_ids(tensor.name, given, self.manifest)
        placed = place(self._pool, tensor.name, given, tensor.dtype)
        if len(placed.shape) != len(tensor.shape):
            raise InputError(
                f"{tensor.name}: shape {list(placed.shape)}, expected {shape_text(tensor.shape)}"
            )
        return placed

    def _zero_states(self, batch: int) -> dict[str, DeviceArray]:
        arrays, start, size = self._new_states(batch)
        self._device.zero(start, size)
        return {state.input: arrays[state.key] for state in self.manifest.states}

    def _new_states(self, batch: int) -> tuple[dict[str, DeviceArray], int, int]:
        """All states in one stretch of memory: by key, its address, its bytes."""
        offsets, size = [], 0
        for state in self.manifest.states:
            offsets.append(size)
            nbytes = int(np.prod(state.sized(batch))) * np.dtype(state.dtype).itemsize
            size += -(-nbytes // ALIGNMENT) * ALIGNMENT
        buffer = self._pool.take(size)
        arrays = {
            s.key: DeviceArray(
                self._device, buffer.address + offset, s.sized(batch), s.dtype, buffer
            )
            for s, offset in zip(self.manifest.states, offsets, strict=True)
        }
        return arrays, buffer.address, size

    def _outputs(self, manifest: Manifest, shapes: Mapping[str, Shape]) -> dict[str, DeviceArray]:
        batch = shapes[manifest.outputs[0].name][0]
        states, _, _ = self._new_states(batch)
        outputs = {s.output: states[s.key] for s in manifest.states}
        for tensor in manifest.outputs:
            outputs[tensor.name] = new_array(self._pool, shapes[tensor.name], tensor.dtype)
        wrong = [name for name, array in outputs.items() if array.shape != tuple(shapes[name])]
        if wrong:
            raise EngineError(f"{wrong[0]}: the engine makes {list(shapes[wrong[0]])}; build again")
        return outputs

    def _keep(self, arrays: Iterable[DeviceArray]) -> None:
        """Memory of others that is read in place stays alive until it has been read."""
        self._borrowed += [array for array in arrays if not array.is_pooled]
        if len(self._borrowed) > _MOST_BORROWED:
            self.synchronize()


def _lengths(feeds: Mapping[str, Any]) -> Array | None:
    """Of the rows [B], where they are given."""
    given = feeds.get(LENGTHS)
    return None if given is None else np.asarray(given)


def _choose_profile(graph: _Graph, shapes: Mapping[str, Shape]) -> int:
    """The first profile that takes these shapes: decode stands before prefill.

    Raises EngineError where none does.
    """
    for index, profile in enumerate(graph.engine.profiles):
        if all(
            len(ranges.min) == len(shapes[name])
            and all(
                low <= size <= high
                for low, size, high in zip(ranges.min, shapes[name], ranges.max, strict=True)
            )
            for name, ranges in profile.items()
        ):
            return index
    name = graph.manifest.inputs[0].name
    ranges = [profile[name] for profile in graph.engine.profiles]
    spans = " or ".join(f"{list(r.min)} to {list(r.max)}" for r in ranges)
    batch, length = shapes[name][0], shapes[name][_TIME]
    raise EngineError(
        f"{name} {list(shapes[name])}: the engine takes {spans}; feed shorter pieces with "
        f"carried states, or build with --max-batch-size {batch} --max-input-len {length}"
    )


def _finish(device: Device, *engines: Engine | None) -> None:
    """A session is dropped: before it gives up anything, its work is done; ``engines`` live on.

    What it borrowed is no argument: that may hold the session, which would never die then.
    """
    device.synchronize()


def _check_tensors(manifest: Manifest, engine: Engine) -> None:
    """Names and types are the manifest's. Raises EngineError."""
    expected = {t.name: (t.dtype, True) for t in manifest.inputs}
    expected |= {t.name: (t.dtype, False) for t in manifest.outputs}
    if manifest.takes_states:
        expected |= {s.input: (s.dtype, True) for s in manifest.states}
    expected |= {s.output: (s.dtype, False) for s in manifest.states}
    found = {name: (t.dtype, t.is_input) for name, t in engine.tensors.items()}
    wrong = sorted({name for name, _ in expected.items() ^ found.items()})
    if wrong:
        raise EngineError(
            f"the engine's tensors are not the bundle's ({', '.join(wrong[:4])}); build again"
        )
