"""Tensors in ONNX Runtime's memory, and rows of them gathered where they lie."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from xlstm_export.runtime.choice import Choice, likeliest, likeliest_on_device
from xlstm_export.runtime.rows import Array, gather_on_host, last_indices

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
"""Who computes on a device, by ONNX Runtime's name of it."""


class OrtArray:
    """A tensor in ONNX Runtime's memory; on a GPU, reading it copies it to the host.

    ``owner`` is whose memory it is, to be used again once nobody holds it: reading copies then.
    """

    def __init__(self, value: Any, dtype: str, owner: object = None) -> None:
        self.value = value
        """The onnxruntime.OrtValue."""
        self.owner = owner
        self.shape: tuple[int, ...] = tuple(value.shape())
        self.dtype = np.dtype(dtype)

    @property
    def device(self) -> str:
        """ONNX Runtime's name of where it lies: cpu, cuda."""
        return str(self.value.device_name()).lower()

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def numpy(self) -> Array:
        """On the host: the tensor itself where it lies there for good, else a copy."""
        found = np.asarray(self.value.numpy())
        return found.copy() if self.owner is not None and self.device == "cpu" else found

    @classmethod
    def gather(cls, arrays: Sequence[OrtArray], indices: Array) -> OrtArray | Array:
        """Rows ``indices`` of ``arrays`` one below the other; -1 is a row of zeros."""
        if arrays[0].device == "cpu":
            return gather_on_host([array.numpy() for array in arrays], indices)
        return gather_on_device(arrays, indices)

    def last_steps(self, lengths: Array | None) -> Array:
        """[B,1,...] on the host: of [B,T,...] each row's last step, that of ``lengths`` [B]."""
        last = last_indices(lengths, *self.shape[:2])
        if self.device == "cpu":
            return self.numpy()[np.arange(len(last)), last][:, None]
        if self.shape[1] == 1:
            return self.numpy()
        return pick_on_device(self, last)[:, None]

    def likeliest(self, lengths: Array | None) -> list[Choice]:
        """Of logits [B,T,V] the choice at each row's last step, that of ``lengths`` [B]."""
        if self.device == "cpu" or self.dtype != np.float32:  # a network of one's own
            return likeliest(self.last_steps(lengths)[:, 0])
        last = last_indices(lengths, *self.shape[:2])
        return likeliest_on_device(self.value, last, _PROVIDERS[self.device])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if copy is False and self.device != "cpu":
            raise ValueError("an array on the device has no view on the host")
        return self.numpy() if dtype is None else self.numpy().astype(dtype, copy=False)

    def __repr__(self) -> str:
        where = "host" if self.device == "cpu" else "GPU"
        return f"OrtArray({self.dtype}{list(self.shape)} on the {where})"


def gather_on_device(arrays: Sequence[OrtArray], indices: Array) -> OrtArray:
    """As ``OrtArray.gather``, by ONNX Runtime where the arrays are."""
    first = arrays[0]
    session = _gatherer(len(arrays), first.dtype.name, first.device)
    binding = session.io_binding()
    for number, array in enumerate(arrays):
        binding.bind_ortvalue_input(f"x{number}", array.value)
    binding.bind_cpu_input("zeros", np.zeros((1, *first.shape[1:]), first.dtype))
    binding.bind_cpu_input("indices", np.ascontiguousarray(indices, np.int64))
    binding.bind_output("rows", first.device, 0)
    session.run_with_iobinding(binding)
    return OrtArray(binding.get_outputs()[0], first.dtype.name)


def pick_on_device(array: OrtArray, steps: Array) -> Array:
    """[B,...] on the host: step ``steps`` [B] of each row of ``array`` [B,T,...]."""
    session = _picker(array.dtype.name, array.device)
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", array.value)
    places = np.stack([np.arange(len(steps)), steps], axis=1)
    binding.bind_cpu_input("indices", np.ascontiguousarray(places, np.int64))
    binding.bind_output("steps", "cpu")
    session.run_with_iobinding(binding)
    return np.asarray(binding.get_outputs()[0].numpy())


@lru_cache(maxsize=32)
def _gatherer(count: int, dtype: str, device: str) -> Any:
    """A session that gathers rows of ``count`` tensors on ``device``, whatever their rank.

    Zeros come last, so that ONNX's index -1 means them.
    """
    names = [*(f"x{number}" for number in range(count)), "zeros"]
    nodes = [("Concat", names, ["all"], {"axis": 0}),
             ("Gather", ["all", "indices"], ["rows"], {"axis": 0})]  # fmt: skip
    return _small_session(nodes, names, "rows", dtype, device)


@lru_cache(maxsize=8)
def _picker(dtype: str, device: str) -> Any:
    """A session that takes one step of each row of [B,T,...]."""
    return _small_session(
        [("GatherND", ["x", "indices"], ["steps"], {})], ["x"], "steps", dtype, device
    )


def _small_session(
    nodes: list[tuple[str, list[str], list[str], dict[str, Any]]],
    inputs: list[str],
    output: str,
    dtype: str,
    device: str,
) -> Any:
    """``nodes`` over ``inputs`` of ``dtype`` and the int64 ``indices``, on ``device``."""
    import onnx
    import onnxruntime

    helper = onnx.helper
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    tensors = [helper.make_tensor_value_info(name, kind, None) for name in inputs]
    tensors.append(helper.make_tensor_value_info("indices", onnx.TensorProto.INT64, None))
    made = [helper.make_node(op, ins, outs, **attributes) for op, ins, outs, attributes in nodes]
    results = [helper.make_tensor_value_info(output, kind, None)]
    model = helper.make_model(
        helper.make_graph(made, "rows", tensors, results),
        opset_imports=[helper.make_opsetid("", 18)], ir_version=9,
    )  # fmt: skip
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=[_PROVIDERS[device]]
    )
