"""Arrays of other libraries into an engine session and out of it, on the stand-in for a GPU.

What is not run without a GPU: PyCUDA, CuPy and torch on CUDA memory themselves. torch on the host
stands for them through DLPack; an object with the array interface of CUDA stands for the rest.
"""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.model_cases import BY_ID, Library
from tests.runtime.trt.host_device import (
    HostDevice,
    assert_same_states,
    ids,
    reference_session,
    run,
    run_on_device,
    stand_in,
)
from xlstm_export.errors import EngineError, InputError
from xlstm_export.runtime.session import Array
from xlstm_export.runtime.trt import dlpack
from xlstm_export.runtime.trt.array import DeviceArray, borrow
from xlstm_export.runtime.trt.device import CPU, CUDA


@pytest.fixture
def bundle(library: Library) -> Path:
    return library.bundle(BY_ID["stack-mixed"])


def test_tensors_of_torch_are_read_in_place(bundle: Path) -> None:
    session, engine, device = stand_in(bundle)
    reference = reference_session(bundle)
    _, host = run(reference, ids(2, 5))
    tokens = aligned(torch.from_numpy(ids(2, 3)))
    states = {key: aligned(torch.from_numpy(value)) for key, value in host.items()}
    output, new = run_on_device(session, tokens, states)
    addresses = engine.addresses[0]
    assert addresses["input_ids"] == tokens.data_ptr()
    for state in session.manifest.states:
        assert addresses[state.input] == states[state.key].data_ptr()
    assert "upload" not in device.calls
    assert "copy" not in device.calls
    expected, expected_new = run(reference, ids(2, 3), host)
    np.testing.assert_array_equal(output.numpy(), expected)
    assert_same_states(new, expected_new)


def aligned(tensor: torch.Tensor) -> torch.Tensor:
    """The same at an address that is a multiple of 256."""
    memory = torch.zeros(tensor.numel() * tensor.element_size() + 256, dtype=torch.uint8)
    skip = -memory.data_ptr() % 256
    size = tensor.numel() * tensor.element_size()
    made = memory[skip : skip + size].view(tensor.dtype).view(tensor.shape)
    made.copy_(tensor)
    return made


def test_lent_memory_lives_until_it_is_read(bundle: Path) -> None:
    session, _, device = stand_in(bundle)
    whole = aligned(torch.from_numpy(ids(2, 3)))
    capsules = Counted(whole)
    output, _ = run_on_device(session, capsules)
    alive = weakref.ref(capsules.storage)
    del whole, capsules
    gc.collect()
    assert alive() is not None
    expected, _ = run(reference_session(bundle), ids(2, 3))
    np.testing.assert_array_equal(output.numpy(), expected)
    session.synchronize()
    gc.collect()
    assert alive() is None
    assert device.blocks


@pytest.mark.parametrize("held_by_lender", [False, True])
def test_lent_memory_outlives_a_dropped_session(bundle: Path, held_by_lender: bool) -> None:
    """It goes when the work is done, also where the session is part of a cycle."""
    session, engine, device = stand_in(bundle)
    tokens = Counted(aligned(torch.from_numpy(ids(2, 3))))
    storage = tokens.storage
    lent = OnGpu(device, ids(2, 3))
    lent.user = session if held_by_lender else None
    left: list[int] = []
    weakref.finalize(storage, lambda: left.append(device.waiting))
    weakref.finalize(lent, lambda: left.append(device.waiting))
    output, states = run_on_device(session, tokens)
    output, _ = run_on_device(session, lent, states)
    assert device.waiting
    del session, engine, tokens, storage, lent
    gc.collect()
    assert left == [0, 0]
    _, expected_states = run(reference_session(bundle), ids(2, 3))
    expected, _ = run(reference_session(bundle), ids(2, 3), expected_states)
    np.testing.assert_array_equal(output.numpy(), expected)


class Counted:
    """A tensor that says by ``storage`` whether somebody holds its memory."""

    def __init__(self, tensor: torch.Tensor) -> None:
        array = tensor.numpy()
        self.storage = np.frombuffer(array, array.dtype).reshape(array.shape)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)

    def __dlpack__(self, **_: object) -> object:
        return self.storage.__dlpack__()


