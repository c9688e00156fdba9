"""What a machine or a bundle lacks is said in a few lines; the builder's end is an error."""

from __future__ import annotations

import errno
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.cli.terminal import OWN_PROCESS, assert_short_error, run_cli, succeed
from xlstm_export.engine import backend, process, worker
from xlstm_export.engine.profiles import parse_shapes
from xlstm_export.errors import EngineError
from xlstm_export.native import FOLDER_VARIABLE, c_library_path

RTX = ("--backend", "tensorrt_rtx")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both builders and a GPU seem to be here."""
    monkeypatch.setattr(backend, "_installed", lambda _: True)
    monkeypatch.setattr(backend, "device_capability", lambda: "8.9")


@pytest.mark.parametrize("option", ["--fp16", "--bf16", "--int8", "--fp8", "--best"])
def test_precision_is_chosen_at_export(bundle: Path, option: str) -> None:
    outcome = run_cli("build", bundle, option)
    assert outcome.code == 2
    assert "export" in outcome.err
    assert "--dtype" in outcome.err


@pytest.mark.skipif(
    importlib.util.find_spec("tensorrt") is not None, reason="TensorRT is installed here"
)
def test_without_tensorrt(bundle: Path) -> None:
    outcome = run_cli("build", bundle, "--backend", "tensorrt")
    assert_short_error(outcome, "pip install 'tensorrt>=", "tensorrt_rtx", "needs no GPU")


def test_without_a_gpu(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "_installed", lambda _: True)
    monkeypatch.setattr(backend, "device_capability", lambda: None)
    outcome = run_cli("build", bundle, "--backend", "tensorrt")
    assert_short_error(outcome, "no NVIDIA GPU", "--backend tensorrt_rtx")


@pytest.mark.parametrize(
    ("name", "package"), [("tensorrt", "tensorrt"), ("tensorrt_rtx", "tensorrt-rtx")]
)
def test_without_polygraphy(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, name: str, package: str
) -> None:
    monkeypatch.setattr(backend, "_installed", lambda module: module != "polygraphy")
    outcome = run_cli("build", bundle, "--backend", name)
    assert_short_error(outcome, f"pip install '{package}>=", "'polygraphy>=")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--backend tensorrt --compute-capability 8.9", "for --backend tensorrt_rtx"),
        ("--backend tensorrt_rtx --timing-cache x", "for --backend tensorrt"),
        ("--backend tensorrt_rtx --max-batch-size 0", "--max-batch-size 0"),
        ("--backend tensorrt_rtx --max-shapes input_ids:1x1x1", "rank 3"),
        ("--backend tensorrt_rtx --max-shapes input_ids", "input_ids"),
    ],
)
@pytest.mark.usefixtures("installed", "builder")
def test_options_that_do_not_go_together(bundle: Path, words: str, message: str) -> None:
    assert_short_error(run_cli("build", bundle, *words.split()), message)


@pytest.mark.usefixtures("installed", "builder")
def test_a_timing_cache_that_cannot_be_used(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told before the builder starts: it would fail when the engine is built."""
    sealed = tmp_path / "sealed.cache"
    sealed.touch()
    opened = Path.open

    def refuse(path: Path, *arguments: Any, **others: Any) -> Any:
        if path == sealed:  # root may read what nobody else may
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(path, *arguments, **others)

    monkeypatch.setattr(Path, "open", refuse)
    for cache, told in (
        (tmp_path / "none" / "x.cache", "No such file or directory"),
        (Path("/proc/x.cache"), ""),  # nobody can write there
        (tmp_path, "is no file"),
        (sealed, "Permission denied"),
    ):
        outcome = run_cli("build", bundle, "--backend", "tensorrt", "--timing-cache", cache)
        assert_short_error(outcome, f"--timing-cache {cache}: {told}", "; name a file in a folder")
    assert not (bundle / "engines").exists()


@pytest.mark.parametrize("here", ["9.0", "10.0", "8.9", "12.1", "13.0", None])
def test_rtx_builds_no_engine_that_could_not_run_here(
    monkeypatch: pytest.MonkeyPatch, here: str | None
) -> None:
    """An H200 (9.0) loads none: TensorRT-RTX 1.7.1 said so there."""
    monkeypatch.setattr(worker, "device_capability", lambda: here)
    trt, refused = SimpleNamespace(__version__="1.7.1"), here in ("9.0", "10.0")
    with pytest.raises(EngineError, match=r"not on .*ort-cuda") if refused else nullcontext():
        worker._check_device(trt, ["75", "80", "86", "89", "120", "121"])


@pytest.mark.parametrize("words", ["--backend onnx", "--compute-capability ada"])
def test_words_that_mean_nothing(bundle: Path, words: str) -> None:
    assert run_cli("build", bundle, *words.split()).code == 2


