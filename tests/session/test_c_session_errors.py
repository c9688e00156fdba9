"""What the C++ session library says of bundles, libraries and files that are not right."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.model_cases import BY_ID, Library
from tests.native_libraries import StandIn
from tests.native_libraries import build as build_stand_in
from tests.session.c_session import (
    BACKEND,
    BUNDLE,
    FILE,
    INPUT,
    OPTION,
    CSession,
    SessionError,
)
from tests.session.own_network import SIZE, write_own_network
from xlstm_export import __version__
from xlstm_export.bundle.low_bit import LowBit
from xlstm_export.lowering.options import LoweringOptions

# the first function of ONNX Runtime's base table gives no table of that version, the second a name
OLD_RUNTIME = """
static const void* no_table(unsigned version) { (void)version; return 0; }
static const char* name(void) { return "1.2.3"; }
static const struct { const void* (*table)(unsigned); const char* (*name)(void); } base =
    {no_table, name};
const void* OrtGetApiBase(void) { return &base; }
"""
# a process takes one ONNX Runtime: whatever is wrong with another one shows in a process of its own
OPEN = """
import sys
from tests.session.c_session import CSession, SessionError
try:
    CSession(sys.argv[1], runtime=sys.argv[2])
except SessionError as error:
    print(error.status, error)
"""
# a file may grow to this many bytes: what a full disk does to a program
SAVE = """
import resource, signal, sys
from pathlib import Path
from tests.session.c_session import CSession, SessionError
states = CSession(sys.argv[1]).zeros(50)
path = Path(sys.argv[2])
states.rows([0]).save(path)
before = path.read_bytes()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) * 2, resource.RLIM_INFINITY))
try:
    states.save(path)
except SessionError as error:
    print(error.status, error)
assert path.read_bytes() == before
assert list(path.parent.iterdir()) == [path]
"""

# the logits of bundles in the ONNX Runtime of a folder: whether they are Python's, bit for bit
FEW_BITS = """
import sys
if sys.argv[1]:
    sys.path.insert(0, sys.argv[1])
from pathlib import Path
import numpy as np
import onnxruntime
from tests.session.c_session import CSession
from xlstm_export.runtime.ort import OrtSession
assert onnxruntime.__file__.startswith(sys.argv[1])
feeds = {"input_ids": np.arange(12).reshape(2, 6)}
for bundle in map(Path, sys.argv[2:]):
    sessions = CSession(bundle), OrtSession(bundle, threads=1)
    ours, theirs = (session.run(feeds)[0]["logits"] for session in sessions)
    print(ours.tobytes() == theirs.tobytes())
"""


def refused(act: Callable[[], Any], status: int) -> str:
    with pytest.raises(SessionError) as caught:
        act()
    assert caught.value.status == status, caught.value
    return str(caught.value)


def run_apart(script: str, *words: object) -> str:
    """What ``script`` prints in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, words)], capture_output=True, text=True,
        check=False, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def bundle(library: Library, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(library.bundle(BY_ID["stack-mixed"]), tmp_path / "bundle"))


def _set(**changes: object) -> Callable[[Path], object]:
    """Change keys of the manifest; those of a state as well as its own."""

    def change(bundle: Path) -> None:
        path = bundle / "xlstm_export.json"
        content = json.loads(path.read_text())
        for entry in (content, *content["states"]):
            entry.update((key, value) for key, value in changes.items() if key in entry)
        path.write_text(json.dumps(content))

    return change


def _write(text: str) -> Callable[[Path], object]:
    return lambda bundle: (bundle / "xlstm_export.json").write_text(text)


def _cut(name: str) -> Callable[[Path], object]:
    return lambda bundle: os.truncate(bundle / name, (bundle / name).stat().st_size // 2)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (shutil.rmtree, "bundle: no such folder; make a bundle with: xlstm-export export"),
        (lambda b: (b / "xlstm_export.json").unlink(), "no xlstm_export.json, so it is not an"),
        (lambda b: (b / "model.onnx").unlink(), "model.onnx: missing; export again"),
        (_cut("model.onnx"), "model.onnx: ONNX Runtime cannot load it; export again"),
        (lambda b: (b / "model.onnx.data").unlink(), "model.onnx.data: missing; a bundle is its"),
        (_cut("model.onnx.data"), "model.onnx.data: has "),
        (_write('{"states": [1,}'), "damaged manifest"),
        (_write("[" * 10**5), "damaged manifest"),
        (_write("[]"), "damaged manifest"),
        (_write("{}"), "format_version"),
        (_set(format_version=2), "format_version 2 is newer than 1, the newest this version reads"),
        (_set(states=3), "damaged manifest"),
        (_set(inputs=[]), "no inputs or no outputs"),
        (_set(init="ones"), "starts as 'ones', which this version does not know; upgrade"),
        (_set(dtype="float8"), "dtype float8"),
        (_set(dtype="float16"), " does not belong to the manifest beside it; export again"),
        (_set(output="present.nothing"), " does not belong to the manifest beside it"),
        (_set(states=[]), " does not belong to the manifest beside it"),
        (_set(ragged=True), "ragged and the input sequence_lengths do not go together"),
        (_set(shape=["batch", 2**40, 2**40]), "its shape"),
        (_set(shape=[1, 2]), "is not [batch, ...]"),
    ],
)  # fmt: skip
def test_a_damaged_bundle(bundle: Path, damage: Callable[[Path], object], told: str) -> None:
    damage(bundle)
    assert told in refused(lambda: CSession(bundle), BUNDLE)


