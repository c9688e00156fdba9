"""A GPU and an engine to put in place of real ones: host memory, and ONNX Runtime.

Like a stream, the device does nothing until somebody waits for it: whatever is asked for is queued,
so memory that is given up too early is seen. New and freed memory is filled with NaN, and an
address outside living memory fails.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from xlstm_export.bundle.manifest import LENGTHS, MODEL_FILE, Manifest, StateInfo, TensorInfo
from xlstm_export.engine.profiles import Profile, Shape, ShapeOptions, make_profiles
from xlstm_export.engine.record import EngineRecord, PluginInfo, PluginLibrary
from xlstm_export.errors import EngineError
from xlstm_export.runtime.bf16_emulation import emulated_graph
from xlstm_export.runtime.ort import OrtSession
from xlstm_export.runtime.session import Array, Session
from xlstm_export.runtime.trt.array import DeviceArray
from xlstm_export.runtime.trt.device import CPU, DeviceMemoryError
from xlstm_export.runtime.trt.engine import Engine, EngineTensor
from xlstm_export.runtime.trt.graphs import GraphedEngine
from xlstm_export.runtime.trt.session import DeviceStates, TrtSession

_POISON = 0xFF
"""Every float of such bytes is NaN."""


class HostDevice:
    """``Device`` in host memory; ``limit`` bytes of it."""

    name = "stand-in"
    compute_capability = "8.9"
    dlpack = (CPU, 0)
    stream = 0

    def __init__(self, limit: int = 1 << 30) -> None:
        self.limit = limit
        self.blocks: dict[int, Array] = {}
        self.calls: list[str] = []
        self.has_kernels = True
        self.graphs: list[list[Callable[[], object]]] = []
        """Captured, and not dropped."""
        self._queue: list[Callable[[], object]] = []

    def activate(self) -> None:
        self.calls.append("activate")

    def allocate(self, size: int) -> int:
        self.calls.append("allocate")
        if sum(len(block) for block in self.blocks.values()) + size > self.limit:
            raise DeviceMemoryError(f"no memory for {size} bytes")
        block = np.full(size + 256, _POISON, np.uint8)
        address = -(-block.ctypes.data // 256) * 256
        self.blocks[address] = block
        return address

    def free(self, address: int) -> None:
        self.calls.append("free")
        self.synchronize()
        self.blocks.pop(address)[:] = _POISON

    def zero(self, address: int, size: int) -> None:
        self.calls.append("zero")
        self.queue(lambda: self.view(address, (size,), np.uint8).fill(0))

    def upload(self, address: int, array: Array) -> None:
        assert array.flags.c_contiguous
        self.calls.append("upload")
        staged = array.copy()
        self.queue(lambda: np.copyto(self.view(address, array.shape, array.dtype), staged))

    def download(self, array: Array, address: int) -> None:
        assert array.flags.c_contiguous
        self.calls.append("download")
        self.synchronize()
        array[...] = self.view(address, array.shape, array.dtype)

    def copy(self, to: int, source: int, size: int) -> None:
        self.calls.append("copy")
        self.queue(
            lambda: ctypes.memmove(self.view(to, (size,), np.uint8).ctypes.data, source, size)
        )

    def likeliest(
        self, logits: int, starts: Array, vocabulary: int, tokens: int, values: int
    ) -> bool:
        if not self.has_kernels:
            return False
        self.calls.append("likeliest")
        starts = starts.copy()

        def work() -> None:
            for row, start in enumerate(starts):
                one = self.view(logits + 4 * int(start), (vocabulary,), np.float32)
                token = int(one.argmax())
                self.view(tokens + 8 * row, (1,), np.int64)[0] = token
                self.view(values + 4 * row, (1,), np.float32)[0] = one[token]

        self.queue(work)
        return True

    def check_address(self, address: int) -> None:
        self._block(address, 1)

    def wait_for(self, stream: int) -> None:
        self.calls.append(f"wait_for {stream}")

    def let_wait(self, stream: int) -> None:
        self.calls.append(f"let_wait {stream}")

    def synchronize(self) -> None:
        while self._queue:
            self._queue.pop(0)()

    def capture(self, work: Callable[[], object]) -> list[Callable[[], object]]:
        self.calls.append("capture")
        queued, self._queue = self._queue, []
        work()
        graph, self._queue = self._queue, queued
        self.graphs.append(graph)
        return graph

    def launch(self, graph: list[Callable[[], object]]) -> None:
        self.calls.append("launch")
        assert any(graph is living for living in self.graphs)
        self._queue += graph

    def drop(self, graph: list[Callable[[], object]]) -> None:
        assert not self._queue, "a graph goes that may be running"
        self.graphs = [living for living in self.graphs if living is not graph]

    def queue(self, work: Callable[[], object]) -> None:
        """Do ``work`` when somebody waits."""
        self._queue.append(work)

    @property
    def waiting(self) -> int:
        """Number of things that nobody has waited for."""
        return len(self._queue)

    def view(self, address: int, shape: Shape, dtype: object) -> Array:
        """Living memory as an array."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        self._block(address, size)
        memory = (ctypes.c_uint8 * size).from_address(address)
        return np.frombuffer(memory, dtype).reshape(shape)

    def _block(self, address: int, size: int) -> None:
        for start, block in self.blocks.items():
            if start <= address and address + size <= start + len(block) - 256:
                return
        raise EngineError("an array given is not in the memory of the stand-in")


