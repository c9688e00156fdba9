"""Bundles to build engines from; a skip with its reason where a machine cannot build."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest

from tests.cli.terminal import succeed
from tests.families.block_stack_checkpoints import make_block_stack
from tests.families.large_checkpoints import make_hf
from xlstm_export.native import trt_library_path

DTYPES = ("fp32", "fp16", "bf16")
SOURCES = ("hf", "stack")


def needed_to_build() -> str:
    """What this machine lacks for a TensorRT-RTX engine, empty where it has all."""
    modules = ("tensorrt_rtx", "polygraphy")
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        return f"{' and '.join(missing)} not installed: pip install 'xlstm-export[rtx]'"
    if trt_library_path() is None:
        assert shutil.which("nvcc") is None, "there is no libxlstm_trt.so: `make wheel` builds it"
        return "no libxlstm_trt.so, and no nvcc to build it with"
    return ""


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders hf-fp32 … stack-bf16, and ragged: a block stack with sequence_lengths."""
    folder = tmp_path_factory.mktemp("engine-bundles")
    make_hf(folder / "source" / "hf", vocab_size=256)
    make_block_stack(folder / "source" / "stack")
    for name in SOURCES:
        for dtype in DTYPES:
            source, out = folder / "source" / name, folder / f"{name}-{dtype}"
            succeed("export", source, "-o", out, "--dtype", dtype)
    source = folder / "source" / "stack"
    succeed("export", source, "-o", folder / "ragged", "--ragged")
    return folder


@pytest.fixture
def builder() -> None:
    """Skip where no TensorRT-RTX engine can be built."""
    if reason := needed_to_build():
        pytest.skip(reason)


@pytest.fixture
def bundle(bundles: Path, tmp_path: Path) -> Path:
    """A bundle of one's own: a block stack in fp16, with sLSTM, mLSTM and convolutions."""
    without = shutil.ignore_patterns("engines")
    return shutil.copytree(bundles / "stack-fp16", tmp_path / "out", ignore=without)
