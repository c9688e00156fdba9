"""What the C++ session library says of bundles, libraries and files that are not right."""

from __future__ import annotations

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
from xlstm_export import __version__

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


@pytest.mark.parametrize(
    "folder", [d for d in os.environ.get("XLSTM_ORT_DIRS", "").split(os.pathsep) if d]
)
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
