"""Every Python and shell block of README.md and docs/, word for word, on the shipped models."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import xlstm_export as xe
from tests.docs.run_blocks import LANGUAGES, Block, blocks, is_as_told

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
RUNNING = [
    document
    for document in DOCUMENTS
    if any(block.language in LANGUAGES and not block.skip for block in blocks(document))
]
RUNNER = Path(__file__).with_name("run_blocks.py")
SKIPPED = {
    "to set up": 5,  # installs, or builds the native part: what made this very environment
    "needs a GPU": 5,
    "needs the plugins": 1,  # tests/engine prints the command where they are built
    "runs until you stop it": 1,  # tests/serving/test_http.py starts the command
    "needs the service": 2,  # tests/serving ask as these do
    "with files of yours": 6,
    "takes a minute": 1,  # tests/recipes/test_length_extrapolation.py calls its parts
    "takes tens of minutes": 1,  # tests/validation/segments compare small models so
}
"""Why a block is not run, and how many such blocks there are."""


@pytest.fixture(scope="session")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the commands that an installed package brings."""
    folder: Path = tmp_path_factory.mktemp("commands")
    python = shlex.quote(sys.executable)
    for name, call in (("xlstm-export", "-m xlstm_export_cli.main"), ("python", "")):
        (folder / name).write_text(f'#!/bin/sh\nexec {python} {call} "$@"\n')
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture
def environment(commands: Path) -> dict[str, str]:
    path = os.pathsep.join([str(commands), os.environ["PATH"]])
    package = os.pathsep.join([str(ROOT), str(ROOT / "cli")])
    variables = {"PATH": path, "PYTHONPATH": package, "OMP_NUM_THREADS": "1"}
    return {**os.environ, **variables, "ORT_DISABLE_TELEMETRY": "1"}


@pytest.mark.parametrize("document", RUNNING, ids=lambda path: path.name)
def test_blocks_run_as_written(document: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    """In a folder that is a checkout as far as they can tell."""
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    done = subprocess.run(
        [sys.executable, RUNNER, document], cwd=tmp_path, env=environment,
        capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


def test_few_blocks_are_skipped_and_each_says_why() -> None:
    skipped = [b.skip for path in DOCUMENTS for b in blocks(path) if b.skip]
    assert {reason: skipped.count(reason) for reason in skipped} == SKIPPED


def test_every_block_has_a_language_that_is_known() -> None:
    """A block that nobody runs by a slip of the pen would be a promise that nobody keeps."""
    known = {*LANGUAGES, "text", "cmake", "cpp", "json", "yaml"}
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        fences = re.findall(r"^ *(?:```|~~~).*$", text, re.MULTILINE)
        assert len(fences) == 2 * len(blocks(path)), path
        assert {b.language for b in blocks(path)} <= known, path


@pytest.mark.parametrize(
    ("told", "printed", "same"),
    [
        ("a\n", "a\n", True),
        ("a …\n", "a 12 s\n", True),
        ("a\n…\nd\n", "a\nb\nc\nd\n", True),
        ("a\n…\n", "a\n", True),
        ("a\n", "b\n", False),
        ("a\n", "a\nb\n", False),
        ("a …\n", "b 12 s\n", False),
    ],
)
def test_what_is_told_is_compared_with_what_is_printed(told: str, printed: str, same: bool) -> None:
    assert is_as_told(told, printed) is same


AT_THE_END = """
np.save("logits.npy", logits)
print("libxlstm_ort.so" in open("/proc/self/maps").read())
"""


def _loop() -> tuple[Block, Block, Block]:
    """The loop over ONNX Runtime alone, what native kernels add to it, and how it goes on."""
    python = [b for b in blocks(ROOT / "docs" / "state-and-batching.md") if b.language == "python"]
    (example,) = [b for b in python if "for piece in" in b.code]
    (addition,) = [b for b in python if "register_custom_ops_library" in b.code]
    (in_place,) = [b for b in python if "run_with_iobinding" in b.code]
    return example, addition, in_place


@pytest.mark.parametrize("native", [False, True])
def test_the_loop_without_this_package_computes_what_a_session_does(
    tmp_path: Path, environment: dict[str, str], native: bool
) -> None:
    """By kernels or bodies; ONNX Runtime prints nothing."""
    example, addition, in_place = _loop()
    bundle = xe.export(ROOT / "recipes" / "demo" / "char_lm", tmp_path / "out" / "char_lm")
    start, loop, end = example.code.partition("for piece in")
    program = [start, addition.code, loop + end] if native else [example.code]
    program.append(in_place.code)
    done = subprocess.run(
        [sys.executable, "-c", "\n".join([*program, AT_THE_END])],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{native}\n", "")
    session, states = xe.open(bundle, threads=1, native=native), None
    for piece in re.findall(r"\[\[[\d, ]+\]\]", example.code + in_place.code):
        outputs, states = session.run({"input_ids": np.array(json.loads(piece))}, states)
    np.testing.assert_allclose(
        np.load(tmp_path / "logits.npy"), outputs["logits"], rtol=1e-4, atol=1e-5
    )
