"""Settings of the whole suite: one thread each, since the suite itself runs in parallel."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.model_cases import Library

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"


def pytest_collection_finish() -> None:
    """What was collected stays to the end: looking through it for garbage took a fifth of a run."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


def pytest_unconfigure() -> None:
    """Some libraries say at the end what was never taken away."""
    gc.unfreeze()


@pytest.fixture(scope="session", autouse=True)
def _one_thread_a_session() -> Iterator[None]:
    """ONNX Runtime's threads spin while they wait, and other tests are to have the processor."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("xlstm_export.runtime.ort.cpu_threads", lambda: 1)
        yield


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    """Checkpoints and bundles of the model cases, made once a worker."""
    # here: neither the process that hands out the tests nor a run without models needs torch
    from tests.model_cases import Library

    return Library(tmp_path_factory.mktemp("library"))
