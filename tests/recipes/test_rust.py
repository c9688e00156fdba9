"""The program in Rust, made by its page's commands and run beside Python."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.session.c_session import runtime_library
from xlstm_export.generation.generate import generate_ids
from xlstm_export.generation.sampling import Sampling
from xlstm_export.runtime.ort import OrtSession

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(
    shutil.which("rustc") is None, reason="no rustc: install a Rust compiler"
)


def test_the_page_runs_as_written(tmp_path: Path) -> None:
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    (tmp_path / "bin").mkdir()
    for name, call in (("xlstm-export", "-m xlstm_export_cli.main"), ("python", "")):
        (tmp_path / "bin" / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {call} "$@"\n')
        (tmp_path / "bin" / name).chmod(0o755)
    page = (ROOT / "recipes" / "rust" / "README.md").read_text(encoding="utf-8")
    (commands,) = re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    path = os.pathsep.join([str(tmp_path / "bin"), os.environ["PATH"]])
    package = os.pathsep.join([str(ROOT), str(ROOT / "cli")])
    done = subprocess.run(
        ["bash", "-euc", commands], cwd=tmp_path, capture_output=True, text=True, check=False,
        env=os.environ | {"PATH": path, "PYTHONPATH": package},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    bundle, prompt = tmp_path / "out" / "char_lm", [3, 1, 4, 1, 5]
    session = OrtSession(bundle, threads=1)
    expected = list(generate_ids(session, prompt, 2000, Sampling()))
    assert [int(word) for word in done.stdout.splitlines()[-1].split()] == expected[:20]
    program = [tmp_path / "build" / "generate-rs", runtime_library(), bundle]
    made = subprocess.run([*program, "2000", *map(str, prompt)], capture_output=True, text=True)
    assert [int(word) for word in made.stdout.split()] == expected
    for words, told in (
        (["3", "x"], 'error: "x": expected a whole number\n'),
        (["3", "999"], "error: prompt: token id 999 is outside the vocabulary"),
        (["3"], "error: the prompt is empty; give at least one id\n"),
    ):
        wrong = subprocess.run([*program, *words], capture_output=True, text=True, check=False)
        assert wrong.returncode == 1
        assert wrong.stderr.startswith(told)
