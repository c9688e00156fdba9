"""How the command line starts and ends: help, early signals, closed pipes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Made
from tests.cli.terminal import OWN_PROCESS, succeed

COMMANDS = ("inspect", "export", "build", "validate", "run", "recipes", "doctor")
INTERRUPTED_IMPORT = """
import builtins, os, signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # the tests may run in the background
find = builtins.__import__
def load(name, *rest, **options):
    if name == {name!r}:
        os.kill(os.getpid(), signal.SIGINT)
    return find(name, *rest, **options)
builtins.__import__ = load
"""


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)])
def test_h_is_help(command: tuple[str, ...]) -> None:
    assert succeed(*command, "-h") == succeed(*command, "--help")


@pytest.mark.parametrize(
    ("name", "command"),
    [("typer", "doctor"), ("rich.console", "doctor"), ("numpy", "inspect"), ("onnx", "export")],
)
def test_interrupted_while_it_starts(made: Made, tmp_path: Path, name: str, command: str) -> None:
    """Or when a command loads what it needs."""
    words = {
        "doctor": [], "inspect": [made.checkpoints / "stack"],
        "export": [made.checkpoints / "stack", "-o", tmp_path / "out"],
    }[command]  # fmt: skip
    program = INTERRUPTED_IMPORT.format(name=name) + OWN_PROCESS
    done = subprocess.run(
        [sys.executable, "-c", program, command, *words],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.strip() == "error: interrupted (SIGINT)"


def test_the_commands_are_imported_inside_the_guard() -> None:
    """And come without frameworks and graph libraries, which take long to start."""
    code = "import sys, xlstm_export_cli.main\nprint(*sys.modules)\n"
    code += "import xlstm_export_cli.app\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    before, after = ({name.partition(".")[0] for name in line.split()} for line in done)
    assert not before & {"typer", "rich", "numpy", "onnx"}
    frameworks = {"torch", "onnxruntime", "xlstm", "transformers", "tokenizers", "huggingface_hub"}
    assert "typer" in after
    assert not after & {*frameworks, "onnx_ir", "sympy"}


@pytest.mark.skipif(os.name != "posix", reason="SIGPIPE is a signal of POSIX systems")
@pytest.mark.parametrize(
    "words",
    [
        "inspect {stack}",
        "inspect {stack} --json",
        "--help",
        "run {bundle} --ids 65 -n 3",
        "validate {bundle} --reference {hf}",
        "validate {bundle} --reference {hf} --json",
        "export {stack} -o {out}",
    ],
)
def test_a_reader_that_is_gone(made: Made, tmp_path: Path, words: str) -> None:
    """The work is done, and the code is that of SIGPIPE, not that of an error or a verdict."""
    out = tmp_path / "out"
    places = {
        "stack": made.checkpoints / "stack", "hf": made.checkpoints / "hf",
        "bundle": shutil.copytree(made.bundles / "hf", tmp_path / "bundle"), "out": out,
    }  # fmt: skip
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [sys.executable, "-c", OWN_PROCESS, *words.format(**places).split()],
            stdout=write, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    finally:
        os.close(write)
    told = [line for line in done.stderr.splitlines() if not line.startswith("validate ")]
    assert (done.returncode, told) == (128 + signal.SIGPIPE, [])  # progress, on a slow machine
    assert (out / "xlstm_export.json").is_file() == words.startswith("export")


def test_the_package_is_a_program(made: Made) -> None:
    """``python -m xlstm_export`` is the command under its own name."""
    done = subprocess.run(
        [sys.executable, "-m", "xlstm_export", "inspect", made.checkpoints / "stack"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == succeed("inspect", made.checkpoints / "stack")
    wrong = subprocess.run(
        [sys.executable, "-m", "xlstm_export", "expor"], capture_output=True, text=True, check=False
    )
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("Usage: xlstm-export ")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete(shell: str) -> None:
    """The script that a shell reads, and what it then asks for."""
    # by name: the shell that runs the tests may be another, or none that completes
    named = {**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    command = [sys.executable, "-c", OWN_PROCESS, "--show-completion", shell]
    script = subprocess.run(command, capture_output=True, text=True, check=True, env=named).stdout
    assert "_XLSTM_EXPORT_COMPLETE" in script
    assert "xlstm-export" in script
    asked = {
        "bash": {"COMP_WORDS": "xlstm-export ex", "COMP_CWORD": "1"},
        "zsh": {"_TYPER_COMPLETE_ARGS": "xlstm-export ex"},
        "fish": {
            "_TYPER_COMPLETE_ARGS": "xlstm-export ex",
            "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        },
    }[shell]
    done = subprocess.run(
        [sys.executable, "-c", OWN_PROCESS], capture_output=True, text=True, check=False,
        env={**os.environ, **asked, "_XLSTM_EXPORT_COMPLETE": f"complete_{shell}"},
    )  # fmt: skip
    assert done.returncode == 0, done
    assert "export" in done.stdout
    assert "validate" not in done.stdout
