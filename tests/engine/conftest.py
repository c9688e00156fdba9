"""Bundles to build engines from; a skip with its reason where a machine cannot build."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.cli.terminal import succeed
from tests.families.block_stack_checkpoints import make_block_stack
from tests.families.large_checkpoints import make_hf
from tests.families.tirex_checkpoints import make_tirex
from tests.plugins.trt_library import missing_for_engines, plugin_library
from xlstm_export.native import FOLDER_VARIABLE

DTYPES = ("fp32", "fp16", "bf16")
SOURCES = ("hf", "stack")


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders hf-fp32 … stack-bf16, tirex-fp32 …, and ragged: a stack with sequence_lengths."""
    folder = tmp_path_factory.mktemp("engine-bundles")
    make_hf(folder / "source" / "hf", vocab_size=256)
    make_block_stack(folder / "source" / "stack")
    for name in SOURCES:
        for dtype in DTYPES:
            source, out = folder / "source" / name, folder / f"{name}-{dtype}"
            succeed("export", source, "-o", out, "--dtype", dtype)
    source = folder / "source" / "stack"
    succeed("export", source, "-o", folder / "ragged", "--ragged")
    make_tirex(folder / "source" / "tirex")
    for dtype in DTYPES:
        succeed(
            "export", folder / "source" / "tirex", "-o", folder / f"tirex-{dtype}",
            "--dtype", dtype,
        )  # fmt: skip
    return folder


@pytest.fixture
def builder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plugin library is found; skip where no TensorRT-RTX engine can be built."""
    if reason := missing_for_engines():
        pytest.skip(reason)
    monkeypatch.setenv(FOLDER_VARIABLE, str(plugin_library().parent))


@pytest.fixture
def bundle(bundles: Path, tmp_path: Path) -> Path:
    """A bundle of one's own: a block stack in fp16, with sLSTM, mLSTM and convolutions."""
    without = shutil.ignore_patterns("engines")
    return shutil.copytree(bundles / "stack-fp16", tmp_path / "out", ignore=without)
