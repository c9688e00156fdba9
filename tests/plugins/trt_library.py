"""The TensorRT plugin library, and what calls its objects as TensorRT would.

python -m tests.plugins.trt_library FOLDER puts into FOLDER what tests/gpu needs of both.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

from tests.cuda.nvcc import LINKED, include_folder
from tests.gpu.plugins import OBJECTS, PLUGINS
from tests.plugins.native_builds import ROOT, build_target
from xlstm_export import __version__
from xlstm_export.native import trt_library_path

RUNTIME = "libnvinfer.so.10"
REGISTER = "register.cpp"
"""A library of its own: opened, it registers the plugins."""
TESTS = ROOT / "tests" / "plugins"
HEADERS = ROOT / "build" / "tensorrt-headers"


def missing_for_engines() -> str:
    """What a machine lacks to build TensorRT-RTX engines; empty where it has all."""
    modules = ("tensorrt_rtx", "polygraphy")
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        return f"{' and '.join(missing)} not installed: pip install '.[rtx]'"
    if trt_library_path() is None and shutil.which("nvcc") is None:
        return "no libxlstm_trt.so, and no nvcc to build it with: install CUDA 12.4 or later"
    return ""


@cache
def plugin_library() -> Path:
    """The installed library, else one to link and to embed, not to run. Raises RuntimeError."""
    installed = trt_library_path()
    if installed is not None:
        return installed
    settings = {**LINKED, "XLSTM_TRT": "ON", "XLSTM_TRT_INCLUDE": str(headers())}
    return build_target("cuda", "xlstm_trt", settings) / "plugins" / "trt" / "libxlstm_trt.so"


@cache
def headers() -> Path:
    """TensorRT's headers, fetched once."""
    script = ROOT / "plugins" / "fetch_tensorrt_headers.sh"
    done = subprocess.run(["sh", script, HEADERS], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return HEADERS


def build_host(folder: Path) -> Path:
    """trt_host.cpp as a program, beside it a runtime; they link nothing of TensorRT or CUDA."""
    program = folder / "trt_host"
    _compile(program, TESTS / "trt_host.cpp")
    build_runtime(folder / RUNTIME, 101401)
    return program


def build_runtime(library: Path, version: int) -> None:
    """trt_runtime.cpp as the library of a runtime, which the loader knows by the file's name."""
    layout = [] if version // 10000 == 10 else ["-DTENSORRT_11"]
    flags = ["-shared", "-fPIC", "-fvisibility=hidden", f"-Wl,-soname,{library.name}"]
    _compile(library, *flags, f"-DVERSION={version}", *layout, TESTS / "trt_runtime.cpp")


def build_objects(folder: Path) -> Path:
    """trt_objects.cpp as a library, for tests/gpu."""
    library = folder / OBJECTS
    _compile(library, "-shared", "-fPIC", TESTS / "trt_objects.cpp")
    return library


def build_register(folder: Path) -> Path:
    """libxlstm_trt_register.so in ``folder``, with the plugin library beside it."""
    library = folder / "libxlstm_trt_register.so"
    sources = [ROOT / "plugins" / "trt" / name for name in (REGISTER, "layout.cpp")]
    _compile(library, "-shared", "-fPIC", "-fvisibility=hidden", *sources)
    (folder / PLUGINS).symlink_to(plugin_library())
    return library


def build_on_emulator(folder: Path, kernels: Path) -> Path:
    """The plugin library over the kernels in the library ``kernels``, the CUDA emulator's."""
    library, plugins = folder / PLUGINS, ROOT / "plugins"
    sources = [
        *(path for path in sorted((plugins / "trt").glob("*.cpp")) if path.name != REGISTER),
        plugins / "kernels" / "shared" / "sizes.cpp",
    ]
    includes = [f"-I{plugins / 'kernels' / 'include'}", f"-I{kernels.parent / 'generated'}"]
    defines = [f'-DXLSTM_VERSION="{__version__}"', "-shared", "-fPIC", "-fvisibility=hidden"]
    _compile(library, *defines, *includes, *sources, kernels, f"-Wl,-rpath,{kernels.parent}")
    return library


def compile_adapter(compiler: str, folder: Path) -> list[Path]:
    """Objects of plugins/trt by another compiler, warnings being errors."""
    generate, plugins = ROOT / "plugins" / "generate_schema.py", ROOT / "plugins"
    schema = folder / "xlstm" / "op_schema.h"
    subprocess.run([sys.executable, generate, ROOT, schema], check=True)
    flags = [
        f"-I{plugins / 'kernels' / 'include'}",
        f"-I{folder}",
        f'-DXLSTM_VERSION="{__version__}"',
    ]
    objects = []
    for source in sorted((plugins / "trt").glob("*.cpp")):
        objects.append(folder / f"{source.stem}.o")
        _compile(objects[-1], "-O2", "-c", *flags, source, compiler=compiler)
    return objects


def _compile(out: Path, *arguments: str | Path, compiler: str = "c++") -> None:
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Werror"]
    includes = ["-isystem", headers(), "-isystem", include_folder()]
    command = [compiler, *flags, *includes, *arguments, "-o", out, "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def run_host(program: Path, *words: object, runtime: str = RUNTIME) -> list[str]:
    """What the host prints, a line an item; it may not end badly."""
    command = [program, program.parent / runtime, plugin_library(), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, (command, done.returncode, done.stdout, done.stderr)
    return done.stdout.splitlines()


def main() -> None:
    """Fill the folder named on the command line."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / PLUGINS).is_file():
        shutil.copy(plugin_library(), folder / PLUGINS)
    print(folder / PLUGINS, build_objects(folder))


if __name__ == "__main__":
    main()
