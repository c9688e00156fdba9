"""The C++ example, compiled and run beside Python's generation of the same bundle."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import onnxruntime
import pytest

from tests.model_cases import BY_ID, Library
from tests.plugins.ort_sanitized import ort_headers
from xlstm_export.generation.generate import Sampling, generate
from xlstm_export.native import ort_library_path
from xlstm_export.runtime.ort import OrtSession

SOURCE = Path(__file__).resolve().parents[2] / "recipes" / "cpp" / "generate.cpp"
IDS, STEPS = [3, 1, 4, 1, 5], 12


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, linked with the installed ONNX Runtime under the name of a release's library."""
    folder = tmp_path_factory.mktemp("cpp")
    installed = Path(onnxruntime.__file__).parent / "capi"
    library = folder / "libonnxruntime.so.1"
    library.symlink_to(next(installed.glob("libonnxruntime.so.1.*")))
    compiler = os.environ.get("CXX") or next(filter(shutil.which, ("c++", "g++", "clang++")))
    command = [
        compiler, "-std=c++17", "-Wall", "-Wextra", "-Werror", "-isystem", ort_headers(), SOURCE,
        "-o", folder / "generate", library, f"-Wl,-rpath,{folder}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "generate"


def run(program: Path, *words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, *map(str, words)], capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("case", ["hf-plain", "stack-mixed"])
def test_it_generates_what_python_does(
    library: Library, program: Path, case: str, native: bool
) -> None:
    bundle = library.bundle(BY_ID[case])
    kernels = ort_library_path() if native else "-"
    done = run(program, bundle, STEPS, kernels, *IDS)
    assert (done.returncode, done.stderr) == (0, "")
    expected = generate(OrtSession(bundle, native=native), IDS, STEPS, Sampling())
    assert [int(word) for word in done.stdout.split()] == list(expected)


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ((), 2, "usage:"),
        (("/nowhere", 3, "-", 1), 1, "error: Load model"),
        (("/nowhere", 3, "/nowhere.so", 1), 1, "/nowhere.so"),
    ],
)
def test_mistakes(program: Path, words: tuple[object, ...], code: int, told: str) -> None:
    done = run(program, *words)
    assert done.returncode == code
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1