def test_a_bundle_for_gpus(library: Library) -> None:
    bundle = library.bundle(BY_ID["stack-mixed"], dtype="bfloat16")
    assert "a bfloat16 bundle does not run on" in refused(lambda: CSession(bundle), BACKEND)


def test_options_have_bounds(bundle: Path) -> None:
    assert refused(lambda: CSession(bundle, threads=-1), OPTION).startswith("threads: -1 is not")
    assert refused(lambda: CSession(bundle, threads=9999), OPTION).startswith("threads: 9999")
    assert refused(lambda: CSession(bundle, gpu=-1), OPTION).startswith("gpu: -1 is not")


def test_kernel_libraries_that_do_not_fit(bundle: Path, tmp_path: Path) -> None:
    def told(path: Path) -> str:
        return refused(lambda: CSession(bundle, kernel_library=path), BACKEND)

    assert "/nowhere.so: no such library" in told(Path("/nowhere.so"))
    assert "model.onnx: cannot be loaded" in told(bundle / "model.onnx")
    other = f"version 9.9, where libxlstm_session is {__version__}"
    assert other in told(build_stand_in(tmp_path, StandIn("9.9")))
    nameless = tmp_path / "nameless"
    nameless.mkdir()
    assert "no library of xlstm-export" in told(build_stand_in(nameless, StandIn("", False)))


def test_another_runtime_than_the_first(bundle: Path) -> None:
    CSession(bundle)
    told = refused(lambda: CSession(bundle, runtime="/another.so"), BACKEND)
    assert told.startswith("/another.so: this process already has another ONNX Runtime (1.")


def test_runtimes_that_are_none(bundle: Path, tmp_path: Path) -> None:
    assert run_apart(OPEN, bundle, "/nowhere.so").startswith(f"{BACKEND} /nowhere.so: cannot be")
    libc = run_apart(OPEN, bundle, "libc.so.6")
    assert libc.startswith(f"{BACKEND} libc.so.6: is no ONNX Runtime; name the library of ONNX")
    source, old = tmp_path / "old.c", tmp_path / "libonnxruntime.so.1"
    source.write_text(OLD_RUNTIME)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", old, source], check=True)
    told = run_apart(OPEN, bundle, old)
    assert told == f"{BACKEND} {old}: ONNX Runtime 1.2.3 is too old; 1.20 or later is needed"


OTHERS = [d for d in os.environ.get("XLSTM_ORT_DIRS", "").split(os.pathsep) if d]


@pytest.mark.parametrize("folder", ["", *OTHERS], ids=lambda d: Path(d).name or "installed")
def test_weights_in_few_bits_are_read_as_python_does(library: Library, folder: str) -> None:
    """Where matrices are made wide as they are loaded, products of 4 bits round nothing."""
    case = BY_ID["hf-plain"]
    (name, *_) = [n for n in library.checkpoint(case).weights if n.endswith(".down.weight")]
    kinds = [
        LoweringOptions(opset=21, low_bit=LowBit(8, 16)),
        LoweringOptions(opset=21, low_bit=LowBit(4, 16)),
        LoweringOptions(opset=21, low_bit=LowBit(4, 16, eight=(name,))),
        LoweringOptions(opset=21, low_bit=LowBit(4, 16), dtype="float16"),
        LoweringOptions(opset=21, low_bit=LowBit(4, 16, matmul_nbits=True)),
    ]
    bundles = [library.bundle(case, options) for options in kinds]
    assert run_apart(FEW_BITS, folder, *bundles).split() == ["True"] * len(kinds)


@pytest.mark.parametrize("folder", OTHERS)
def test_older_and_newer_runtimes_give_the_same_ids(library: Library, folder: str) -> None:
    bundle = library.bundle(BY_ID["stack-mixed"])
    path = next((Path(folder) / "onnxruntime" / "capi").glob("libonnxruntime.so.1.*"))
    script = """
import sys
from tests.session.c_session import CSession
print(CSession(sys.argv[1], runtime=sys.argv[2]).generate([1, 2, 3], 20)[0])
"""
    assert run_apart(script, bundle, path) == str(CSession(bundle).generate([1, 2, 3], 20)[0])


