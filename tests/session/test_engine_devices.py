"""What an engine's session does with a device's contexts, memory and limits, on stand-ins."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.session.c_session import BACKEND, MEMORY
from tests.session.engine_stand_ins import (
    FORECASTING,
    OPEN,
    RTX,
    change_json,
    run_apart,
    tensor,
    write_bundle,
)

RUN = """
import ctypes, sys
import numpy as np
from tests.session.c_session import CSession, SessionError
from tests.session.test_engines import check_calls
open_session = lambda: CSession(sys.argv[1], runtime=sys.argv[2], engine="tensorrt-sm89")
ids = {"input_ids": np.array([[1]])}
"""
# the stand-in's memory functions refuse every context but the device's own
CONTEXT = f"""{RUN}
cuda, mine = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p(4096)
def check():
    now = ctypes.c_void_p()
    cuda.cuCtxGetCurrent(ctypes.byref(now))
    assert now.value == mine.value
cuda.cuCtxSetCurrent(mine)
session = open_session()
check()
check_calls(session)
check()
states = session.zeros(2)
del session
check()
print(cuda.stand_in_retained())
states.arrays()
del states
check()
print(cuda.stand_in_retained())
"""
NO_STREAM = f"""{RUN}
cuda = ctypes.CDLL("libcuda.so.1")
try:
    open_session()
except SessionError as error:
    print(error.status, error)
print(cuda.stand_in_retained())
"""
# states of 1000 rows are 40 kB, and two sets of them do not fit
FULL = f"""{RUN}
session = open_session()
for rows in (1000, 1200, 800):
    assert session.zeros(rows).batch == rows
try:
    session.zeros(3000)
except SessionError as error:
    print(error.status, error)
"""
REFUSED = f"""{RUN}
session = open_session()
try:
    session.run(ids)
except SessionError as error:
    print(error)
check_calls(session)
"""
FORECAST = f"""{RUN}
series = [np.arange(1 + n % 9, dtype=np.float32) for n in range(20)]
expected = [row[-1] + np.array([[0, 1], [10, 11], [20, 21]]) for row in series]
assert np.array_equal(open_session().forecast(series, 3), expected)
"""
PROCESS = f"""
import ctypes, sys
ctypes.CDLL(sys.argv[3], ctypes.RTLD_GLOBAL)
{OPEN}
"""


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle")


def test_the_context_of_the_caller_stays(stand_ins: Path, bundle: Path) -> None:
    done = run_apart(CONTEXT, stand_ins, bundle, stand_ins / "10" / "libnvinfer.so.10")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["1", "0"]


def test_a_device_that_fails_is_given_back(stand_ins: Path, bundle: Path) -> None:
    library = stand_ins / "10" / "libnvinfer.so.10"
    done = run_apart(NO_STREAM, stand_ins, bundle, library, STAND_IN_CUSTREAMCREATE="2")
    told = f"{BACKEND} GPU 0: cuStreamCreate failed with CUDA_ERROR_STAND_IN (2)"
    assert done.stdout.splitlines() == [told, "0"], done.stderr


def test_idle_memory_is_given_up_where_there_is_none(stand_ins: Path, bundle: Path) -> None:
    library = stand_ins / "10" / "libnvinfer.so.10"
    done = run_apart(FULL, stand_ins, bundle, library, STAND_IN_MEMORY="60000")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{MEMORY} GPU 0: no memory for ")


def test_a_profile_that_was_refused_is_asked_for_again(stand_ins: Path, bundle: Path) -> None:
    library = stand_ins / "10" / "libnvinfer.so.10"
    done = run_apart(REFUSED, stand_ins, bundle, library, STAND_IN_REFUSED="1")
    assert done.returncode == 0, done.stderr
    assert "TensorRT 10.14.1 refused profile 0" in done.stdout


def test_as_many_series_at_once_as_the_engine_takes(stand_ins: Path, bundle: Path) -> None:
    change_json(
        bundle / "xlstm_export.json",
        inputs=[tensor("context", "float32", "length")],
        outputs=[tensor("quantiles", "float32", 4, 2)],
        forecast={"levels": [0.1, 0.9], "context": 16, "patch": 4, "horizon": 4},
    )
    (bundle / "engines" / "tensorrt-sm89.engine").write_bytes(FORECASTING)
    done = run_apart(FORECAST, stand_ins, bundle, stand_ins / "10" / "libnvinfer.so.10")
    assert done.returncode == 0, done.stderr


def test_a_library_of_the_other_kind_is_told(stand_ins: Path, bundle: Path) -> None:
    rtx, plain = stand_ins / RTX[0], stand_ins / "10" / "libnvinfer.so.10"
    change_json(bundle / "engines" / "tensorrt-sm89.json", backend="tensorrt_rtx")
    done = run_apart(OPEN, stand_ins, bundle, plain)
    assert done.stdout.startswith(
        f"{BACKEND} {plain}: is no TensorRT-RTX, by its version 10.14.1; name the library of"
    )
    # of a program that links TensorRT, the one that the loader finds is taken
    folders = f"{stand_ins}:{rtx}"
    done = run_apart(PROCESS, stand_ins, bundle, "", plain, LD_LIBRARY_PATH=folders)
    assert done.stdout.startswith("TensorRT-RTX 1.7.1, Stand-in"), done.stderr + done.stdout
    change_json(bundle / "engines" / "tensorrt-sm89.json", backend="tensorrt")
    done = run_apart(PROCESS, stand_ins, bundle, "", plain)
    assert done.stdout.startswith("TensorRT 10.14.1, Stand-in"), done.stderr + done.stdout
    done = run_apart(OPEN, stand_ins, bundle, rtx / "libtensorrt_rtx.so.1")
    assert "is no TensorRT, by its version 1.7.1; name the library of TensorRT" in done.stdout
