"""The command line as a user meets it: words in; exit code, stdout and stderr out."""

from __future__ import annotations

import contextlib
import io
import json
import math
import subprocess
import sys
from typing import Any, NamedTuple
from unittest import mock

from xlstm_export_cli import console
from xlstm_export_cli.main import main

OWN_PROCESS = "from xlstm_export_cli.main import main; main()"


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


def run_cli(*words: object, stdin: bytes = b"") -> Outcome:
    """``xlstm-export WORDS`` in this process; no line of progress, however slow it is today."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin))),
        mock.patch.object(console, "_SILENCE_S", math.inf),
    ):
        try:
            main([str(word) for word in words])
        except SystemExit as stop:
            code = int(stop.code or 0)
    return Outcome(code, out.getvalue(), err.getvalue())


def run_process(*words: object, program: str = OWN_PROCESS) -> Outcome:
    """The same in a process of its own."""
    command = [sys.executable, "-c", program, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return Outcome(done.returncode, done.stdout, done.stderr)


def succeed(*words: object, stdin: bytes = b"") -> str:
    """Stdout of a command that must succeed, and say nothing but progress elsewhere."""
    outcome = run_cli(*words, stdin=stdin)
    assert outcome.code == 0, outcome
    return outcome.out


def succeed_json(*words: object) -> Any:
    """The JSON document that a command prints, and nothing else."""
    outcome = run_cli(*words, "--json")
    assert (outcome.code, outcome.err) == (0, ""), outcome
    return json.loads(outcome.out, parse_constant=_refuse)


def assert_short_error(outcome: Outcome, *words: str, code: int = 1) -> None:
    """A few lines on stderr that contain ``words``, no traceback, nothing on stdout."""
    assert outcome.code == code, outcome
    assert outcome.out == ""
    assert outcome.err.startswith("error: "), outcome.err
    assert len(outcome.err.strip().splitlines()) <= 10, outcome.err
    assert "Traceback" not in outcome.err
    for word in words:
        assert word in outcome.err, (word, outcome.err)


def _refuse(word: str) -> None:
    raise AssertionError(f"{word} is no JSON")