def test_a_full_disk_while_saving(bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    folder.mkdir()
    path = folder / "states.safetensors"
    told = run_apart(SAVE, bundle, path)
    assert told == f"{FILE} {path}: cannot be written (File too large)"


def test_files_that_hold_no_states(bundle: Path, library: Library, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    session, path = CSession(bundle), tmp_path / "states.safetensors"
    told = refused(lambda: session.load(path), FILE)
    assert told == f"{path}: cannot be read (No such file or directory)"
    states = session.zeros(2)
    states.save(path)
    whole = path.read_bytes()
    for size in (0, 7, 100, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert "not a readable safetensors file" in refused(lambda: session.load(path), FILE)
    path.write_bytes(b"\xff" * 8 + whole[8:])
    assert "not a readable safetensors file" in refused(lambda: session.load(path), FILE)
    save_file({"a": np.zeros(3)}, path)
    assert "not a readable safetensors file (a: its type)" in refused(
        lambda: session.load(path), FILE
    )
    save_file({"a": np.zeros(3, np.float32)}, path)
    assert "holds no saved states of version 1" in refused(lambda: session.load(path), INPUT)
    CSession(library.bundle(BY_ID["hf-plain"])).zeros(2).save(path)
    assert "states of another bundle" in refused(lambda: session.load(path), INPUT)
    missing = tmp_path / "no" / "folder"
    told = refused(lambda: states.save(missing), FILE)
    assert told == f"{missing}: cannot be written (No such file or directory)"


def test_networks_that_continue_no_text(tmp_path: Path) -> None:
    """Logits of a whole sequence, and those of each step where nothing is carried."""
    pooled = CSession(write_own_network(tmp_path / "pooled", pools=True))
    told = refused(lambda: pooled.generate([1], 3), BUNDLE)
    assert told == "the bundle takes input_ids and yields logits: it generates no text"
    assert pooled.vocabulary == 0
    session = CSession(write_own_network(tmp_path / "bundle"))
    told = refused(lambda: session.generate([1], 3), BUNDLE)
    assert told.startswith("the bundle carries no states, so that no text goes on by it; export it")
    assert "with --states (export_module: states=True)" in told
    # its input may be anything that is counted
    assert session.vocabulary == 0
    assert session.run({"input_ids": np.array([[SIZE - 1]])})[0]["logits"][0, 0, -1] == 1


def test_ids_of_32_bits(tmp_path: Path) -> None:
    session = CSession(write_own_network(tmp_path / "bundle", ids="int32"))
    outputs, _ = session.run({"input_ids": np.array([[2, 0]], np.int32)})
    np.testing.assert_array_equal(outputs["logits"][0], np.eye(SIZE)[[2, 0]])
    told = refused(lambda: session.run({"input_ids": np.array([[2, -1]], np.int32)}), INPUT)
    assert told == "input_ids: token id -1 is outside the vocabulary"


def test_null_is_told(bundle: Path) -> None:
    session = CSession(bundle)
    library, made = session.library, ctypes.byref(ctypes.c_void_p())
    calls: dict[str, list[Callable[[], int]]] = {
        "session": [
            lambda: library.xlstm_session_tensor(None, 0, ctypes.c_size_t(0), made),
            lambda: library.xlstm_session_run(None, None, ctypes.c_size_t(0), None, made, made),
            lambda: library.xlstm_states_zeros(None, ctypes.c_int64(1), made),
            lambda: library.xlstm_states_load(None, b"states", made),
        ],
        "states": [
            lambda: library.xlstm_states_copy(None, made),
            lambda: library.xlstm_states_rows(None, None, ctypes.c_size_t(0), made),
            lambda: library.xlstm_states_reset(None, None, ctypes.c_size_t(0), made),
            lambda: library.xlstm_states_save(None, b"states"),
            lambda: library.xlstm_states_read(None, made),
        ],
        "outputs": [lambda: library.xlstm_outputs_tensor(None, ctypes.c_size_t(0), made)],
    }
    for name, several in calls.items():
        for call in several:
            assert call() == INPUT
            assert library.xlstm_session_error().decode() == f"{name}: is null"


def test_what_is_no_file(bundle: Path, tmp_path: Path) -> None:
    """Nothing waits for a pipe, and what the system says of a path is told."""
    session, pipe, loop = CSession(bundle), tmp_path / "pipe", tmp_path / "loop"
    os.mkfifo(pipe)
    loop.symlink_to(loop)
    for path in (pipe, tmp_path):
        told = refused(lambda path=path: session.load(path), FILE)  # type: ignore[misc]
        assert told == f"{path}: cannot be read (it is no regular file)"
    told = refused(lambda: CSession(loop), FILE)
    assert told == f"{loop}: cannot be read (Too many levels of symbolic links)"
    assert "pipe: no such library" in refused(
        lambda: CSession(bundle, kernel_library=pipe), BACKEND
    )
    (bundle / "config.json").unlink(missing_ok=True)
    (bundle / "config.json").symlink_to(bundle / "config.json")
    told = refused(lambda: CSession(bundle), FILE)
    assert "config.json: cannot be read (Too many levels" in told
    (bundle / "config.json").unlink()
    os.mkfifo(bundle / "config.json")
    CSession(bundle)
    (bundle / "xlstm_export.json").unlink()
    os.mkfifo(bundle / "xlstm_export.json")
    assert "no xlstm_export.json, so it is not an" in refused(lambda: CSession(bundle), BUNDLE)
