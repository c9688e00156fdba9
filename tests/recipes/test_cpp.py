"""The C++ example, made by its page's commands and run beside Python's generation."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.model_cases import BY_ID, Library
from tests.plugins.ort_sanitized import ort_headers
from xlstm_export.generation.generate import generate_ids
from xlstm_export.generation.sampling import Sampling
from xlstm_export.native import ort_library_path
from xlstm_export.runtime.ort import OrtSession

ROOT = Path(__file__).resolve().parents[2]
IDS, STEPS = [3, 1, 4, 1, 5], 12
CANDIDATES = (os.environ.get("CXX", "c++"), "g++", "clang++")
COMPILER = next(filter(None, map(shutil.which, CANDIDATES)), "c++")
FETCH = "sh plugins/fetch_onnxruntime_headers.sh build/onnxruntime-headers\n"
OTHER_OPTIONS: list[dict[str, object]] = [
    {"ragged": True},
    {"logits": "last"},
    {"state_names": "genai"},
    {"state_names": "edgellm", "ragged": True, "logits": "last"},
    {"dtype": "float16"},
]
# the first function of ONNX Runtime's base table gives no table of that version, the second a name
OLD_RUNTIME = """
static const void* no_table(unsigned version) { (void)version; return 0; }
static const char* name(void) { return "1.2.3"; }
static const struct { const void* (*table)(unsigned); const char* (*name)(void); } base =
    {no_table, name};
const void* OrtGetApiBase(void) { return &base; }
"""


def blocks() -> list[str]:
    """The page's commands: make and run, run with native kernels."""
    text = (ROOT / "recipes" / "cpp" / "README.md").read_text(encoding="utf-8")
    return re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout where nothing has been made yet but the headers, and the commands of a page."""
    folder: Path = tmp_path_factory.mktemp("checkout")
    for name in ("recipes", "xlstm_export"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "build").mkdir()
    (folder / "build" / "onnxruntime-headers").symlink_to(ort_headers())
    main = "from xlstm_export_cli.main import main; raise SystemExit(main())"
    commands = {
        "python": f'"{sys.executable}"',
        "xlstm-export": f'"{sys.executable}" -c "{main}"',
        "c++": f"{COMPILER} -Wall -Wextra -Werror",
    }
    (folder / "bin").mkdir()
    for name, words in commands.items():
        (folder / "bin" / name).write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        (folder / "bin" / name).chmod(0o755)
    return folder


def in_clean_shell(checkout: Path, commands: str) -> str:
    """The last line of what ``commands`` print, in an environment with nothing but a PATH."""
    done = subprocess.run(
        ["bash", "-euc", commands], cwd=checkout,
        env={"PATH": f"{checkout / 'bin'}:{os.defpath}", "HOME": str(checkout)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def said(checkout: Path) -> str:
    """What the page's first block ends with."""
    first, _ = blocks()
    # what fetches the headers is what ort_headers runs
    assert first.startswith(FETCH)
    return in_clean_shell(checkout, first.removeprefix(FETCH))


@pytest.fixture(scope="module")
def program(checkout: Path, said: str) -> Path:
    """The example, as the page's commands made it."""
    return checkout / "build" / "cpp" / "generate"


def expected(bundle: Path, steps: int, *, native: bool) -> list[int]:
    return list(generate_ids(OrtSession(bundle, native=native), IDS, steps, Sampling()))


def run(program: Path, *words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, *map(str, words)], capture_output=True, text=True, check=False, timeout=60,
        env=environment,
    )  # fmt: skip


