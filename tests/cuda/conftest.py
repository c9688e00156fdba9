"""The emulated kernels under the sanitizer that a test module names: ``SANITIZER``."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cuda.on_cpu import build
from tests.plugins.sanitized import run_child, why_not

SWEEP = "tests.cuda.sanitizer_sweep"


@pytest.fixture(scope="module")
def folder(request: pytest.FixtureRequest) -> Path:
    """Folder of the emulated kernels, built with the sanitizer."""
    reason = why_not(request.module.SANITIZER)
    if reason:
        pytest.skip(reason)
    return build(request.module.SANITIZER.flags)


@pytest.fixture
def run(
    request: pytest.FixtureRequest, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], subprocess.CompletedProcess[str]]:
    """Run a part of the sweep."""
    monkeypatch.setenv("XLSTM_CUDA_ON_CPU", str(folder))
    return lambda what: run_child(request.module.SANITIZER, folder, ["-m", SWEEP, what])
