"""ONNX Runtime's CUDA provider: what it needs, and calls whose states stay on the GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from xlstm_export.environment import install
from xlstm_export.errors import BackendUnavailableError
from xlstm_export.quiet import quiet
from xlstm_export.runtime.ort_array import OrtArray
from xlstm_export.runtime.session import Array

PROVIDER = "CUDAExecutionProvider"
_OPTIONS = {"use_tf32": "0"}
"""TF32 would cut the operands of float32 products to 10 bits, unasked."""


def cuda_providers(ort: Any, graphs: bool = False) -> list[Any]:
    """What a session is told so that it computes on the first GPU; ``graphs``: by CUDA graphs.

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
    options = _OPTIONS | ({"enable_cuda_graph": "1"} if graphs else {})
    return [(PROVIDER, options), "CPUExecutionProvider"]


def check_provider(ort: Any, session: Any) -> None:
    """Raises BackendUnavailableError where ``session`` fell back to the CPU, as it does unasked."""
    if PROVIDER not in session.get_providers():
        raise BackendUnavailableError(
            f"ONNX Runtime {ort.__version__} cannot start its CUDA provider here: it needs an "
            "NVIDIA driver, and CUDA and cuDNN of the versions it was built for; "
            "pip install 'onnxruntime-gpu[cuda,cudnn]' brings those"
        )


def new_value(ort: Any, device: str, shape: Sequence[int], dtype: Any) -> Any:
    """An OrtValue with anything in it; its memory is of no session's arena."""
    return ort.OrtValue.ortvalue_from_shape_and_type(list(shape), dtype, device, 0)


def run_bound(
    session: Any,
    feeds: Mapping[str, Array],
    states: Mapping[str, OrtArray | Array],
    outputs: Mapping[str, str],
    kept: Mapping[str, str],
    device: str = "cuda",
    into: Mapping[str, Any] = MappingProxyType({}),
    options: Any = None,
) -> dict[str, OrtArray]:
    """One call: ``outputs`` come to the host, ``kept`` stay on ``device``; both are types by name.

    ``states`` are read where they are; what is on the host is copied to the GPU first. Outputs that
    ``into`` has an OrtValue for are written there, and are none of the results. ``options`` are
    those of ONNX Runtime's run.
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
        binding.bind_output(name, device, 0)
    for name, value in into.items():
        binding.bind_ortvalue_output(name, value)
    session.run_with_iobinding(binding, options)
    dtypes = {**outputs, **kept}
    return {
        name: OrtArray(value, dtype)
        for (name, dtype), value in zip(dtypes.items(), binding.get_outputs(), strict=not into)
    }