class OrtEngine:
    """``Engine`` that computes with ONNX Runtime on the bundle, when the device comes to it.

    ``continues``: of a bundle whose calls that go on are another graph, the engine of that.
    """

    title = "ONNX Runtime as an engine"

    def __init__(
        self,
        bundle: Path,
        device: HostDevice,
        profiles: list[Profile] | None = None,
        *,
        continues: bool = False,
    ) -> None:
        self.session = reference_session(bundle)
        manifest = self.session.manifest.continued() if continues else self.session.manifest
        self._manifest = manifest
        self.profiles = make_profiles(manifest, ShapeOptions()) if profiles is None else profiles
        self.tensors = engine_tensors(manifest)
        self.used: list[int] = []
        """Profile of each call."""
        self.addresses: list[Mapping[str, int]] = []
        self.closed = False
        self.capturable = True
        self._device = device
        self._shapes: dict[str, Shape] = {}

    def output_shapes(self, profile: int, inputs: Mapping[str, Shape]) -> dict[str, Shape]:
        manifest = self._manifest
        for name, ranges in self.profiles[profile].items():
            sides = zip(ranges.min, inputs[name], ranges.max, strict=True)
            assert all(low <= size <= high for low, size, high in sides), (name, inputs[name])
        first = manifest.inputs[0]
        sizes = dict(zip(first.shape[:2], inputs[first.name][:2], strict=True))

        def fill(info: TensorInfo | StateInfo) -> Shape:
            return tuple(d if isinstance(d, int) else sizes[d] for d in info.shape)

        outputs = {tensor.name: fill(tensor) for tensor in manifest.outputs}
        outputs |= {state.output: fill(state) for state in manifest.states}
        self._shapes = dict(inputs) | outputs
        return outputs

    def enqueue(self, profile: int, addresses: Mapping[str, int], stream: int) -> None:
        assert stream == self._device.stream
        assert addresses.keys() == self.tensors.keys()
        assert not any(address % 256 for address in addresses.values())
        self.used.append(profile)
        self.addresses.append(addresses)
        shapes, living = self._shapes, weakref.ref(self)

        def work() -> None:
            engine = living()
            assert engine is not None, "the engine went before its work was done"
            engine._compute(addresses, shapes)

        self._device.queue(work)

    def can_capture(self, profile: int, stream: int) -> bool:
        return self.capturable

    def close(self) -> None:
        assert not self._device.waiting, "the engine is closed before its work is done"
        self.closed = True

    def _compute(self, addresses: Mapping[str, int], shapes: Mapping[str, Shape]) -> None:
        def at(name: str) -> Array:
            dtype = np.dtype(self.tensors[name].dtype)
            size = int(np.prod(shapes[name])) * dtype.itemsize
            memory = (ctypes.c_uint8 * size).from_address(addresses[name])
            return np.frombuffer(memory, dtype).reshape(shapes[name])

        manifest = self._manifest
        lengths = at("sequence_lengths").copy() if manifest.ragged else None
        given = None
        if manifest.takes_states:
            given = {state.key: at(state.input).copy() for state in manifest.states}
        output, states = run(self.session, at(manifest.inputs[0].name).copy(), given, lengths)
        at(manifest.outputs[0].name)[...] = output
        for state in manifest.states:
            at(state.output)[...] = states[state.key]


