"""Prompts and streams that are not what they should be."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Made
from tests.cli.terminal import (
    OWN_PROCESS,
    assert_short_error,
    run_cli,
    run_process,
    succeed_json,
)


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


@pytest.mark.parametrize("words", [["--prompt", "A"], ["--ids", "65"]])
def test_the_id_of_the_beginning_is_put_in_front_where_asked(
    made: Made, tmp_path: Path, words: list[str]
) -> None:
    bundle = Path(shutil.copytree(made.bundles / "hf", tmp_path / "bundle"))
    run = ["run", bundle, "-n", 1, *words]
    assert_short_error(run_cli(*run, "--bos"), "no bos_token_id in its configuration", str(bundle))
    config = json.loads((bundle / "config.json").read_text()) | {"bos_token_id": 7}
    (bundle / "config.json").write_text(json.dumps(config))
    plain = succeed_json(*run)["prompt_ids"]
    assert plain == succeed_json(*run, "--no-bos")["prompt_ids"]
    assert succeed_json(*run, "--bos")["prompt_ids"] == [7, *plain]
    (bundle / "config.json").write_text(json.dumps(config | {"force_bos_token_insert": True}))
    by_itself = [7, *plain] if "--prompt" in words else plain  # ids are taken as they are
    assert succeed_json(*run)["prompt_ids"] == by_itself
    assert succeed_json(*run, "--no-bos")["prompt_ids"] == plain
