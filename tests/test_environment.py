"""What doctor finds, with packages there and not there."""

from __future__ import annotations

import importlib.metadata
import re
import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.native_libraries import StandIn, build
from xlstm_export import __version__, environment, native
from xlstm_export.environment import Finding, diagnose, versions

ROOT = Path(__file__).resolve().parents[1]
NATIVE = "run: native CPU kernels"
DRIVER = "run on a GPU: NVIDIA driver"
PLUGINS = "build: TensorRT plugins"


def pretend(monkeypatch: pytest.MonkeyPatch, **installed: str) -> None:
    """Let only ``installed`` packages (dashes written _) be there."""

    def version(name: str) -> str:
        if name.replace("-", "_") not in installed:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed[name.replace("-", "_")]

    monkeypatch.setattr(importlib.metadata, "version", version)


def finding(what: str) -> Finding:
    (found,) = [f for f in diagnose() if f.what == what]
    return found


def test_versions_name_who_takes_part(monkeypatch: pytest.MonkeyPatch) -> None:
    assert versions()["xlstm-export"] == __version__
    assert {"python", "numpy", "onnx", "onnxruntime", "torch", "xlstm"} <= versions().keys()
    pretend(monkeypatch, numpy="2.0")
    assert versions().keys() == {"xlstm-export", "python", "numpy"}


@pytest.mark.parametrize("has_driver", [True, False])
def test_engines_need_a_driver(monkeypatch: pytest.MonkeyPatch, has_driver: bool) -> None:
    def load(name: str) -> None:
        if not has_driver:
            raise OSError(name)

    pretend(monkeypatch, cuda_python="13.0")
    monkeypatch.setattr(environment, "ctypes", SimpleNamespace(CDLL=load))
    found = finding("run engines")
    assert (found.ok, "no NVIDIA driver" in found.found) == (has_driver, not has_driver)
    assert bool(found.cure) is not has_driver


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package as if it were installed in a folder of its own, without native libraries."""
    monkeypatch.setattr(native, "__file__", str(tmp_path / "native.py"))
    monkeypatch.delenv(native.FOLDER_VARIABLE, raising=False)
    return tmp_path


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize("programs", [(), ("g++",), ("c++", "apt-get")], ids=str)
def test_native_kernels_that_are_not_built(
    monkeypatch: pytest.MonkeyPatch, programs: tuple[str, ...]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: name if name in programs else None)
    found = finding(NATIVE)
    assert not found.ok
    assert "function bodies run instead" in found.found
    install = "pip install --force-reinstall --no-deps dist/*.whl"
    assert found.cure.endswith(f"make wheel in a checkout, then {install}")
    assert ("install a C++17 compiler" in found.cure) is (not programs)
    assert ("XLSTM_ORT_INCLUDE" in found.cure) is ("apt-get" not in programs)


def test_native_kernels_that_are_there(package: Path) -> None:
    (package / "lib").mkdir()
    library = build(package / "lib")
    found = finding(NATIVE)
    assert found.ok
    assert found.found == f"native CPU kernels (avx2), libxlstm_ort {__version__}, {library}"


def test_native_kernels_that_do_not_fit(package: Path) -> None:
    (package / "lib").mkdir()
    build(package / "lib", StandIn(version="0.0.1"))
    found = finding(NATIVE)
    assert not found.ok
    assert f"version 0.0.1, where xlstm-export is {__version__}" in found.found
    assert "make wheel" in found.cure


@pytest.mark.parametrize(
    ("what", "name", "old", "least", "new"),
    [
        ("validate: torch reference", "torch", "2.3.1+cpu", "2.4", "2.4.0+cu121"),
        ("validate hf", "transformers", "4.57.1", "5.0", "5.0.0rc1"),
        ("run: ONNX Runtime", "onnxruntime", "1.19.2", "1.20", "1.20.0"),
        ("run: ONNX Runtime", "onnxruntime_gpu", "1.9", "1.20", "1.31.1"),
        ("run on a GPU: ort-cuda", "onnxruntime_gpu", "1.19", "1.20", ""),
        ("run: text in and out", "tokenizers", "0.9", "0.22", "0.22"),
        ("run engines", "cuda_python", "12.7.9", "12.8", ""),
    ],
)
def test_what_is_too_old_is_told(
    monkeypatch: pytest.MonkeyPatch, what: str, name: str, old: str, least: str, new: str
) -> None:
    package = name.replace("_", "-")
    pretend(monkeypatch, **{name: old})
    found = finding(what)
    assert (found.ok, found.found) == (False, f"{package} {old}, where {least} is the least")
    assert f"'{package}>={least}'" in found.cure
    if new:
        pretend(monkeypatch, **{name: new})
        assert (finding(what).ok, finding(what).found) == (True, f"{package} {new}")


def test_nothing_installed_has_a_cure_for_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch)
    built = (NATIVE, PLUGINS, DRIVER)
    missing = [f for f in diagnose() if not f.ok and f.what not in built]
    assert len(missing) >= 6
    assert all(f.cure.startswith("pip install") for f in missing)
    assert finding("run: ONNX Runtime").cure == "pip install 'onnxruntime>=1.20'"
    builder = finding("build: TensorRT-RTX engines")
    assert builder.cure == "pip install 'tensorrt-rtx>=1.7' 'polygraphy>=0.50.3'"


@pytest.mark.usefixtures("package")
def test_kernels_for_the_gpu_need_their_package_then_their_library(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    what = "run on a GPU: ort-cuda"
    pretend(monkeypatch)
    assert finding(what).cure.startswith("pip install 'onnxruntime-gpu>=1.20'")
    pretend(monkeypatch, onnxruntime_gpu="1.31.1")
    assert "function bodies run instead" in finding(what).found
    (package / "lib").mkdir()
    library = package / "lib" / "libxlstm_ort_cuda.so"
    library.touch()
    assert finding(what) == environment.Finding(what, True, str(library))


@pytest.mark.parametrize(
    ("toolkit", "driver", "ok", "told"),
    [
        ("13.0", "580.65.06", True, "580; CUDA 13.0 in the kernels needs 580 or later"),
        ("13.0", "570.86.10", False, "570; CUDA 13.0 in the kernels needs 580 or later"),
        ("12.9", "570.86.10", True, "570; CUDA 12.9 in the kernels needs 525 or later"),
        ("13.0", None, False, "none; CUDA 13.0 in the kernels needs 580 or later"),
    ],
)
def test_kernels_for_the_gpu_need_a_driver_of_their_cuda(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    toolkit: str,
    driver: str | None,
    ok: bool,
    told: str,
) -> None:
    path = tmp_path / "version"
    monkeypatch.setattr(environment, "_DRIVER_FILE", path)
    monkeypatch.setattr(environment, "cuda_toolkit", lambda: toolkit)
    if driver:
        path.write_text(f"NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {driver}  Rel")
    found = finding(DRIVER)
    assert (found.ok, found.found) == (ok, told)
    assert ("+cu12" in found.cure) == (driver is not None and not ok)


@pytest.mark.usefixtures("package")
def test_without_kernels_for_the_gpu_no_driver_is_asked_for() -> None:
    found = finding(DRIVER)
    assert (found.ok, found.found) == (False, "no kernels for GPUs")
    assert "make wheel" in found.cure


def test_cures_ask_for_what_the_extras_ask_for() -> None:
    """The distribution is on no index: a cure names packages that are, in our versions."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    packages = list(environment._REQUIRED)
    for requirement in shlex.split(environment.install(*packages))[2:]:
        assert re.search(rf'"{re.escape(requirement)}("|;)', project), requirement


