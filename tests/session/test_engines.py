"""Engines in the C++ session library: its logic on stand-ins for TensorRT and the driver.

The stand-ins compute on the host; nothing here shows that TensorRT gives the same numbers.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cuda.nvcc import include_folder
from tests.plugins.native_builds import ROOT
from tests.plugins.trt_library import headers
from tests.session.c_session import (
    BACKEND,
    ENGINE,
    INPUT,
    Array,
    CSession,
    SessionError,
    join,
)
from tests.session.engine_stand_ins import (
    BEGINNING,
    ENGINE_BYTES,
    OPEN,
    TESTS,
    VOCABULARY,
    run_apart,
    write_bundle,
)
from xlstm_export import __version__
from xlstm_export.native import session_library_path


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle")


def reference(ids: Array, states: Mapping[str, Array]) -> tuple[Array, dict[str, Array]]:
    """What the stand-in computes: logits [B,T,V], states after."""
    s, u = states["0.toy.s"].copy(), states["0.toy.u"] + np.float32(ids.shape[1])
    column = np.arange(VOCABULARY)
    factor = ((3 * column) % 7 - 2).astype(np.float32)
    logits = []
    for step in ids.T:
        s = s / 2 + np.outer(step + 1, np.arange(1, 5)).astype(np.float32)
        logits.append(s[:, column % 4] * factor)
    return np.stack(logits, 1), {"0.toy.s": s.astype(np.float32), "0.toy.u": u}


def check_calls(session: CSession) -> None:
    random = np.random.default_rng(0)
    expected: dict[str, Array] = {"0.toy.s": np.zeros((3, 4), np.float32),
                                  "0.toy.u": np.zeros((3, 2, 3), np.float32)}  # fmt: skip
    states = None
    for steps in (5, 1, 1, 16):
        ids = random.integers(0, VOCABULARY, (3, steps))
        outputs, states = session.run({"input_ids": ids}, states)
        logits, expected = reference(ids, expected)
        np.testing.assert_array_equal(outputs["logits"], logits)
        for key, array in states.arrays().items():
            np.testing.assert_array_equal(array, expected[key])


def check_states(session: CSession, folder: Path) -> None:
    ids = np.random.default_rng(1).integers(0, VOCABULARY, (3, 4))
    _, states = session.run({"input_ids": ids})
    arrays = states.arrays()
    chosen = join([states.rows([2, 0]), session.zeros(1)]).arrays()
    begun = states.reset([1]).arrays()
    states.save(folder / "states")
    loaded = session.load(folder / "states").arrays()
    for key, array in arrays.items():
        zeros = np.zeros_like(array[:1])
        np.testing.assert_array_equal(chosen[key], np.concatenate([array[[2, 0]], zeros]))
        np.testing.assert_array_equal(begun[key], np.concatenate([array[:1], zeros, array[2:]]))
        np.testing.assert_array_equal(loaded[key], array)
        np.testing.assert_array_equal(states.copy().arrays()[key], array)


def check_generation(session: CSession) -> None:
    """A prompt of more than one piece of 16 steps."""
    prompt = [int(n) for n in np.random.default_rng(2).integers(0, VOCABULARY, 40)]
    zeros = session.zeros(1).arrays()
    logits, states = reference(np.array([prompt]), zeros)
    expected = []
    for _ in range(6):
        expected.append(int(logits[0, -1].argmax()))
        logits, states = reference(np.array([expected[-1:]]), states)
    assert session.generate(prompt, 6)[0] == expected


WHOLE = """
import sys
from pathlib import Path
from tests.session.c_session import CSession
from tests.session.test_engines import check_calls, check_generation, check_states, check_refusals
session = CSession(sys.argv[1], runtime=sys.argv[2], engine="tensorrt-sm89")
check_calls(session)
check_states(session, Path(sys.argv[1]))
check_generation(session)
check_refusals(session)
print(session.describe())
"""


def check_refusals(session: CSession) -> None:
    for ids, told in (
        (np.zeros((9, 1), np.int64), "input_ids [9, 1]: the engine takes [1, 1] to [8, 1] or"),
        (np.zeros((1, 17), np.int64), "or [1, 1] to [8, 16]; feed shorter pieces"),
        (np.array([[7]]), "input_ids: token id 7 is outside the vocabulary of 7"),
    ):
        with pytest.raises(SessionError) as caught:
            session.run({"input_ids": ids})
        assert told in str(caught.value)
        assert caught.value.status == INPUT


@pytest.mark.parametrize(("name", "title"), [("10", "10.14.1"), ("11", "11.1.0")])
def test_an_engine_runs(stand_ins: Path, bundle: Path, name: str, title: str) -> None:
    done = run_apart(WHOLE, stand_ins, bundle, stand_ins / name / "libnvinfer.so.10")
    assert done.returncode == 0, done.stderr
    about = f"TensorRT {title}, Stand-in (8.9), bfloat16; CUDA plugins: 1 by libxlstm_trt.so"
    assert done.stdout.strip() == f"{about} {__version__}"


def test_the_loader_finds_tensorrt(stand_ins: Path, bundle: Path) -> None:
    folders = f"{stand_ins}:{stand_ins / '10'}"
    done = run_apart(OPEN, stand_ins, bundle, "", LD_LIBRARY_PATH=folders)
    assert done.stdout.startswith("TensorRT 10.14.1, Stand-in"), done.stderr
    done = run_apart(OPEN, stand_ins, bundle, "")
    assert done.stdout.startswith(f"{BACKEND} none of libnvinfer.so.11, libnvinfer.so.10 is found")


def _record(**changes: Any) -> Callable[[Path], object]:
    def change(bundle: Path) -> None:
        path = bundle / "engines" / "tensorrt-sm89.json"
        content = json.loads(path.read_text())
        content["plugin_library"] |= changes.pop("plugin_library", {})
        path.write_text(json.dumps(content | changes))

    return change


def _other_state(bundle: Path) -> None:
    path = bundle / "xlstm_export.json"
    path.write_text(path.read_text().replace("past.u", "past.v"))


def _engine(content: bytes) -> Callable[[Path], object]:
    return lambda bundle: (bundle / "engines" / "tensorrt-sm89.engine").write_bytes(content)


BOTH = """
import sys
from tests.session.c_session import CSession
from tests.session.test_engines import check_calls
check_calls(CSession(sys.argv[1], runtime=sys.argv[2], engine="tensorrt-sm89"))
"""


@pytest.fixture
def two_graphs(bundle: Path) -> Path:
    """Calls that begin take no states; those that go on have an engine of their own."""
    path, engines = bundle / "xlstm_export.json", bundle / "engines"
    manifest = json.loads(path.read_text())
    ends = {"inputs": manifest["inputs"], "outputs": manifest["outputs"]}
    path.write_text(json.dumps(manifest | {"continuation": {"file": "continue.onnx", **ends}}))
    (engines / "continue").mkdir()
    for file in engines.glob("tensorrt-sm89.*"):
        shutil.copy(file, engines / "continue")
    _engine(BEGINNING)(bundle)
    return bundle


def test_calls_that_go_on_have_an_engine_of_their_own(stand_ins: Path, two_graphs: Path) -> None:
    done = run_apart(BOTH, stand_ins, two_graphs, stand_ins / "10" / "libnvinfer.so.10")
    assert done.returncode == 0, done.stderr


def test_without_it_calls_can_only_begin(stand_ins: Path, two_graphs: Path) -> None:
    shutil.rmtree(two_graphs / "engines" / "continue")
    done = run_apart(BOTH, stand_ins, two_graphs, stand_ins / "10" / "libnvinfer.so.10")
    last = done.stderr.splitlines()[-1]
    assert "states: the engine begins every call; give none, or build again, for an engine" in last


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (_record(bundle_sha256="cd"), "was built from another graph or other weights"),
        (_record(compute_capability=["9.0"]), "for compute capability 9.0, and this GPU"),
        (lambda b: (b / "engines/tensorrt-sm89.json").unlink(), "no such file; make it"),
        (_engine(BEGINNING), "the engine's tensors are not the bundle's (past.s)"),
        (_engine(ENGINE_BYTES[:9]), "TensorRT 10.14.1 cannot load it; copy it again, or"),
    ],
)
def test_one_that_does_not_fit_is_named(
    stand_ins: Path, two_graphs: Path, damage: Callable[[Path], object], told: str
) -> None:
    place = two_graphs / "place"
    place.mkdir()
    (place / "engines").symlink_to(two_graphs / "engines" / "continue")
    damage(place)
    done = run_apart(OPEN, stand_ins, two_graphs, stand_ins / "10" / "libnvinfer.so.10")
    assert done.stdout.startswith(f"{ENGINE} "), done.stdout + done.stderr
    assert "/engines/continue/tensorrt-sm89." in done.stdout
    assert told in done.stdout


@pytest.mark.parametrize(
    ("damage", "status", "told"),
    [
        (_engine(ENGINE_BYTES[:9]), ENGINE, "TensorRT 10.14.1 cannot load it; copy it again, or"),
        (_engine(ENGINE_BYTES[:9]), ENGINE, "\nthe stand-in knows no such engine"),
        (_record(format_version=2), ENGINE, "format_version 2 is newer than 1"),
        (_record(plugins=3), ENGINE, "damaged engine record"),
        (_record(bundle_sha256="cd"), ENGINE, "was built from another graph or other weights"),
        (_record(compute_capability=["9.0"]), ENGINE, "for compute capability 9.0, and this GPU"),
        (_record(backend="tensorrt_lite"), ENGINE, "an engine of backend 'tensorrt_lite'"),
        (lambda b: (b / "engines/tensorrt-sm89.json").unlink(), ENGINE, "no such file; make it"),
        (lambda b: shutil.rmtree(b / "engines"), ENGINE, "tensorrt-sm89: no engine of "),
        (_other_state, ENGINE, "the engine's tensors are not the bundle's (past.v)"),
        (
            _record(plugin_library={"embedded": False, "version": "9"}),
            BACKEND,
            "and the engine was built with 9: build again",
        ),
    ],
)
def test_engines_that_do_not_fit(
    stand_ins: Path, bundle: Path, damage: Callable[[Path], object], status: int, told: str
) -> None:
    damage(bundle)
    done = run_apart(OPEN, stand_ins, bundle, stand_ins / "10" / "libnvinfer.so.10")
    assert done.stdout.startswith(f"{status} "), done.stdout + done.stderr
    assert told in done.stdout
    assert "a note that nobody asked for" not in done.stdout


def test_an_engine_of_another_version(stand_ins: Path, bundle: Path) -> None:
    _record(builder_version="11.2.0.1")(bundle)
    _engine(b"of another version")(bundle)
    done = run_apart(OPEN, stand_ins, bundle, stand_ins / "11" / "libnvinfer.so.10")
    assert "TensorRT 11.1.0 cannot load it; 11.2.0.1 built it: build again, or use" in done.stdout


def test_plugins_that_the_engine_does_not_carry(stand_ins: Path, bundle: Path) -> None:
    library = session_library_path()
    assert library is not None
    _record(plugin_library={"embedded": False})(bundle)
    done = run_apart(OPEN, stand_ins, bundle, stand_ins / "10" / "libnvinfer.so.10")
    if (library.parent / "libxlstm_trt.so").is_file():
        assert done.stderr == f"plugins of {library.parent / 'libxlstm_trt.so'}\n"
    else:
        assert done.stdout.startswith(f"{BACKEND} this engine needs the plugin library libxlstm")


def test_a_tensorrt_that_is_not_known(stand_ins: Path, bundle: Path) -> None:
    done = run_apart(OPEN, stand_ins, bundle, stand_ins / "unknown" / "libnvinfer.so.10")
    assert done.stdout.startswith(f"{BACKEND} ")
    assert "TensorRT 12.0.0 is not known to this version" in done.stdout
    done = run_apart(OPEN, stand_ins, bundle, "libc.so.6")
    assert "libc.so.6: is no TensorRT; name the library of TensorRT" in done.stdout


def test_a_machine_without_a_gpu(stand_ins: Path, bundle: Path) -> None:
    library = stand_ins / "10" / "libnvinfer.so.10"
    told = run_apart(OPEN, stand_ins, bundle, library, LD_LIBRARY_PATH="").stdout
    if not Path("/dev/nvidiactl").exists():
        assert told.startswith(f"{BACKEND} none of libcuda.so.1 is found; engines run on an NVIDIA")
    told = run_apart(OPEN, stand_ins, bundle, library, STAND_IN_CUINIT="100").stdout
    assert told.startswith(f"{BACKEND} GPU 0 was asked for, and the driver sees 0, numbered from 0")
    told = run_apart(OPEN, stand_ins, bundle, library, STAND_IN_CUINIT="999").stdout
    assert told.strip() == f"{BACKEND} GPU 0: cuInit failed with CUDA_ERROR_STAND_IN (999)"


@pytest.mark.parametrize(
    ("module", "file", "backend", "status", "told"),
    [
        (
            "tensorrt_rtx_libs", "libtensorrt_rtx.so.1", "tensorrt_rtx", ENGINE,
            "TensorRT-RTX 1.7.1 cannot load it",
        ),
        (
            "tensorrt_lean_libs", "libnvinfer_lean.so.11", "tensorrt", BACKEND,
            "TensorRT 11.4.0 does not start",
        ),
    ],
)  # fmt: skip
def test_the_real_ones_say_what_is_wrong(
    stand_ins: Path, bundle: Path, module: str, file: str, backend: str, status: int, told: str
) -> None:
    """Through our logger: TensorRT-RTX of an engine, TensorRT of a driver that is none."""
    spec = importlib.util.find_spec(module)
    if spec is None:
        pytest.skip(f"no {module}: pip install '.[rtx]' tensorrt-lean-cu13")
    assert spec.submodule_search_locations
    library = Path(spec.submodule_search_locations[0]) / file
    _record(backend=backend)(bundle)
    done = run_apart(OPEN, stand_ins, bundle, library)
    first, *said = done.stdout.splitlines()
    assert first.startswith(f"{status} ")
    assert told in first
    assert any("Error Code" in line for line in said)


@pytest.mark.skipif(
    shutil.which("nvcc") is None, reason="no nvcc: TensorRT's headers take in those of CUDA"
)
def test_places_are_those_of_nvidias_headers(tmp_path: Path) -> None:
    program = tmp_path / "places"
    session = ROOT / "plugins" / "session"
    command = ["g++", "-std=c++17", "-Wall", "-isystem", headers(), "-isystem", include_folder()]
    command += [f"-I{session}", TESTS / "trt_places.cpp", session / "trt" / "logger.cpp"]
    subprocess.run([*command, "-o", program], check=True)
    lines = subprocess.run([program], capture_output=True, text=True, check=True).stdout.split("\n")
    pairs = [line.split() for line in lines if line]
    assert len(pairs) == 19
    assert all(ours == theirs for ours, theirs in pairs)