def test_memory_at_an_odd_address_is_copied(bundle: Path) -> None:
    session, engine, device = stand_in(bundle)
    tokens = Counted(aligned(torch.from_numpy(ids(1, 40)))[:, 1:4])
    assert tokens.storage.ctypes.data % 256
    expected, _ = run(reference_session(bundle), ids(1, 40)[:, 1:4])
    output, _ = run_on_device(session, tokens)
    alive = weakref.ref(tokens.storage)
    del tokens
    gc.collect()
    assert alive() is not None
    assert device.calls.count("copy") == 1
    np.testing.assert_array_equal(output.numpy(), expected)
    assert not engine.addresses[0]["input_ids"] % 256


def test_tensors_that_begin_inside_their_memory() -> None:
    """DLPack's byte_offset, which numpy and torch leave at 0."""
    device = HostDevice()
    address = device.allocate(80)
    memory = device.view(address, (10,), np.float64)
    memory[...] = np.arange(10.0)

    class Lender:
        def __dlpack_device__(self) -> tuple[int, int]:
            return device.dlpack

        def __dlpack__(self, **_: object) -> object:
            capsule = dlpack.make_capsule(address, device.dlpack, memory.dtype, (4,), memory)
            (managed, _) = next(lent for lent in dlpack._lent.values() if lent[1] is memory)
            managed.tensor.byte_offset = 24
            return capsule

    lent = borrow(device, "input", Lender())
    assert lent is not None
    np.testing.assert_array_equal(lent.numpy(), [3, 4, 5, 6])


def test_a_copy_or_another_device_is_not_what_is_lent(bundle: Path) -> None:
    output, _ = run_on_device(stand_in(bundle)[0], ids(2, 3))
    for wish in ({"copy": True}, {"dl_device": (2, 7)}):
        with pytest.raises(BufferError, match="lent as it is"):
            output.__dlpack__(stream=-1, **wish)
    assert output.__dlpack__(stream=-1, copy=False, dl_device=output.__dlpack_device__())


def test_results_are_lent_without_a_copy(bundle: Path) -> None:
    session, _, device = stand_in(bundle)
    output, states = run_on_device(session, ids(2, 3))
    session.synchronize()
    expected, expected_states = run(reference_session(bundle), ids(2, 3))
    for module in (np, torch):
        lent = module.from_dlpack(output)  # type: ignore[attr-defined]
        np.testing.assert_array_equal(lent, expected)
    assert torch.from_dlpack(output).data_ptr() == output.address
    memory = {key: torch.from_dlpack(array) for key, array in states.arrays.items()}
    assert_same_states({key: tensor.numpy() for key, tensor in memory.items()}, expected_states)
    assert "download" not in device.calls
    # the borrower keeps the memory: nothing else is put there
    del output, states
    for seed in range(3):
        run(session, ids(2, 3, 1 + seed))
    np.testing.assert_array_equal(lent, expected)
    assert_same_states({key: tensor.numpy() for key, tensor in memory.items()}, expected_states)


def test_all_memory_comes_back(bundle: Path) -> None:
    session, _, device = stand_in(bundle)
    output, states = run_on_device(session, ids(2, 3))
    capsule = output.__dlpack__()  # one that nobody consumes
    tensor = torch.from_dlpack(output)
    session.close()
    held = len(device.blocks)
    del states, output
    gc.collect()
    assert 0 < len(device.blocks) < held
    del tensor
    gc.collect()
    assert device.blocks
    del capsule
    gc.collect()
    assert not device.blocks


class OnGpu:
    """Looks like an array of PyCUDA or CuPy that lies in the stand-in's memory."""

    user: object = None

    def __init__(self, device: HostDevice, array: Array, **changes: object) -> None:
        self.address = device.allocate(array.nbytes)
        device.view(self.address, array.shape, array.dtype)[...] = array
        self.__cuda_array_interface__: dict[str, object] = {
            "version": 3, "shape": array.shape, "typestr": array.dtype.str,
            "data": (self.address, False), "strides": None, "stream": None, **changes,
        }  # fmt: skip


