"""ONNX Runtime on a GPU, as far as it can be seen without one: refusals, bindings, names."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

import xlstm_export as xe
from tests.model_cases import BY_ID, Library
from xlstm_export.errors import BackendUnavailableError, OptionError
from xlstm_export.runtime.open import Execution
from xlstm_export.runtime.ort_array import OrtArray, gather_on_device, pick_on_device
from xlstm_export.runtime.ort_cuda import PROVIDER, check_provider, cuda_providers, run_bound

CASE = BY_ID["stack-mixed"]


def fake_runtime(*providers: str) -> Any:
    return SimpleNamespace(__version__="1.99.0", get_available_providers=lambda: list(providers))


def value_of(array: np.ndarray[Any, Any]) -> Any:
    return onnxruntime.OrtValue.ortvalue_from_numpy(array)


def test_without_the_provider_the_error_names_the_package(library: Library) -> None:
    with pytest.raises(BackendUnavailableError, match=r"pip uninstall .*onnxruntime-gpu"):
        xe.open(library.bundle(CASE), backend="ort-cuda")


def test_products_of_float32_keep_their_bits() -> None:
    (name, options), cpu = cuda_providers(fake_runtime(PROVIDER, "CPUExecutionProvider"))
    assert (name, cpu) == (PROVIDER, "CPUExecutionProvider")
    assert options == {"use_tf32": "0"}
    (_, options), _ = cuda_providers(fake_runtime(PROVIDER, "CPUExecutionProvider"), graphs=True)
    assert options == {"use_tf32": "0", "enable_cuda_graph": "1"}


def test_a_session_that_fell_back_to_the_cpu_is_refused() -> None:
    session = SimpleNamespace(get_providers=lambda: ["CPUExecutionProvider"])
    with pytest.raises(BackendUnavailableError, match="cannot start its CUDA provider"):
        check_provider(fake_runtime(PROVIDER), session)


@pytest.mark.parametrize("backend", ["cuda", "trt", ""])
def test_an_unknown_backend_lists_those_there_are(library: Library, backend: str) -> None:
    with pytest.raises(OptionError, match="auto, ort, ort-cuda, tensorrt, tensorrt_rtx"):
        xe.open(library.bundle(CASE), backend=backend)


def test_an_engine_runs_in_tensorrt_alone() -> None:
    with pytest.raises(OptionError, match="and an engine: leave one"):
        Execution(engine="tensorrt_rtx-sm89", backend="ort-cuda")


def test_an_array_on_the_device_is_read_by_numpy() -> None:
    numbers = np.arange(6, dtype=np.float32).reshape(2, 3)
    array = OrtArray(value_of(numbers), "float32")
    assert (array.shape, array.nbytes) == ((2, 3), 24)
    assert np.array_equal(np.asarray(array), numbers)
    assert np.asarray(array, dtype=np.float64).dtype == np.float64
    assert repr(array) == "OrtArray(float32[2, 3] on the host)"


def test_an_array_on_a_gpu_has_no_view() -> None:
    value = SimpleNamespace(shape=lambda: [2], device_name=lambda: "Cuda")
    array = OrtArray(value, "float32")
    assert repr(array) == "OrtArray(float32[2] on the GPU)"
    with pytest.raises(ValueError, match="no view on the host"):
        np.array(array, copy=False)


def test_rows_are_gathered_where_they_lie() -> None:
    """By ONNX Runtime's operators, whatever the rank: here on the CPU, there on the GPU."""
    random = np.random.default_rng(0)
    for shape in ((2,), (3, 4), (2, 3, 4, 5)):
        arrays = [random.standard_normal(shape).astype(np.float32) for _ in range(3)]
        lent = [OrtArray(value_of(array), "float32") for array in arrays]
        indices = np.array([0, -1, 2 * shape[0], 1, 1])
        expected = np.concatenate([*arrays, np.zeros((1, *shape[1:]), np.float32)])[indices]
        assert np.array_equal(np.asarray(gather_on_device(lent, indices)), expected)
        assert np.array_equal(np.asarray(OrtArray.gather(lent, indices)), expected)


def test_the_last_steps_alone_come_to_the_host() -> None:
    numbers = np.random.default_rng(0).standard_normal((3, 4, 5)).astype(np.float32)
    lent = OrtArray(value_of(numbers), "float32")
    assert np.array_equal(pick_on_device(lent, np.array([3, 0, 1])), numbers[range(3), [3, 0, 1]])
    lengths = np.array([-1, 0, 2], np.int32)
    assert np.array_equal(lent.last_steps(lengths)[:, 0], numbers[range(3), [3, 0, 1]])
    assert np.array_equal(lent.last_steps(None), numbers[:, -1:])


class Binding:
    """As ONNX Runtime's, on the host."""

    def __init__(self) -> None:
        self.inputs: dict[str, Any] = {}
        self.outputs: list[tuple[str, str]] = []

    def bind_cpu_input(self, name: str, array: np.ndarray[Any, Any]) -> None:
        self.inputs[name] = array

    def bind_ortvalue_input(self, name: str, value: Any) -> None:
        self.inputs[name] = value.numpy()

    def bind_output(self, name: str, device: str, index: int = 0) -> None:
        self.outputs.append((name, device))

    def get_outputs(self) -> list[Any]:
        return [value_of(self.inputs["x"] + self.inputs["past"]) for _ in self.outputs]


@pytest.mark.parametrize("on_device", [False, True])
def test_outputs_come_and_states_stay(on_device: bool) -> None:
    binding, ran = Binding(), []
    session = SimpleNamespace(
        io_binding=lambda: binding, run_with_iobinding=lambda b, _: ran.append(b)
    )
    past: Any = np.full(2, 3, np.float32)
    past = OrtArray(value_of(past), "float32") if on_device else past
    feeds = {"x": np.ones(2, np.float32)}
    types = {"y": "float32"}, {"present": "float32"}
    results = run_bound(session, feeds, {"past": past}, *types)
    assert ran == [binding]
    assert binding.outputs == [("y", "cpu"), ("present", "cuda")]
    assert results["y"].numpy().tolist() == [4, 4]
    assert isinstance(results["present"], OrtArray)
