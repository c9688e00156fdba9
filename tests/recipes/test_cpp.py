"""The programs in C++, made by their page's commands and run beside Python."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xlstm_export as xe
from tests.model_cases import BY_ID, Library
from tests.plugins.sanitized import ADDRESS, QUIET, REPORTS
from tests.session.c_session import runtime_library
from tests.session.sanitized_session import installed
from xlstm_export.bundle.bundle import Bundle
from xlstm_export.errors import BackendUnavailableError
from xlstm_export.generation.generate import generate_ids
from xlstm_export.generation.sampling import Sampling
from xlstm_export.runtime.ort import OrtSession

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "recipes" / "demo"
IDS, LONG = [3, 1, 4, 1, 5], 2000


def blocks() -> list[str]:
    """The page's commands: make and generate, forecast."""
    text = (ROOT / "recipes" / "cpp" / "README.md").read_text(encoding="utf-8")
    return re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with its libraries where nothing else has been made, and a page's commands."""
    if shutil.which("cmake") is None:
        pytest.skip("no cmake: install it")
    folder: Path = tmp_path_factory.mktemp("checkout")
    (folder / "recipes").symlink_to(ROOT / "recipes")
    (folder / "bin").mkdir()
    for name, call in (("xlstm-export", "-m xlstm_export_cli.main"), ("python", "")):
        (folder / "bin" / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {call} "$@"\n')
        (folder / "bin" / name).chmod(0o755)
    return folder


def run(*words: object, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*map(str, words)], capture_output=True, text=True, check=False, timeout=300, **options
    )


def in_clean_shell(checkout: Path, commands: str) -> list[str]:
    """The lines that ``commands`` print, in an environment with little but a PATH."""
    package = os.pathsep.join([str(ROOT), str(ROOT / "cli")])
    environment = {"PATH": f"{checkout / 'bin'}:{os.defpath}", "HOME": str(checkout)}
    environment |= {"PYTHONPATH": package, "CXXFLAGS": "-Wall -Wextra -Werror"}
    done = run("bash", "-euc", commands, cwd=checkout, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def said(checkout: Path) -> list[str]:
    """What the page's commands print, the first block's and the second's."""
    first, second = blocks()[:2]
    runtime = next(line for line in first.splitlines() if line.startswith("runtime="))
    made = in_clean_shell(checkout, first)
    return [made[-1], *in_clean_shell(checkout, f"{runtime}\n{second}")[-4:]]


@pytest.fixture(scope="module")
def programs(checkout: Path, said: list[str]) -> Path:
    """Their folder, as the page's commands made them."""
    return checkout / "build" / "cpp"


def expected(bundle: Path, count: int, *, native: bool = True) -> list[int]:
    session = OrtSession(bundle, native=native, threads=1)
    return list(generate_ids(session, IDS, count, Sampling()))


def quantiles(lines: list[str]) -> np.ndarray[Any, Any]:
    return np.array([[float(word) for word in line.split()] for line in lines], np.float32)


def test_the_page_runs_as_written(checkout: Path, said: list[str]) -> None:
    ids, levels, *steps = said
    assert [int(word) for word in ids.split()] == expected(checkout / "out" / "char_lm", 20)
    found = xe.forecast(checkout / "out" / "forecaster", np.arange(1, 101, dtype=np.float32), 3)
    assert [float(word) for word in levels.split()] == list(found.levels)
    np.testing.assert_allclose(quantiles(steps), found.quantiles[0], rtol=1e-6)


@pytest.mark.parametrize("native", [False, True])
def test_two_thousand_ids_are_pythons(checkout: Path, programs: Path, native: bool) -> None:
    bundle = checkout / "out" / "char_lm"
    words = ["--runtime", runtime_library(), *([] if native else ["--no-kernels"])]
    done = run(programs / "generate", *words, bundle, LONG, *IDS)
    assert done.returncode == 0, done.stderr
    assert [int(word) for word in done.stdout.split()] == expected(bundle, LONG, native=native)
    assert ("native CPU kernels" in done.stderr) == native


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "usage: generate "),
        (("{bundle}", 3), "usage: generate "),
        (("--fast", "{bundle}", 3, 1), "--fast: no such option"),
        (("--engine",), "--engine: expected a value behind it"),
        (("{bundle}", "x", 1), 'COUNT "x": expected a whole number'),
        (("{bundle}", 3, "1,2"), 'ID "1,2": expected a whole number'),
        (("{bundle}", 3, 10**30), "expected a whole number"),
        (("{bundle}", 3, 199), "prompt: token id 199 is outside the vocabulary of 199"),
        (("/nowhere", 3, 1), "/nowhere: no such folder; make a bundle with"),
        (("{bare}", 3, 1), "takes inputs_embeds and yields last_hidden_state: it generates no"),
        (("--runtime", "/nowhere.so", "{bundle}", 3, 1), "/nowhere.so: cannot be loaded"),
    ],
)
def test_mistakes_are_told_in_a_line(
    library: Library, programs: Path, words: tuple[object, ...], told: str
) -> None:
    places = {name: library.bundle(BY_ID[f"stack-{case}"])
              for name, case in (("bundle", "mixed"), ("bare", "bare"))}  # fmt: skip
    given = [str(word).format(**places) for word in words]
    first = [] if "--runtime" in given else ["--runtime", runtime_library()]
    done = run(programs / "generate", *first, *given)
    assert (done.returncode, done.stdout) == (1, "")
    *_, line = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert told in line


