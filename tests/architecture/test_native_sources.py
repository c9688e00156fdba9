"""Rules of the C++ part: what may be included, how long a file is, which flags are out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from xlstm_export.native import FOLDER_VARIABLE, ISA_VARIABLE

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = ROOT / "plugins"
SUFFIXES = {".h", ".cpp", ".cu", ".cuh"}
SOURCES = sorted(path for path in PLUGINS.rglob("*") if path.suffix in SUFFIXES)
OF_TESTS = sorted(path for path in (ROOT / "tests").rglob("*") if path.suffix in SUFFIXES)
BUILD_FILES = sorted([ROOT / "CMakeLists.txt", *PLUGINS.rglob("CMakeLists.txt")])
MOST_LINES = {".cu": 500}
FRAMEWORKS = re.compile(r"torch|aten|onnx|nvinfer|tensorrt|ort/|triton", re.IGNORECASE)
WRONG_FLAGS = ("fast-math", "-Ofast", "-funsafe-math", "-fassociative-math", "use_fast_math")
CHOICES = sorted((ROOT / "plugins" / "kernels" / "cuda").glob("*/choose.cpp"))
VARIABLES = {FOLDER_VARIABLE, ISA_VARIABLE} | {
    word for path in CHOICES for word in re.findall(r"XLSTM_CUDA_[A-Z0-9]+", path.read_text())
}


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


@pytest.mark.parametrize("path", [*SOURCES, *OF_TESTS], ids=names([*SOURCES, *OF_TESTS]))
def test_source_is_small(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= MOST_LINES.get(path.suffix, 400)
    assert max(map(len, lines)) <= 100


def test_kernels_know_no_framework() -> None:
    kernels = [path for path in SOURCES if path.is_relative_to(PLUGINS / "kernels")]
    assert len(kernels) > 5
    found = {
        (path.name, header)
        for path in kernels
        for header in re.findall(r'#\s*include\s*[<"]([^>"]+)', path.read_text(encoding="utf-8"))
        if FRAMEWORKS.search(header)
    }
    assert not found


def test_no_flag_that_changes_arithmetic() -> None:
    """-ffast-math broke the exponential silently (0.3 error); it stays out, by any name."""
    files = [*SOURCES, *BUILD_FILES, *PLUGINS.rglob("*.cmake"), *PLUGINS.rglob("*.sh")]
    files += [ROOT / "Makefile", ROOT / "pyproject.toml"]
    texts = {path: path.read_text(encoding="utf-8") for path in files}
    assert not [(p, flag) for p, text in texts.items() for flag in WRONG_FLAGS if flag in text]


def test_sources_read_the_variables_that_python_names() -> None:
    texts = [path.read_text(encoding="utf-8") for path in SOURCES]
    read = {name for text in texts for name in re.findall(r'getenv\("(\w+)"\)', text)}
    assert read == {ISA_VARIABLE}


def test_documents_name_variables_that_exist() -> None:
    """Every XLSTM_ word of a document is a variable of the package, of CMake or of make."""
    build = "".join(path.read_text(encoding="utf-8") for path in (*BUILD_FILES, ROOT / "Makefile"))
    known = VARIABLES | set(re.findall(r"XLSTM_[A-Z0-9_]+", build))
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "benchmarks/README.md"]
    named = {
        (path.name, word)
        for path in documents
        for word in re.findall(r"XLSTM_[A-Z0-9_]+", path.read_text(encoding="utf-8"))
    }
    assert {word for _, word in named} >= VARIABLES
    assert not {(name, word) for name, word in named if word not in known}