@pytest.mark.usefixtures("installed")
def test_without_the_plugin_library(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    outcome = run_cli("build", bundle, *RTX)
    assert_short_error(outcome, f"XLSTM_LIBRARY_DIR={tmp_path}: has no libxlstm_trt.so")
    monkeypatch.delenv(FOLDER_VARIABLE)
    monkeypatch.setattr("xlstm_export.engine.build.trt_library_path", lambda: None)
    assert_short_error(run_cli("build", bundle, *RTX), "not built", "nvcc")


@pytest.mark.usefixtures("builder")
@pytest.mark.parametrize("content", ["text", "another library"])
def test_a_file_that_is_not_the_plugin_library(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    library = tmp_path / "libxlstm_trt.so"
    monkeypatch.delenv(FOLDER_VARIABLE)
    if content == "text":
        library.write_text("no library")
    else:
        other = c_library_path()
        assert other is not None, "there is no libxlstm_c: `make wheel` builds it"
        shutil.copyfile(other, library)  # of our version, but without plugins
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    assert_short_error(run_cli("build", bundle, *RTX), str(library))
    assert not (bundle / "engines").exists()


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("xlstm_export.json", "is not an xlstm-export bundle"),
        ("model.onnx", "model.onnx: cannot be read"),
        ("model.onnx.data", "model.onnx.data: is missing"),
    ],
)
def test_bundle_that_lacks_a_file(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.setattr("xlstm_export.engine.build.trt_library_path", lambda: Path("x.so"))
    (bundle / name).unlink()
    assert_short_error(run_cli("build", bundle, *RTX), message)


@pytest.mark.usefixtures("builder")
def test_the_end_of_the_builder_is_an_error(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its cure, TensorRT-RTX 1.7 aborts at the first plugin: no user meets that."""

    @contextmanager
    def without_cure(_: object) -> Iterator[dict[str, str]]:
        yield {**os.environ, "POLYGRAPHY_USE_TENSORRT_RTX": "1"}

    monkeypatch.setattr(process, "builder_environment", without_cure)
    outcome = run_cli("build", bundle, *RTX)
    assert_short_error(outcome, "the builder's process ended without a result (SIGABRT)")
    assert not (bundle / "engines").exists()


@pytest.mark.usefixtures("builder")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_while_building(bundle: Path, number: signal.Signals) -> None:
    """Nothing is left behind: no file, no process."""
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    program = f"{heard}; {OWN_PROCESS}"  # the tests may run in the background
    command = [sys.executable, "-c", program, "build", str(bundle), *RTX]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as child:
        workers = wait_for_worker(child.pid)
        child.send_signal(number)
        _, err = child.communicate(timeout=30)
    assert child.returncode == 128 + number
    assert err.strip() == f"error: interrupted ({number.name})"
    assert not (bundle / "engines").exists()
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)


def wait_for_worker(parent: int) -> list[str]:
    """Process ids of the parent's children, once there is one."""
    for _ in range(600):
        found = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("no worker was started")


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt_rtx"])
def test_the_command_of_nvidias_tools(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Printed whether or not the backend is here."""
    monkeypatch.setattr("xlstm_export.engine.build.trt_library_path", lambda: Path("/lib/x.so"))
    text = succeed("build", bundle, "--backend", name, "--max-input-len", "64", "--print-trtexec")
    make_folder, words = (part.split() for part in text.replace("\\\n", " ").split(" && "))
    assert make_folder == ["mkdir", "-p", str(bundle / "engines")]  # the tools make none
    program = "trtexec" if name == "tensorrt" else "tensorrt_rtx"
    assert words[0] == program
    assert f"--onnx={bundle}/model.onnx" in words
    assert {"--dynamicPlugins=/lib/x.so", "--setPluginsToSerialize=/lib/x.so"} <= set(words)
    assert ("--stronglyTyped" in words) == (name == "tensorrt")
    first, second = words.index("--profile=0"), words.index("--profile=1")
    largest = [word.partition("=")[2] for word in words if word.startswith("--maxShapes=")]
    assert first < second
    assert [parse_shapes([text])["input_ids"] for text in largest] == [(8, 1), (8, 64)]
    assert not (bundle / "engines").exists()


def test_a_shell_runs_the_command(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a fresh bundle, which has no folder of engines, at a path with a space."""
    monkeypatch.setattr("xlstm_export.engine.build.trt_library_path", lambda: Path("/lib/x.so"))
    bundle = bundle.rename(tmp_path / "a bundle")
    tool = tmp_path / "bin" / "trtexec"
    tool.parent.mkdir()
    tool.write_text('#!/bin/sh\necho engine > "${2#--saveEngine=}"\n')
    tool.chmod(0o755)
    text = succeed("build", bundle, "--backend", "tensorrt", "--print-trtexec")
    path = f"{tool.parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(["sh", "-c", text], check=True, env={**os.environ, "PATH": path})
    (engine,) = (bundle / "engines").iterdir()
    assert engine.read_text() == "engine\n"