@pytest.mark.parametrize("stream", [None, 1, 4711])
def test_cuda_array_interface(bundle: Path, stream: int | None) -> None:
    session, engine, device = stand_in(bundle)
    tokens = OnGpu(device, ids(2, 3), strides=(24, 8), stream=stream)
    device.calls.clear()
    output, _ = run(session, tokens)
    expected, _ = run(reference_session(bundle), ids(2, 3))
    np.testing.assert_array_equal(output, expected)
    assert engine.addresses[0]["input_ids"] == tokens.address
    assert "upload" not in device.calls
    waits = [call for call in device.calls if call.startswith("wait_for")]
    assert waits == ([] if stream is None else [f"wait_for {stream}"])


class LikeTorch(OnGpu):
    """torch's interface is of version 2, without a stream: only DLPack waits for its writers."""

    def __init__(self, device: HostDevice, array: Array) -> None:
        super().__init__(device, array, version=2)
        del self.__cuda_array_interface__["stream"]
        self.asked: list[object] = []
        self._device = device, array

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._device[0].dlpack

    def __dlpack__(self, *, stream: int | None = None) -> object:
        self.asked.append(stream)
        device, array = self._device
        return dlpack.make_capsule(self.address, device.dlpack, array.dtype, array.shape, self)


def test_an_interface_without_a_stream(bundle: Path) -> None:
    """The work of another stream on a tensor of torch is waited for, through DLPack."""
    session, engine, device = stand_in(bundle)
    device.stream = 77
    tokens = LikeTorch(device, ids(2, 3))
    output, _ = run(session, tokens)
    assert tokens.asked == [77]
    assert engine.addresses[0]["input_ids"] == tokens.address
    np.testing.assert_array_equal(output, run(reference_session(bundle), ids(2, 3))[0])
    del tokens.__cuda_array_interface__  # as JAX on some devices
    run(session, tokens)
    assert tokens.asked == [77, 77]


class Refusing:
    """As torch's tensors on a GPU that need gradients."""

    requires_grad = True

    @property
    def __cuda_array_interface__(self) -> object:
        raise RuntimeError("Variable that requires grad")


@pytest.mark.parametrize("kind", [CPU, CUDA])
def test_tensors_that_need_gradients(bundle: Path, kind: int) -> None:
    """By DLPack (BufferError), by numpy (RuntimeError) and by the property (RuntimeError)."""
    session, engine, device = stand_in(bundle)
    device.dlpack = (kind, 0)
    _, states = run(session, ids(2, 3))
    state = session.manifest.states[0]
    grad = torch.from_numpy(states[state.key]).requires_grad_()
    for given in (grad, Refusing()):
        with pytest.raises(EngineError, match=rf"{state.input}: cannot be read .*detach\(\) it"):
            run(session, ids(2, 1), {**states, state.key: given})
    run(session, ids(2, 1), {**states, state.key: grad.detach()})
    assert len(engine.used) == 2


def test_what_is_no_array(bundle: Path) -> None:
    session, _, _ = stand_in(bundle)
    with pytest.raises(InputError, match=r"input_ids: holds <U1, expected whole numbers"):
        run(session, [["a", "b"]])


def test_what_is_given_as_a_list_is_checked_as_an_array_is(bundle: Path) -> None:
    session, engine, _ = stand_in(bundle)
    for wrong, words in (
        ([[1, 199]], "token id 199 is outside"), ([[-1]], "token id -1"),
        ([[1.5]], "holds float64, expected whole numbers"),
    ):  # fmt: skip
        for given in (wrong, np.array(wrong)):
            with pytest.raises(InputError, match=f"input_ids: {words}"):
                run(session, given)
    assert not engine.used
    got, _ = run(session, [[3, 4]])
    np.testing.assert_array_equal(got, run(session, np.array([[3, 4]]))[0])


