"""Every backend that this machine can run is held to one list: ``conformance``.

TensorRT by its stand-in (``trt/host_device``); ONNX Runtime on CUDA by its call, ``run_bound``, on
the host's memory. ``tests/plugins/test_ort_cuda_on_emulator.py`` has the CUDA kernels beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.model_cases import BY_ID, ONE_PER_FAMILY, Library, ModelCase
from tests.runtime.conformance import bound, conform
from tests.runtime.trt.host_device import stand_in
from xlstm_export.runtime.ort import OrtSession
from xlstm_export.runtime.session import Session

BACKENDS: dict[str, Callable[[Path], Session]] = {
    "ort": lambda bundle: OrtSession(bundle, threads=1),
    "ort-bodies": lambda bundle: OrtSession(bundle, threads=1, native=False),
    "ort-bound": bound,
    "ort-graphs": lambda bundle: bound(bundle, graphs=True),
    "tensorrt": lambda bundle: stand_in(bundle)[0],
    "tensorrt-graphs": lambda bundle: stand_in(bundle, graphs=True)[0],
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", ONE_PER_FAMILY, ids=lambda case: case.id)
def test_a_backend_conforms(
    library: Library, tmp_path: Path, case: ModelCase, backend: str
) -> None:
    conform(BACKENDS[backend](library.bundle(case)), tmp_path)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("options", [{"ragged": True}, {"logits": "last"}, {"dtype": "float16"}],
                         ids=str)  # fmt: skip
def test_a_bundle_of_another_kind_conforms(
    library: Library, tmp_path: Path, options: dict[str, object], backend: str
) -> None:
    bundle = library.bundle(BY_ID["stack-mixed"], **options)
    conform(BACKENDS[backend](bundle), tmp_path)
