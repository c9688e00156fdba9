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
from xlstm_export.generation.generate import generate_ids
from xlstm_export.generation.sampling import Sampling
from xlstm_export.runtime.session import Array
from xlstm_export.runtime.trt import session as trt_session

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


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pycuda_example", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    modules = {
        "pycuda": SimpleNamespace(),
        "pycuda.autoprimaryctx": SimpleNamespace(),
        "pycuda.gpuarray": SimpleNamespace(GPUArray=GPUArray, to_gpu=to_gpu),
    }
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)  # type: ignore[arg-type]
    return load()


@pytest.mark.parametrize("prompt", [[1, 2, 3], [5] * 1000])
def test_example(
    example: ModuleType, library: Library, monkeypatch: pytest.MonkeyPatch, prompt: list[int]
) -> None:
    """A prompt longer than the engine takes goes in parts."""
    bundle = library.bundle(BY_ID["stack-mixed"])
    session, engine, device = stand_in(bundle)
    monkeypatch.setattr(trt_session, "open_engine", lambda *_, **__: session)
    monkeypatch.setattr(GPUArray, "device", device, raising=False)
    chosen = example.generate(bundle, "an engine", prompt, 10)
    expected = generate_ids(reference_session(bundle), prompt, 10, Sampling())
    assert chosen == list(expected)
    prefills = -(-len(prompt) // session.most_steps)
    assert engine.used == [1] * prefills + [0] * 9
    assert not {"upload", "download", "copy"} & set(device.calls)


@pytest.mark.parametrize(
    ("case", "ids", "told"),
    [
        ("stack-bare", "1", "takes embeddings, not tokens"),
        ("stack-mixed", "1,199", "token id 199 is outside the vocabulary of 199"),
        ("stack-mixed", " -1", "token id -1 is outside the vocabulary of 199"),
    ],
)
def test_what_the_model_does_not_take(
    example: ModuleType, library: Library, monkeypatch: pytest.MonkeyPatch,
    case: str, ids: str, told: str,
) -> None:  # fmt: skip
    bundle = library.bundle(BY_ID[case])
    monkeypatch.setattr(trt_session, "open_engine", lambda *_, **__: stand_in(bundle)[0])
    monkeypatch.setattr(sys, "argv", ["generate.py", str(bundle), "an engine", ids])
    with pytest.raises(SystemExit, match=f"^error: .*{told}$"):
        example.main()


def test_no_such_engine(
    example: ModuleType, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = library.bundle(BY_ID["stack-mixed"])
    monkeypatch.setattr(sys, "argv", ["generate.py", str(bundle), "tensorrt_rtx-sm89", "1"])
    with pytest.raises(SystemExit, match=r"^error: tensorrt_rtx-sm89: no engine of "):
        example.main()


def test_ids_that_are_no_numbers(
    example: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["generate.py", "a bundle", "an engine", "1,x"])
    with pytest.raises(SystemExit, match="2"):
        example.main()
    assert "'1,x'" in capsys.readouterr().err


def test_without_pycuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycuda", None)
    with pytest.raises(SystemExit, match=r"^error: .*pycuda.*: pip install pycuda$"):
        load()