def test_a_series_must_be_numbers(checkout: Path, programs: Path) -> None:
    command = [programs / "forecast", "--runtime", runtime_library(), checkout / "out/forecaster"]
    done = run(*command, 3, input="1 2 x")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == 'error: "x": expected a number'
    done = run(*command, 3, input="")
    assert done.stderr.splitlines()[-1] == "error: series 0: has no steps"


def test_an_engine_needs_a_driver(checkout: Path, programs: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(checkout / "out" / "char_lm", tmp_path / "bundle"))
    engine = ["--engine", "tensorrt_rtx-sm89"]
    done = run(programs / "generate", *engine, bundle, 3, 1)
    assert f"tensorrt_rtx-sm89: no engine of {bundle}; make one: xlstm-export build" in done.stderr
    (bundle / "engines").mkdir()
    (bundle / "engines" / "tensorrt_rtx-sm89.engine").touch()
    record = {
        "format_version": 1, "backend": "tensorrt_rtx", "builder_version": "1.7.1.116",
        "compute_capability": ["8.9"], "plugins": [],
        "bundle_sha256": Bundle.open(bundle).sha256(),
        "plugin_library": {"name": "libxlstm_trt.so", "version": "0", "embedded": True},
    }  # fmt: skip
    (bundle / "engines" / "tensorrt_rtx-sm89.json").write_text(json.dumps(record))
    done = run(programs / "generate", *engine, bundle, 3, 1)
    assert done.returncode == 1
    if not Path("/dev/nvidiactl").exists():
        assert done.stderr.startswith("error: none of libcuda.so.1 is found; engines run on an NV")


def test_under_address_sanitizer(checkout: Path, said: list[str], tmp_path: Path) -> None:
    """Against what ``cmake --install`` laid out, found by its prefix."""
    prefix = installed(ADDRESS, tmp_path / "prefix")
    flags = f"-fsanitize={ADDRESS.flags} -fno-sanitize-recover=all -g1 -O1 {QUIET}"
    settings = [f"-DCMAKE_PREFIX_PATH={prefix}", f"-DCMAKE_CXX_FLAGS={flags}"]
    compiler = "-DCMAKE_CXX_COMPILER=g++"
    source = ROOT / "recipes" / "cpp"
    done = run("cmake", "-S", source, "-B", tmp_path / "build", *settings, compiler)
    assert done.returncode == 0, done.stderr
    done = run("cmake", "--build", tmp_path / "build", "--parallel")
    assert done.returncode == 0, done.stdout + done.stderr
    bundle, series = checkout / "out" / "char_lm", " ".join(map(str, range(100)))
    words = ["--runtime", runtime_library()]
    made = run(tmp_path / "build" / "generate", *words, bundle, LONG, *IDS)
    assert made.returncode == 0, made.stderr
    assert [int(word) for word in made.stdout.split()] == expected(bundle, LONG)
    told = run(
        tmp_path / "build" / "forecast", *words, bundle.parent / "forecaster", 60, input=series
    )
    assert told.returncode == 0, told.stderr
    wrong = run(tmp_path / "build" / "generate", *words, bundle, 5, 10**6)
    assert wrong.returncode == 1
    for report in REPORTS:
        assert report not in made.stderr + told.stderr + wrong.stderr


def test_the_package_says_where_cmake_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xlstm_export import native

    assert (xe.cmake_dir() / "xlstm-config.cmake").is_file()
    monkeypatch.setattr(native, "__file__", str(tmp_path / "native.py"))
    with pytest.raises(BackendUnavailableError, match=r"no xlstm-config\.cmake, since"):
        xe.cmake_dir()


@pytest.mark.parametrize(("component", "is_there"), [("c", True), ("ort", True), ("none", False)])
def test_components(checkout: Path, tmp_path: Path, component: str, is_there: bool) -> None:
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.21)\nproject(probe LANGUAGES CXX)\n"
        f"find_package(xlstm CONFIG REQUIRED COMPONENTS {component})\n"
        f"get_target_property(place xlstm::{component} LOCATION)\nmessage(STATUS ${{place}})\n"
    )
    build = tmp_path / "build"
    done = run("cmake", "-S", tmp_path, "-B", build, f"-Dxlstm_DIR={xe.cmake_dir()}")
    if is_there:
        place = xe.cmake_dir().parent / "lib" / f"libxlstm_{component}.so"
        assert f"-- {place}\n" in done.stdout
    else:
        assert done.returncode == 1
        assert f"has no libxlstm_{component}.so" in " ".join(done.stderr.split())
