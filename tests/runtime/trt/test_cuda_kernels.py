"""The choice of a token in an engine's session: what comes to the host, and without a kernel.

The kernel itself is tried in tests/cuda and tests/gpu.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.model_cases import BY_ID, Library
from tests.runtime.trt.host_device import HostDevice, assert_same_states, ids, run, stand_in
from xlstm_export.lowering.options import LoweringOptions
from xlstm_export.native import FOLDER_VARIABLE
from xlstm_export.runtime.choice import likeliest
from xlstm_export.runtime.session import Array
from xlstm_export.runtime.trt.array import Pool, place
from xlstm_export.runtime.trt.device import CudaDevice
from xlstm_export.runtime.trt.kernels import cuda_kernels

VOCABULARY = 199


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of each copy to the host."""
    sizes: list[int] = []
    plain = HostDevice.download

    def download(device: HostDevice, array: Array, address: int) -> None:
        sizes.append(array.nbytes)
        plain(device, array, address)

    monkeypatch.setattr(HostDevice, "download", download)
    return sizes


@pytest.mark.parametrize("logits", ["all", "last"])
@pytest.mark.parametrize("has_kernels", [True, False])
def test_a_token_comes_to_the_host(
    library: Library, downloads: list[int], logits: str, has_kernels: bool
) -> None:
    bundle = library.bundle(BY_ID["stack-mixed"], LoweringOptions(logits=logits))
    session, _, device = stand_in(bundle)
    device.has_kernels = has_kernels
    _, states = run(session, ids(3, 7))
    for steps in (1, 5):
        downloads.clear()
        chosen, after = session.choose({"input_ids": ids(3, steps, 1)}, states)
        row, rows = 4 * VOCABULARY, 1 if logits == "last" or steps == 1 else 3
        assert downloads == ([36] if has_kernels else [3 * row // rows] * rows)
        output, same = run(session, ids(3, steps, 1), states)
        assert chosen == likeliest(output[:, -1])
        assert_same_states(after, same)


def test_rows_of_other_lengths(library: Library, downloads: list[int]) -> None:
    bundle = library.bundle(BY_ID["stack-mixed"], LoweringOptions(ragged=True))
    session, _, _ = stand_in(bundle)
    given = {"input_ids": ids(4, 6), "sequence_lengths": np.array([2, -1, 0, 9], np.int32)}
    outputs, _ = session.run(given)
    downloads.clear()
    chosen, _ = session.choose(given)
    assert downloads == [48]
    assert chosen == likeliest(outputs["logits"][range(4), [1, 5, 0, 5]])


def test_logits_of_another_type_come_to_the_host(downloads: list[int]) -> None:
    """The kernel reads float32."""
    device = HostDevice()
    pool = Pool(device)
    logits = np.random.default_rng(0).standard_normal((2, 3, 5)).astype(np.float16)
    placed = place(pool, "logits", logits, np.float16)
    assert placed.likeliest(None, pool) == likeliest(logits[:, -1])
    assert downloads == [10, 10]


def bare_device() -> CudaDevice:
    device = CudaDevice.__new__(CudaDevice)
    device.stream = 7
    return device


def test_a_gpu_is_asked_on_the_sessions_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []
    kernels = SimpleNamespace(likeliest=lambda *given: calls.append(given))
    monkeypatch.setattr("xlstm_export.runtime.trt.device.cuda_kernels", lambda: kernels)
    starts = np.array([0])
    assert bare_device().likeliest(256, starts, 5, 512, 520)
    assert calls == [(256, starts, 5, 512, 520, 7)]


@pytest.mark.parametrize("folder_is_named", [True, False])
def test_plugins_alone_are_enough_for_an_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder_is_named: bool
) -> None:
    if folder_is_named:
        monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    else:
        monkeypatch.setattr("xlstm_export.runtime.trt.kernels.cuda_library_path", lambda: None)
    cuda_kernels.cache_clear()
    try:
        assert not bare_device().likeliest(256, np.array([0]), 5, 512, 520)
    finally:
        cuda_kernels.cache_clear()
