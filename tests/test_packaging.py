"""What pip makes of the checkout, with and without the native part."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

import xlstm_export as xe
from tests.model_cases import BY_ID, Library
from xlstm_export import __version__
from xlstm_export.native import FOLDER_VARIABLE, c_library_path, ort_library_path
from xlstm_export.ops.catalog import DOMAIN
from xlstm_export.runtime.ort import BODIES

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def pure_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of ``pip install .``, with the build tools of this environment."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder)]
    subprocess.run([*command, str(ROOT)], check=True, timeout=60)
    (wheel,) = folder.iterdir()
    return wheel


def test_the_default_is_pure_python(pure_wheel: Path) -> None:
    """Even where the libraries lie in the checkout: the wheel is for any machine."""
    assert ort_library_path() is not None
    assert pure_wheel.name == f"xlstm_export-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(pure_wheel) as file:
        names = file.namelist()
    assert "xlstm_export/native.py" in names
    assert not [n for n in names if n.startswith(("xlstm_export/lib", "xlstm_export/include"))]
    package = [n for n in names if n.startswith("xlstm_export/")]
    data = {name for name in package if not name.endswith(".py")}
    recipes = {f"xlstm_export/recipe/{name}.yaml" for name in xe.recipes()}
    pages = ("style.css", *(f"{name}.html.j2" for name in ("against", "speed", "validation")))
    report = {f"xlstm_export/report/{name}" for name in pages}
    assert data == {"xlstm_export/py.typed", *recipes, *report}
    cli = [n for n in names if n.startswith("xlstm_export_cli/")]
    assert {"xlstm_export_cli/main.py", "xlstm_export_cli/app.py"} <= set(cli)
    assert all(name.endswith(".py") for name in cli)


def test_a_pure_install_runs_by_function_bodies(
    pure_wheel: Path, library: Library, tmp_path: Path
) -> None:
    with zipfile.ZipFile(pure_wheel) as file:
        file.extractall(tmp_path)
    environment = {k: v for k, v in os.environ.items() if k != FOLDER_VARIABLE}
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), sysconfig.get_path("purelib")])
    # -S: the checkout that is installed here for development must not be found
    command = [sys.executable, "-S", "-m", "xlstm_export_cli.main"]
    words = ["run", str(library.bundle(BY_ID["stack-mixed"])), "--ids", "1,2", "-n", "2", "--json"]
    done = subprocess.run(
        [*command, *words], env=environment, cwd=tmp_path, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["operators"] == {DOMAIN: BODIES}
    doctor = subprocess.run(
        [*command, "doctor"], env=environment, cwd=tmp_path, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert "[✗] run: native CPU kernels" in doctor.stdout
    assert "make wheel" in doctor.stdout


def test_the_source_distribution_can_build_the_libraries(tmp_path: Path) -> None:
    from scikit_build_core.build import build_sdist

    before = Path.cwd()
    os.chdir(ROOT)
    try:
        name = build_sdist(str(tmp_path))
    finally:
        os.chdir(before)
    with tarfile.open(tmp_path / name) as file:
        names = {n.partition("/")[2] for n in file.getnames()}
    sources = subprocess.run(
        ["git", "ls-files", "CMakeLists.txt", "plugins", "xlstm_export", "cli"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert set(sources.stdout.split()) <= names
    assert {"xlstm_export/py.typed", "cli/xlstm_export_cli/main.py"} <= names
    assert not [n for n in names if n.endswith(".so")]


def test_the_libraries_are_stripped_and_need_no_framework() -> None:
    """Nothing of ONNX Runtime is linked: one library serves every version that takes it."""
    for path in (ort_library_path(), c_library_path()):
        assert path is not None
        content = path.read_bytes()
        assert b".symtab" not in content
        assert b".debug_info" not in content
        assert b"libonnxruntime" not in content


def test_they_load_where_glibc_is_2_28() -> None:
    """What auditwheel asks of manylinux_2_28: glibc 2.28, and the libstdc++ of GCC 8."""
    most = {"GLIBC": (2, 28), "GLIBCXX": (3, 4, 24), "CXXABI": (1, 3, 11)}
    folder = xe.cmake_dir().parent / "lib"
    libraries = sorted(folder.glob("*.so"))
    assert {"libxlstm_c.so", "libxlstm_ort.so", "libxlstm_session.so"} <= {
        path.name for path in libraries
    }
    for path in libraries:
        command = ["objdump", "-T", path]
        table = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        for name, number in re.findall(r"\((GLIBC|GLIBCXX|CXXABI)_([\d.]+)\)", table):
            version = tuple(int(part) for part in number.split("."))
            assert version <= most[name], f"{path.name} asks for {name}_{number}"


def test_a_wheel_carries_the_notices(pure_wheel: Path) -> None:
    with zipfile.ZipFile(pure_wheel) as file:
        notices = [name for name in file.namelist() if name.endswith("NOTICES.txt")]
        assert len(notices) == 1
        text = file.read(notices[0]).decode()
    for name in ("nlohmann/json", "ONNX Runtime", "TensorRT", "CUDA Runtime"):
        assert name in text


def test_the_version_names_the_libraries_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    """pip replaces a version by another one: the pure wheel by a native one, and cpu by CUDA."""
    monkeypatch.syspath_prepend(str(ROOT / "plugins"))
    from package_version import dynamic_metadata

    monkeypatch.delenv("XLSTM_WHEEL_TAG", raising=False)
    assert dynamic_metadata("version") == __version__
    for tag in ("cpu", "cu13"):
        monkeypatch.setenv("XLSTM_WHEEL_TAG", tag)
        assert dynamic_metadata("version") == f"{__version__}+{tag}"
    monkeypatch.setenv("XLSTM_WHEEL_TAG", "cuda")
    with pytest.raises(ValueError, match="cpu, cu12, cu13"):
        dynamic_metadata("version")


@pytest.mark.parametrize(("nvcc", "tag"), [("", "cpu"), ("13.1", "cu13"), ("12.4", "cu12")])
def test_make_wheel_names_what_it_builds(tmp_path: Path, nvcc: str, tag: str) -> None:
    compiler = tmp_path / "nvcc"
    compiler.write_text(f"#!/bin/sh\necho 'Cuda compilation tools, release {nvcc}, V{nvcc}.9'\n")
    compiler.chmod(0o755)
    shown = subprocess.run(
        ["make", "--dry-run", "wheel", f"NVCC={compiler if nvcc else ''}"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert f"XLSTM_WHEEL_TAG={tag} " in shown
