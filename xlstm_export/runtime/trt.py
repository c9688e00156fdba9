"""A bundle's engine on a GPU, its states carried on the device.

The session's logic runs in tests on a stand-in (host memory, ONNX Runtime); what only a GPU can
show is that TensorRT computes the same numbers.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from xlstm_export.engine.profiles import Shape
from xlstm_export.engine.record import EngineRecord
from xlstm_export.errors import EngineError
from xlstm_export.model.manifest import Manifest, StateInfo, read_manifest
from xlstm_export.ops.catalog import DOMAIN
from xlstm_export.runtime.device import CudaDevice, Device
from xlstm_export.runtime.device_array import ALIGNMENT, DeviceArray, Pool, new_array, place
from xlstm_export.runtime.session import PIECE, Array
from xlstm_export.runtime.trt_engine import (
    Engine,
    TensorRTEngine,
    check_capability,
    check_files,
    find_engine,
    import_tensorrt,
    read_engine_record,
)

LENGTHS = "sequence_lengths"
_TIME = 1
"""The axis of time in the first input, whose shape is [B,T] or [B,T,D]."""
_MOST_BORROWED = 64
"""Arrays of others that are kept alive before the session waits for the device."""


def open_engine(bundle: Path, engine: str, *, gpu: int = 0, check: bool = True) -> TrtSession:
    """The session of an engine of ``bundle``: a file, or a name such as tensorrt_rtx-sm89.

    ``check`` False skips the checksums, which read bundle and engine to the end. Raises
    BundleError, EngineError, BackendUnavailableError.
    """
    manifest = read_manifest(bundle)
    path = find_engine(bundle, engine)
    record = read_engine_record(path)
    trt, title = import_tensorrt(record.backend)
    device = CudaDevice(gpu)
    check_capability(path, record, device.compute_capability)
    if check:
        check_files(bundle, path, record)
    return TrtSession(manifest, record, TensorRTEngine(path, record, trt, title), device)


class DeviceStates(Mapping[str, Array]):
    """Every state by key, on the device; reading one copies it to the host.

    Given back to the session that made it, nothing is copied.
    """

    def __init__(self, device: dict[str, DeviceArray]) -> None:
        self.device = device
        """The same without a copy."""

    def __getitem__(self, key: str) -> Array:
        return self.device[key].numpy()

    def __iter__(self) -> Iterator[str]:
        return iter(self.device)

    def __len__(self) -> int:
        return len(self.device)


class TrtSession:
    """An engine that continues a sequence from a state. For one thread at a time.

    States come and go by separate buffers: in a loop that passes back what it got, two sets take
    turns, and what a caller keeps is never written again. Raises EngineError.
    """

    def __init__(
        self, manifest: Manifest, record: EngineRecord, engine: Engine, device: Device
    ) -> None:
        self.manifest = manifest
        self.name = f"{engine.title}, {device.name} ({device.compute_capability}), {manifest.dtype}"
        self._record = record
        self._engine = engine
        self._device = device
        self._pool = Pool(device)
        self._borrowed: list[DeviceArray] = []
        self._closed = False
        _check_tensors(manifest, engine)
        weakref.finalize(self, _finish, device, engine).atexit = False
        first = manifest.inputs[0].name
        self.longest_piece = min(
            PIECE, max(profile[first].max[_TIME] for profile in engine.profiles)
        )
        """Steps a call at most, where a caller cuts a long input."""

    def describe(self) -> dict[str, str]:
        """Operator -> implementation that computes it, from the engine's record."""
        counts = Counter((p.implementation, p.op_type) for p in self._record.plugins)
        plugins = ", ".join(f"{n} {op} by {library}" for (library, op), n in counts.items())
        return {DOMAIN: f"CUDA plugins: {plugins}"}

    def run(
        self,
        inputs: Any,
        states: Mapping[str, Any] | None = None,
        lengths: Any | None = None,
    ) -> tuple[Array, DeviceStates]:
        """As ``Session.run``: the output comes to the host, the states stay on the device."""
        output, new = self.run_on_device(inputs, states, lengths)
        host = output.numpy()
        self._borrowed.clear()  # the device is done
        return host, new

    def run_on_device(
        self,
        inputs: Any,
        states: Mapping[str, Any] | None = None,
        lengths: Any | None = None,
    ) -> tuple[DeviceArray, DeviceStates]:
        """As ``run``, but nothing is waited for and the output stays on the device.

        Inputs and states are host arrays, or arrays of PyCUDA, CuPy, Numba or torch on this GPU,
        which are read in place and must not be changed before the device is done.
        """
        if self._closed:
            raise EngineError("this session is closed: open the engine again")
        self._device.activate()
        feeds = self._feeds(inputs, states, lengths)
        shapes = {name: array.shape for name, array in feeds.items()}
        profile = self._choose_profile(shapes)
        outputs = self._outputs(self._engine.output_shapes(profile, shapes))
        addresses = {name: array.address for name, array in (feeds | outputs).items()}
        self._engine.enqueue(profile, addresses, self._device.stream)
        self._keep(feeds.values())
        new = {s.key: outputs[s.output] for s in self.manifest.states}
        return outputs[self.manifest.outputs[0].name], DeviceStates(new)

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
        self._engine.close()
        self._pool.close()

    def _feeds(
        self, inputs: Any, states: Mapping[str, Any] | None, lengths: Any | None
    ) -> dict[str, DeviceArray]:
        first = self.manifest.inputs[0]
        feeds = {first.name: place(self._pool, first.name, inputs, first.dtype)}
        shape = feeds[first.name].shape
        if len(shape) != len(first.shape):
            raise EngineError(f"{first.name}: shape {list(shape)}, expected {_text(first.shape)}")
        batch = shape[0]
        if self.manifest.ragged:
            everything = np.full(batch, -1, np.int32)
            given = everything if lengths is None else lengths
            feeds[LENGTHS] = place(self._pool, LENGTHS, given, np.int32)
        elif lengths is not None:
            raise EngineError("lengths are for bundles of export --ragged")
        if states is None:
            return feeds | self._zero_states(batch)
        return feeds | {s.input: self._state(s, states, batch) for s in self.manifest.states}

    def _state(self, state: StateInfo, states: Mapping[str, Any], batch: int) -> DeviceArray:
        given = states.device if isinstance(states, DeviceStates) else states
        if state.key not in given:
            raise EngineError(f"state {state.key} is missing; give all, or none to start anew")
        placed = place(self._pool, state.input, given[state.key], state.dtype)
        if placed.shape != _with_batch(state, batch):
            raise EngineError(
                f"state {state.key}: shape {list(placed.shape)}, where this batch of {batch} needs "
                f"{list(_with_batch(state, batch))}"
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
            nbytes = int(np.prod(_with_batch(state, batch))) * np.dtype(state.dtype).itemsize
            size += -(-nbytes // ALIGNMENT) * ALIGNMENT
        buffer = self._pool.take(size)
        arrays = {
            s.key: DeviceArray(
                self._device, buffer.address + offset, _with_batch(s, batch), s.dtype, buffer
            )
            for s, offset in zip(self.manifest.states, offsets, strict=True)
        }
        return arrays, buffer.address, size

    def _outputs(self, shapes: Mapping[str, Shape]) -> dict[str, DeviceArray]:
        batch = shapes[self.manifest.outputs[0].name][0]
        states, _, _ = self._new_states(batch)
        outputs = {s.output: states[s.key] for s in self.manifest.states}
        for tensor in self.manifest.outputs:
            outputs[tensor.name] = new_array(self._pool, shapes[tensor.name], tensor.dtype)
        wrong = [name for name, array in outputs.items() if array.shape != tuple(shapes[name])]
        if wrong:
            raise EngineError(f"{wrong[0]}: the engine makes {list(shapes[wrong[0]])}; build again")
        return outputs

    def _choose_profile(self, shapes: Mapping[str, Shape]) -> int:
        """The first profile that takes these shapes: decode stands before prefill."""
        for index, profile in enumerate(self._engine.profiles):
            if all(
                len(ranges.min) == len(shapes[name])
                and all(
                    low <= size <= high
                    for low, size, high in zip(ranges.min, shapes[name], ranges.max, strict=True)
                )
                for name, ranges in profile.items()
            ):
                return index
        raise EngineError(self._no_profile(shapes))

    def _no_profile(self, shapes: Mapping[str, Shape]) -> str:
        name = self.manifest.inputs[0].name
        ranges = [profile[name] for profile in self._engine.profiles]
        spans = " or ".join(f"{list(r.min)} to {list(r.max)}" for r in ranges)
        batch, length = shapes[name][0], shapes[name][_TIME]
        return (
            f"{name} {list(shapes[name])}: the engine takes {spans}; feed shorter pieces with "
            f"carried states, or build with --max-batch-size {batch} --max-input-len {length}"
        )

    def _keep(self, arrays: Iterable[DeviceArray]) -> None:
        """Memory of others that is read in place stays alive until it has been read."""
        self._borrowed += [array for array in arrays if not array.is_pooled]
        if len(self._borrowed) > _MOST_BORROWED:
            self.synchronize()


def _finish(device: Device, engine: Engine) -> None:
    """A session is dropped: before it gives up anything, its work is done; ``engine`` lives on.

    What it borrowed is no argument: that may hold the session, which would never die then.
    """
    device.synchronize()


def _check_tensors(manifest: Manifest, engine: Engine) -> None:
    """Names and types are the manifest's. Raises EngineError."""
    expected = {t.name: (t.dtype, True) for t in manifest.inputs}
    expected |= {t.name: (t.dtype, False) for t in manifest.outputs}
    expected |= {s.input: (s.dtype, True) for s in manifest.states}
    expected |= {s.output: (s.dtype, False) for s in manifest.states}
    found = {name: (t.dtype, t.is_input) for name, t in engine.tensors.items()}
    wrong = sorted({name for name, _ in expected.items() ^ found.items()})
    if wrong:
        raise EngineError(
            f"the engine's tensors are not the bundle's ({', '.join(wrong[:4])}); build again"
        )


def _with_batch(state: StateInfo, batch: int) -> Shape:
    return (batch, *(int(size) for size in state.shape[1:]))


def _text(shape: tuple[int | str, ...]) -> str:
    return f"[{', '.join(map(str, shape))}]"