def test_the_page_runs_as_written(checkout: Path, said: str) -> None:
    bundle = checkout / "out" / "char_lm"
    assert [int(word) for word in said.split()] == expected(bundle, 20, native=False)
    native = in_clean_shell(checkout, blocks()[1])
    assert [int(word) for word in native.split()] == expected(bundle, 20, native=True)


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize(
    ("case", "options"),
    [("hf-plain", {}), ("stack-mixed", {}), *(("stack-mixed", other) for other in OTHER_OPTIONS)],
)
def test_it_generates_what_python_does(
    library: Library, program: Path, case: str, options: dict[str, Any], native: bool
) -> None:
    bundle = library.bundle(BY_ID[case], **options)
    done = run(program, bundle, STEPS, ort_library_path() if native else "-", *IDS)
    assert (done.returncode, done.stderr) == (0, "")
    assert [int(word) for word in done.stdout.split()] == expected(bundle, STEPS, native=native)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("/nowhere", 3, "-", 1), "/nowhere/xlstm_export.json: No such file or directory; make a"),
        (("{bundle}", 3, "/nowhere.so", 1), "/nowhere.so: no such library; - does without one"),
        (("{bundle}", 3, "{bundle}/model.onnx", 1), "model.onnx: invalid ELF header"),
        (("{bundle}", "x", "-", 1), 'STEPS "x": expected a whole number from 1'),
        (("{bundle}", 0, "-", 1), 'STEPS "0": expected a whole number from 1'),
        (("{bundle}", 3, "-", 1, "two"), 'ID "two": expected a whole number from 0 to 198'),
        (("{bundle}", 3, "-", "1,2"), 'ID "1,2": expected a whole number from 0 to 198'),
        (("{bundle}", 3, "-", -1), 'ID "-1": expected a whole number from 0 to 198'),
        (("{bundle}", 3, "-", 199), 'ID "199": expected a whole number from 0 to 198'),
        (("{bundle}", 3, "-", 10**30), "expected a whole number from 0 to 198"),
        (("{bare}", 3, "-", 1), "xlstm_export.json: no language model"),
    ],
)
def test_mistakes_are_told_in_a_line(
    library: Library, program: Path, words: tuple[object, ...], told: str
) -> None:
    places = {name: library.bundle(BY_ID[f"stack-{case}"])
              for name, case in (("bundle", "mixed"), ("bare", "bare"))}  # fmt: skip
    done = run(program, *(str(word).format(**places) for word in words))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_too_few_words(program: Path) -> None:
    done = run(program)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: ")


def _set(**changes: object) -> Callable[[Path], object]:
    """Change keys of the manifest; those of a state as well as its own."""

    def change(bundle: Path) -> None:
        path = bundle / "xlstm_export.json"
        content = json.loads(path.read_text())
        for entry in (content, *content["states"]):
            entry.update((key, value) for key, value in changes.items() if key in entry)
        path.write_text(json.dumps(content))

    return change


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda b: (b / "model.onnx").unlink(), "model.onnx"),
        (lambda b: (b / "model.onnx.data").unlink(), "model.onnx.data"),
        (lambda b: (b / "xlstm_export.json").write_text('{"states": [1,}'), "byte 14: expected a"),
        (lambda b: (b / "xlstm_export.json").write_text("[" * 10**5), "expected less depth"),
        (lambda b: (b / "xlstm_export.json").write_text("{}"), 'no "format_version"'),
        (_set(format_version=2), "format_version is newer than this program"),
        (_set(states=3), '"states" is of another type'),
        (_set(init="ones"), "init ones"),
        (_set(dtype="float8"), "dtype float8"),
        (_set(output="present.nothing"), "present.nothing"),
    ],
)
def test_damage_is_told_in_a_line(
    library: Library, program: Path, tmp_path: Path, damage: Callable[[Path], object], told: str
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(library.bundle(BY_ID["stack-mixed"]), bundle)
    damage(bundle)
    done = run(program, bundle, 3, "-", 1)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_runtime_older_than_the_headers_is_refused(program: Path, tmp_path: Path) -> None:
    """By its name; ONNX Runtime's own headers would read a table that is not there."""
    source, old = tmp_path / "old.c", tmp_path / "libonnxruntime.so.1"
    source.write_text(OLD_RUNTIME)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", old, source], check=True)
    recipe = ROOT / "recipes" / "cpp" / "generate.cpp"
    command = [COMPILER, "-std=c++17", "-isystem", ort_headers(), recipe, old]
    subprocess.run([*command, "-o", tmp_path / "old", f"-Wl,-rpath,{tmp_path}"], check=True)
    done = run(tmp_path / "old", "/nowhere", 3, "-", 1)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "error: ONNX Runtime 1.2.3 is older than the headers this program was compiled with\n"
    )
