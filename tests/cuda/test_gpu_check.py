"""What tests/gpu/check.py does on a GPU machine, rehearsed on the emulator."""

from __future__ import annotations

import json
import lzma
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cuda.on_cpu import ROOT, build, needs_compiler
from tests.gpu.check import Place, engines, join
from tests.gpu.driver import DRIVER_VARIABLE
from tests.gpu.kernels import LIBRARY
from tests.gpu.prepare import PART_BYTES, cut, parts

pytestmark = needs_compiler


@pytest.fixture
def part(tmp_path: Path) -> Path:
    """A part with the emulator in the kernels' place."""
    folder = tmp_path / "part1" / "lib"
    folder.mkdir(parents=True)
    (folder / LIBRARY).symlink_to(build() / "libxlstm_cuda_on_cpu.so")
    return folder.parent


def check(part: Path, *words: str) -> subprocess.CompletedProcess[str]:
    driver = {DRIVER_VARIABLE: str(build() / "libxlstm_cuda_on_cpu.so")}
    command = [sys.executable, "-m", "tests.gpu.check", str(part), "--place",
               str(part.parent / "place"), "--workers", "1", *words]  # fmt: skip
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | driver, capture_output=True, text=True, check=False
    )


def test_steps_pass_and_leave_a_document(part: Path) -> None:
    document = part.parent / "check.json"
    done = check(part, "--only", "tests", "engines", "--json", str(document),
                 "--select", "test_kernel_obeys_the_rule and B4T7 and bfloat16")  # fmt: skip
    assert "passed" in done.stdout, done.stdout + done.stderr
    content = json.loads(document.read_text())
    outcomes = {step["step"]: step for step in content["steps"]}
    assert outcomes["tests"]["outcome"] == "passed", outcomes
    assert outcomes["engines"] == {
        "step": "engines", "outcome": "not run", "seconds": 0,
        "words": "TensorRT-RTX's library has not come whole",
    }  # fmt: skip
    assert content["timings"] is None


def test_skipped_tests_are_a_failure(part: Path) -> None:
    (part / "lib" / LIBRARY).unlink()
    done = check(part, "--only", "tests", "--select", "test_threads")
    assert done.returncode == 1
    assert "skipped" in done.stdout


def test_a_step_ends_with_its_time(part: Path) -> None:
    done = check(part, "--only", "tests", "--seconds", "0.5")
    assert done.returncode == 1
    assert "no time left" in done.stdout


def test_pieces_are_joined_once_all_are_there(tmp_path: Path) -> None:
    whole = os.urandom(PART_BYTES // 2 + 1000)
    target = tmp_path / "rtx" / "libtensorrt_rtx.so.1"
    target.parent.mkdir()
    cut(lzma.compress(whole, preset=0), target.with_name(f"{target.name}.xz"))
    cut(whole, tmp_path / "a-1.0-py3.whl")
    first, second = sorted(target.parent.iterdir())
    last = second.read_bytes()
    second.unlink()
    join(tmp_path)
    assert not target.exists()
    assert (tmp_path / "a-1.0-py3.whl").read_bytes() == whole
    second.write_bytes(last)
    join(tmp_path)
    assert target.read_bytes() == whole
    assert not first.exists()


def test_parts_keep_the_kernels_first_and_their_size(tmp_path: Path) -> None:
    for name, size in (("rtx/a", PART_BYTES - 10), ("lib/b", 100), ("onnxruntime/c", 5)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        with (tmp_path / name).open("wb") as file:
            file.truncate(size)
    made = [[path.name for path in part] for part in parts(tmp_path)]
    assert made == [["b"], ["a", "c"]]


def test_engines_wait_for_their_library(tmp_path: Path) -> None:
    (outcome,) = engines(Place(tmp_path, 0))
    assert outcome.outcome == "not run"
