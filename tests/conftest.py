"""Settings of the whole suite: one thread each, since the suite itself runs in parallel."""

from __future__ import annotations

import os

import pytest

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"

from tests.model_cases import Library  # noqa: E402  torch reads the thread counts on import


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    """Checkpoints and bundles of the model cases, made once a worker."""
    return Library(tmp_path_factory.mktemp("library"))