def test_no_message_names_a_distribution_that_no_index_has() -> None:
    sources = [p for folder in ("xlstm_export", "cli") for p in (ROOT / folder).rglob("*.py")]
    assert sources
    for path in sources:
        text = path.read_text(encoding="utf-8")
        assert "xlstm-export[" not in text, path
        assert "pip install xlstm-export" not in text, path


def test_two_runtimes_that_overwrite_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, onnxruntime="1.20", onnxruntime_gpu="1.23")
    found = finding("run: ONNX Runtime")
    assert not found.ok
    assert "1.20" in found.found
    assert "1.23" in found.found
    assert "uninstall" in found.cure


@pytest.mark.parametrize("package", ["onnxruntime", "onnxruntime_gpu"])
def test_either_runtime_will_do(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    pretend(monkeypatch, **{package: "1.31.1"})
    found = finding("run: ONNX Runtime")
    assert found.ok
    assert f"{package.replace('_', '-')} 1.31.1" in found.found
    assert found.cure == ""


def test_findings_that_are_well_need_no_cure() -> None:
    assert all(bool(f.cure) != f.ok for f in diagnose())
    assert finding("xlstm-export").found.startswith(__version__)


def test_plugins_are_there_or_have_a_cure(package: Path) -> None:
    found = finding(PLUGINS)
    assert not found.ok
    assert "make wheel" in found.cure
    (package / "lib").mkdir()
    (package / "lib" / "libxlstm_trt.so").touch()
    assert finding(PLUGINS).found == str(package / "lib" / "libxlstm_trt.so")