def reference_session(bundle: Path) -> OrtSession:
    """The bundle in ONNX Runtime; bfloat16 by the widened copy that validate uses."""
    path = bundle / MODEL_FILE
    is_bf16 = '"dtype": "bfloat16"' in (bundle / "xlstm_export.json").read_text()
    return OrtSession(bundle, graphs={path.name: emulated_graph(path)} if is_bf16 else None)


def engine_tensors(manifest: Manifest) -> dict[str, EngineTensor]:
    """The tensors an engine of the bundle has."""
    found = {t.name: EngineTensor(t.dtype, True) for t in manifest.inputs}
    found |= {t.name: EngineTensor(t.dtype, False) for t in manifest.outputs}
    if manifest.takes_states:
        found |= {s.input: EngineTensor(s.dtype, True) for s in manifest.states}
    return found | {s.output: EngineTensor(s.dtype, False) for s in manifest.states}


def some_record(**changes: object) -> EngineRecord:
    """A record as build writes it."""
    fields: dict[str, object] = {
        "format_version": 1,
        "backend": "tensorrt_rtx",
        "builder_version": "1.7.1.116",
        "compute_capability": ["8.9"],
        "profiles": [],
        "plugins": [PluginInfo("/layers.0/mlstm/cell", "XlstmMLSTM", "libxlstm_trt 9.9")],
        "plugin_library": PluginLibrary("libxlstm_trt.so", "9.9", "0" * 64, True),
        "bundle_sha256": "0" * 64,
        "engine_sha256": "0" * 64,
    }
    return EngineRecord(**(fields | changes))  # type: ignore[arg-type]


def stand_in(
    bundle: Path,
    profiles: list[Profile] | None = None,
    limit: int = 1 << 30,
    graphs: bool = False,
) -> tuple[TrtSession, OrtEngine, HostDevice]:
    """An engine session of ``bundle`` without a GPU."""
    device = HostDevice(limit)
    engine = OrtEngine(bundle, device, profiles)
    used: Engine = GraphedEngine(engine, device) if graphs else engine
    session = TrtSession(bundle, engine.session.manifest, some_record(), used, device)
    return session, engine, device


def run(
    session: Session, inputs: Any, states: Mapping[str, Any] | None = None, lengths: Any = None
) -> tuple[Array, Any]:
    """The one output and the states of ``session`` after its one input."""
    outputs, after = session.run(feeds(session, inputs, lengths), states)
    (output,) = outputs.values()
    return output, after


def run_on_device(
    session: TrtSession, inputs: Any, states: Mapping[str, Any] | None = None
) -> tuple[DeviceArray, DeviceStates]:
    """``run`` with everything left on the device."""
    outputs, after = session.run_on_device(feeds(session, inputs), states)
    (output,) = outputs.values()
    return output, after


def feeds(session: Session, inputs: Any, lengths: Any = None) -> dict[str, Any]:
    """``inputs`` by the name of the first input, and ``lengths`` where they are given."""
    given = {} if lengths is None else {LENGTHS: lengths}
    return {session.manifest.inputs[0].name: inputs, **given}


def ids(batch: int, steps: int, seed: int = 0) -> Array:
    """Token ids."""
    return np.random.default_rng(seed).integers(0, 199, (batch, steps))


def assert_same_states(got: Any, expected: Any) -> None:
    """Equal bit for bit, in one order."""
    assert list(got) == list(expected)
    for key in expected:
        np.testing.assert_array_equal(got[key], expected[key], key)
