"""What several files of tests share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.session.engine_stand_ins import RTX, VERSIONS, compile_stand_in


@pytest.fixture(scope="session")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the driver, and a folder for each TensorRT."""
    if shutil.which("g++") is None:
        pytest.skip("no g++: install it")
    folder: Path = tmp_path_factory.mktemp("stand-ins")
    compile_stand_in(folder / "libcuda.so.1", "-DSTAND_IN_DRIVER")
    for name, version in VERSIONS.items():
        library = folder / name / "libnvinfer.so.10"
        compile_stand_in(library, f"-DSTAND_IN_TENSORRT={version}")
    name, version = RTX
    library = folder / name / "libtensorrt_rtx.so.1"
    compile_stand_in(library, f"-DSTAND_IN_TENSORRT={version}")
    return folder