def test_an_array_of_another_gpu(bundle: Path) -> None:
    """Said before it is asked for its memory, which torch would refuse."""
    session, _, device = stand_in(bundle)
    device.dlpack = (CUDA, 1)
    tokens = LikeTorch(device, ids(2, 3))
    device.dlpack = (CUDA, 0)
    tokens.__dlpack_device__ = lambda: (CUDA, 1)  # type: ignore[method-assign]
    with pytest.raises(EngineError, match="input_ids: an array of another device; move it to"):
        run(session, tokens)
    assert not tokens.asked


def test_gpu_arrays_that_do_not_fit(bundle: Path) -> None:
    session, engine, device = stand_in(bundle)
    with pytest.raises(EngineError, match=r"input_ids: int32 on the GPU, .* takes int64; convert"):
        run(session, OnGpu(device, ids(2, 3).astype(np.int32)))
    with pytest.raises(EngineError, match="input_ids: not C-contiguous"):
        run(session, OnGpu(device, ids(2, 3), strides=(8, 16)))
    with pytest.raises(EngineError, match="not in the memory of"):
        run(session, OnGpu(device, ids(2, 3), data=(64, False)))
    with pytest.raises(EngineError, match="input_ids: not C-contiguous"):
        run(session, torch.from_numpy(ids(3, 2)).T)
    assert not engine.used


def test_axes_of_size_one_may_have_any_stride(bundle: Path) -> None:
    session, _, device = stand_in(bundle)
    expected, _ = run(reference_session(bundle), ids(1, 3))
    output, _ = run(session, OnGpu(device, ids(1, 3), strides=(8000, 8)))
    np.testing.assert_array_equal(output, expected)


def test_bfloat16(library: Library) -> None:
    """bfloat16 embeddings: from torch on the host, and as a GPU's array interface spells them."""
    bundle = library.bundle(BY_ID["stack-bare"])
    session, _, device = stand_in(bundle)
    embeds = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 5, 16), np.float32)).to(
        torch.bfloat16
    )
    device.dlpack = (CUDA, 0)  # no longer one memory with torch's
    output, _ = run(session, embeds)
    expected, _ = run(reference_session(bundle), embeds.float().numpy())
    np.testing.assert_array_equal(output, expected)
    output, _ = run(session, embeds.transpose(0, 1).contiguous().transpose(0, 1))
    np.testing.assert_array_equal(output, expected)
    with pytest.raises(EngineError, match="inputs_embeds: bfloat16 on the GPU"):
        run(session, OnGpu(device, np.zeros((2, 5, 16), np.uint16), typestr="<V2"))


def test_what_a_gpu_array_says_of_itself() -> None:
    device = HostDevice()
    device.dlpack, device.stream = (CUDA, 0), 77
    address = device.allocate(24)
    array = DeviceArray(device, address, (2, 3), "float32", None)
    assert array.__cuda_array_interface__ == {
        "version": 3, "shape": (2, 3), "typestr": "<f4", "data": (address, False),
        "strides": None, "stream": 77,
    }  # fmt: skip
    assert array.__dlpack_device__() == (CUDA, 0)
    for stream, waits in ((None, ["let_wait 1"]), (2, ["let_wait 2"]), (-1, [])):
        device.calls.clear()
        array.__dlpack__(stream=stream)
        assert device.calls == waits
    with pytest.raises(ValueError, match="no view on the host"):
        np.array(array, copy=False)


def test_on_the_host_there_is_no_cuda_array_interface(bundle: Path) -> None:
    session, _, _ = stand_in(bundle)
    output, _ = run_on_device(session, ids(1, 1))
    assert not hasattr(output, "__cuda_array_interface__")


def test_arrays_of_another_session(bundle: Path) -> None:
    """Its stream is waited for, and the memory must be of the same GPU."""
    one, _, _ = stand_in(bundle)
    _, states = run_on_device(one, ids(2, 3))
    other, _, device = stand_in(bundle)
    with pytest.raises(EngineError, match="not in the memory of"):
        run(other, ids(2, 1), states)
    one.synchronize()
    device.check_address = lambda address: None  # type: ignore[method-assign]
    result, _ = run(other, ids(2, 1), states)
    assert "wait_for 0" in device.calls
    expected, _ = run(reference_session(bundle), ids(2, 1), dict(states))
    np.testing.assert_array_equal(result, expected)
