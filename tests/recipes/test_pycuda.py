"""The PyCUDA example, on the stand-in for a GPU and a module that behaves like PyCUDA.

PyCUDA itself does nothing without a GPU; what is tested is that the example's calls of this toolkit
are right, and that PyCUDA's arrays go in and out without a copy of ours.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.model_cases import BY_ID, Library
from tests.runtime.trt.host_device import HostDevice, reference_session, stand_in
from xlstm_export.generation.generate import Sampling, generate_ids
from xlstm_export.runtime.session import Array
from xlstm_export.runtime.trt import session as engine_sessions

EXAMPLE = Path(__file__).resolve().parents[2] / "recipes" / "pycuda" / "generate.py"


class GPUArray:
    """What the example uses of ``pycuda.gpuarray.GPUArray``."""

    device: HostDevice

    def __init__(self, shape: Any, dtype: Any, gpudata: int, base: object = None) -> None:
        self.shape, self.dtype, self.gpudata, self.base = (
            tuple(shape),
            np.dtype(dtype),
            gpudata,
            base,
        )

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        sizes = [
            self.dtype.itemsize * int(np.prod(self.shape[i + 1 :])) for i in range(len(self.shape))
        ]
        return {
            "shape": self.shape, "strides": tuple(sizes), "data": (self.gpudata, False),
            "typestr": self.dtype.str, "stream": None, "version": 3,
        }  # fmt: skip

    def __getitem__(self, place: tuple[int, int]) -> GPUArray:
        (row, step), (_, steps, size) = place, self.shape
        offset = (row * steps + step) * size * self.dtype.itemsize
        return GPUArray((size,), self.dtype, self.gpudata + offset, self)

    def get(self) -> Array:
        self.device.synchronize()  # the default stream keeps order with the session's
        return self.device.view(self.gpudata, self.shape, self.dtype).copy()


def to_gpu(array: Array) -> GPUArray:
    address = GPUArray.device.allocate(array.nbytes)
    GPUArray.device.view(address, array.shape, array.dtype)[...] = array
    return GPUArray(array.shape, array.dtype, address)


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    modules = {
        "pycuda": SimpleNamespace(),
        "pycuda.autoprimaryctx": SimpleNamespace(),
        "pycuda.gpuarray": SimpleNamespace(GPUArray=GPUArray, to_gpu=to_gpu),
    }
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)  # type: ignore[arg-type]
    spec = importlib.util.spec_from_file_location("pycuda_example", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def test_example(example: ModuleType, library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = library.bundle(BY_ID["stack-mixed"])
    session, engine, device = stand_in(bundle)
    monkeypatch.setattr(engine_sessions, "open_engine", lambda *_: session)
    monkeypatch.setattr(GPUArray, "device", device, raising=False)
    chosen = example.generate(bundle, "an engine", [1, 2, 3], 10)
    assert chosen == list(generate_ids(reference_session(bundle), [1, 2, 3], 10, Sampling()))
    assert engine.used == [1] + [0] * 9
    assert not {"upload", "download", "copy"} & set(device.calls)
