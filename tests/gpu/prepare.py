"""Lays out what a GPU machine without network needs: python -m tests.gpu.prepare FOLDER.

FOLDER gets part1, part2, … of at most 56 MiB each, to be carried beside the checkout, one after
another where they do not go together; tests/gpu/check.py says how they are used. Needs a built
package (make wheel), the demo's bundles (make demo) and pip.
"""

from __future__ import annotations

import argparse
import importlib.util
import lzma
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.gpu.kernels import LIBRARY, ROOT
from tests.gpu.plugins import PLUGINS
from tests.plugins.trt_library import build_objects
from xlstm_export.output import new_file

PART_BYTES = 56 << 20
ONNXRUNTIME = "onnxruntime-gpu==1.31.1"
"""Built for CUDA 13; some 250 MB."""
BUNDLES = ("parity", "char_lm", "forecaster")
WHEELS = Path(__file__).with_name("wheels.txt")
PLATFORMS = (39, 35, 34, 31, 28, 27, 17)
"""Minor versions of glibc, newest first: pip matches each exactly."""


def main() -> None:
    """Fill the folder; what is there is replaced."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--python", default="3.12", help="version on the GPU machine")
    parser.add_argument("--bundles", type=Path, default=ROOT / "out", help="folder of make demo's")
    parser.add_argument("--onnxruntime", action="store_true", help=f"bring {ONNXRUNTIME} as well")
    arguments = parser.parse_args()
    staged = arguments.folder / "staged"
    for old in (staged, *arguments.folder.glob("part*")):
        shutil.rmtree(old, ignore_errors=True)
    _libraries(staged / "lib")
    _wheels(staged / "wheels", arguments.python, "-r", str(WHEELS))
    _bundles(arguments.bundles, staged / "bundles")
    if importlib.util.find_spec("tensorrt_rtx_libs") is not None:
        _rtx(staged / "rtx", arguments.folder / "compressed")
    if arguments.onnxruntime:
        _wheels(staged / "onnxruntime", arguments.python, ONNXRUNTIME)
        for wheel in (staged / "onnxruntime").glob("*.whl"):
            cut(wheel.read_bytes(), wheel)
            wheel.unlink()
    for number, part in enumerate(parts(staged), 1):
        for path in part:
            target = arguments.folder / f"part{number}" / path.relative_to(staged)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
        size = sum(p.stat().st_size for p in (arguments.folder / f"part{number}").rglob("*.*"))
        print(f"{arguments.folder / f'part{number}'}: {size >> 20} MiB")
    shutil.rmtree(staged)


def _libraries(folder: Path) -> None:
    shutil.copytree(ROOT / "xlstm_export" / "lib", folder)
    missing = [name for name in (LIBRARY, PLUGINS) if not (folder / name).is_file()]
    if missing:
        sys.exit(f"no {' and '.join(missing)} in xlstm_export/lib: make wheel, with nvcc")
    build_objects(folder)


def _wheels(folder: Path, python: str, *wanted: str) -> None:
    platforms = [f"--platform=manylinux_2_{minor}_x86_64" for minor in PLATFORMS]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
               "--only-binary=:all:", f"--python-version={python}", "--implementation=cp",
               *platforms, "--dest", str(folder), *wanted]  # fmt: skip
    subprocess.run(command, check=True)


def _bundles(source: Path, folder: Path) -> None:
    for name in BUNDLES:
        if not (source / name).is_dir():
            sys.exit(f"no bundle {source / name}: make demo")
        ignored = shutil.ignore_patterns("engines", "reports")
        shutil.copytree(source / name, folder / name, ignore=ignored)


def _rtx(folder: Path, kept: Path) -> None:
    """TensorRT-RTX's modules as they are, its libraries compressed and in pieces.

    Compressing takes minutes, so ``kept`` has what was compressed before.
    """
    for name in ("tensorrt_rtx", "tensorrt_rtx_libs"):
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        package = Path(spec.origin).parent
        for path in sorted(p for p in package.rglob("*") if p.is_file()):
            inside = folder / name / path.relative_to(package)
            if "__pycache__" in path.parts:
                continue
            inside.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".py":
                shutil.copy(path, inside)
            else:
                cut(_compressed(path, kept), inside.with_name(f"{path.name}.xz"))


def _compressed(path: Path, kept: Path) -> bytes:
    stat = path.stat()
    file = kept / f"{path.name}-{stat.st_size}-{stat.st_mtime_ns}.xz"
    if not file.is_file():
        kept.mkdir(parents=True, exist_ok=True)
        with new_file(file) as work:
            work.write_bytes(lzma.compress(path.read_bytes(), preset=9))
    return file.read_bytes()


def cut(content: bytes, target: Path) -> None:
    """``target``.1of3, …, of half a part each; tests/gpu/check.py joins them."""
    step = PART_BYTES // 2
    count = -(-len(content) // step)
    for number in range(count):
        piece = target.with_name(f"{target.name}.{number + 1}of{count}")
        piece.write_bytes(content[number * step : (number + 1) * step])


def parts(staged: Path) -> Iterator[list[Path]]:
    """Files in parts: what the kernels need comes first."""
    order = ("lib", "wheels", "bundles", "rtx", "onnxruntime")
    files = [p for name in order for p in sorted((staged / name).rglob("*")) if p.is_file()]
    part: list[Path] = []
    size = 0
    for path in files:
        if part and size + path.stat().st_size > PART_BYTES:
            yield part
            part, size = [], 0
        part.append(path)
        size += path.stat().st_size
    yield part


if __name__ == "__main__":
    main()
