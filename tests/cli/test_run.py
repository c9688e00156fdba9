"""Prompts and streams that are not what they should be."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.cli.conftest import Made
from tests.cli.terminal import OWN_PROCESS, run_cli, run_process


@pytest.mark.skipif(os.name != "posix", reason="arguments are bytes on POSIX systems only")
def test_a_prompt_that_is_no_text(made: Made) -> None:
    outcome = run_process("run", made.bundles / "hf", "--prompt", os.fsdecode(b"a\xff\xfe"))
    assert outcome.code == 2
    assert "--prompt" in outcome.err
    assert "not UTF-8 text (invalid start byte at byte 1)" in outcome.err
    assert outcome.out == ""


def test_a_prompt_beyond_ascii_in_any_locale(made: Made) -> None:
    words = ["run", made.bundles / "hf", "--prompt", "aé世", "-n", "1", "--json"]
    plain = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0"}
    done = [
        subprocess.run(
            [sys.executable, "-c", OWN_PROCESS, *map(str, words)], env=environment,
            capture_output=True, text=True, check=True,
        ).stdout.partition('"seconds"')[0]
        for environment in (plain, plain | {"PYTHONUTF8": "1"})
    ]  # fmt: skip
    assert done[0] == done[1]
    assert done[0].count(",") >= 6  # a token for each byte of the prompt


@pytest.mark.skipif(os.name != "posix", reason="needs a shell that closes streams")
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_streams_that_the_caller_closed(made: Made, closed: str) -> None:
    command = f'"$0" -c "$1" run "$2" --ids 65,66 -n 3 {closed}'
    done = subprocess.run(
        ["sh", "-c", command, sys.executable, OWN_PROCESS, made.bundles / "hf"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done
    expected = run_cli("run", made.bundles / "hf", "--ids", "65,66", "-n", "3").out
    assert done.stdout == ("" if ">&-" in closed.replace("2>&-", "") else expected)
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.name != "posix", reason="needs a shell that closes streams")
def test_a_prompt_from_a_closed_stream(made: Made) -> None:
    command = '"$0" -c "$1" run "$2" --prompt-file - <&-'
    done = subprocess.run(
        ["sh", "-c", command, sys.executable, OWN_PROCESS, made.bundles / "hf"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: the prompt is empty")
