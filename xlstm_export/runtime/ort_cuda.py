"""ONNX Runtime's CUDA provider: what it needs, and calls whose states stay on the GPU."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xlstm_export.environment import install
from xlstm_export.errors import BackendUnavailableError
from xlstm_export.quiet import quiet
from xlstm_export.runtime.session import Array

PROVIDER = "CUDAExecutionProvider"
_OPTIONS = {"use_tf32": "0"}
"""TF32 would cut the operands of float32 products to 10 bits, unasked."""


class OrtArray:
    """A tensor in the memory of ONNX Runtime's GPU; reading it copies it to the host."""

    def __init__(self, value: Any, dtype: str) -> None:
        self.value = value
        """The onnxruntime.OrtValue."""
        self.shape: tuple[int, ...] = tuple(value.shape())
        self.dtype = np.dtype(dtype)

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def numpy(self) -> Array:
        """A copy on the host."""
        return np.asarray(self.value.numpy())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError("an array on the device has no view on the host")
        return self.numpy() if dtype is None else self.numpy().astype(dtype, copy=False)

    def __repr__(self) -> str:
        return f"OrtArray({self.dtype}{list(self.shape)} on the GPU)"


def cuda_providers(ort: Any) -> list[Any]:
    """What a session is told so that it computes on the first GPU.

    Raises BackendUnavailableError where this ONNX Runtime has no CUDA provider.
    """
    if PROVIDER not in ort.get_available_providers():
        raise BackendUnavailableError(
            f"ONNX Runtime {ort.__version__} here has no CUDA provider: pip uninstall -y "
            f"onnxruntime, then {install('onnxruntime-gpu')}"
        )
    if hasattr(ort, "preload_dlls"):  # from NVIDIA's packages, where those are installed
        with quiet():
            ort.preload_dlls()
    return [(PROVIDER, _OPTIONS), "CPUExecutionProvider"]


def check_provider(ort: Any, session: Any) -> None:
    """Raises BackendUnavailableError where ``session`` fell back to the CPU, as it does unasked."""
    if PROVIDER not in session.get_providers():
        raise BackendUnavailableError(
            f"ONNX Runtime {ort.__version__} cannot start its CUDA provider here: it needs an "
            "NVIDIA driver, and CUDA and cuDNN of the versions it was built for; "
            "pip install 'onnxruntime-gpu[cuda,cudnn]' brings those"
        )


def run_bound(
    session: Any,
    feeds: Mapping[str, Array],
    states: Mapping[str, OrtArray | Array],
    outputs: Sequence[str],
    kept: Mapping[str, str],
) -> tuple[dict[str, Array], dict[str, OrtArray]]:
    """One call: ``outputs`` come to the host, and those of ``kept`` (type by name) stay.

    ``states`` are read where they are; what is on the host is copied to the GPU first.
    """
    binding = session.io_binding()
    for name, array in feeds.items():
        binding.bind_cpu_input(name, array)
    for name, state in states.items():
        if isinstance(state, OrtArray):
            binding.bind_ortvalue_input(name, state.value)
        else:
            binding.bind_cpu_input(name, state)
    for name in outputs:
        binding.bind_output(name, "cpu")
    for name in kept:
        binding.bind_output(name, "cuda", 0)
    session.run_with_iobinding(binding)
    values = dict(zip([*outputs, *kept], binding.get_outputs(), strict=True))
    on_host = {name: np.asarray(values[name].numpy()) for name in outputs}
    return on_host, {name: OrtArray(values[name], dtype) for name, dtype in kept.items()}
