"""Everything that only a GPU shows, with one command: python -m tests.gpu.check PART… --json FILE.

A part is a folder that tests/gpu/prepare.py made. All that is needed is copied to --place first,
so that parts may come with one call each; a step runs where what it needs has come. Steps: the
tests of tests/gpu, once as calls go and once with every kernel the plain one, compute-sanitizer,
the timings of benchmarks/gpu, every bundle in ONNX Runtime's CUDA provider, and an engine of
TensorRT-RTX for every bundle, built here and validated. Exit 1 where a step failed; one that
cannot run here says why.
"""

from __future__ import annotations

import argparse
import json
import lzma
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TESTS = ("-m", "pytest", "tests/gpu", "-q", "-p", "no:cacheprovider")
PLAIN = {f"XLSTM_CUDA_{op}": "plain" for op in ("MLSTM", "SLSTM", "CONV1D")}
ORT_TESTS = "tests/gpu/test_ort_on_gpu.py"
STEPS = ("install", "tests", "plain", "sanitizers", "timings", "onnxruntime", "engines")
SANITIZERS = ("memcheck", "racecheck", "synccheck", "initcheck")
LINES = 12
"""Of a step's output, the last so many are kept."""


@dataclass(frozen=True)
class Outcome:
    """How one step went."""

    step: str
    outcome: str
    """passed, failed or "not run"."""
    seconds: float
    words: str
    """The last lines it printed, or why it did not run."""


@dataclass(frozen=True)
class Tests:
    """How the tests run: in how many processes, and which of them, as pytest's -k says."""

    workers: int
    select: str


@dataclass(frozen=True)
class Place:
    """Where everything is on this machine."""

    folder: Path
    deadline: float

    @property
    def environment(self) -> dict[str, str]:
        """For every step: what was brought comes before what is installed."""
        paths = [self.folder / "site", self.folder / "rtx", ROOT, ROOT / "cli"]
        before = os.environ.get("PYTHONPATH")
        path = os.pathsep.join([*map(str, paths), *([before] if before else [])])
        library = {"XLSTM_LIBRARY_DIR": str(self.folder / "lib")}
        return {**library, **os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}

    def run(self, step: str, *words: str | Path, more: Mapping[str, str] | None = None) -> Outcome:
        """One command of this Python, within the time that is left."""
        began = time.monotonic()
        command = [sys.executable, *map(str, words)] if str(words[0]).startswith("-") else words
        log = self.folder / "logs" / f"{step.replace(' ', '-')}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w+") as output:
            try:
                code: int | str = subprocess.run(
                    list(map(str, command)), cwd=ROOT, env={**self.environment, **(more or {})},
                    stdout=output, stderr=subprocess.STDOUT,
                    timeout=max(1.0, self.deadline - began), check=False,
                ).returncode  # fmt: skip
            except subprocess.TimeoutExpired:
                code = "no time left"
        lines = log.read_text(errors="replace").splitlines()
        ended = "" if code == 0 else f"ended with {code}\n"
        seconds = time.monotonic() - began
        kept = ended + "\n".join(lines[-LINES:])
        return Outcome(step, "passed" if code == 0 else "failed", round(seconds, 1), kept)


def main() -> None:
    """Run what can be run; the document, and a line for each step."""
    arguments = _arguments()
    place = Place(arguments.place, time.monotonic() + arguments.seconds)
    place.folder.mkdir(parents=True, exist_ok=True)
    for part in arguments.parts:
        shutil.copytree(part, place.folder, dirs_exist_ok=True)
    options = Tests(arguments.workers, arguments.select)
    steps: dict[str, Callable[[], list[Outcome]]] = {
        "install": lambda: [install(place)],
        "tests": lambda: [run_tests(place, "tests", options, {})],
        "plain": lambda: [run_tests(place, "tests, plain kernels", options, PLAIN)],
        "sanitizers": lambda: sanitize_all(place),
        "timings": lambda: [timings(place, shlex.split(arguments.bench))],
        "onnxruntime": lambda: onnxruntime(place),
        "engines": lambda: engines(place),
    }
    wanted = arguments.only or list(steps)
    outcomes: list[Outcome] = []
    for name in wanted:
        for outcome in steps[name]():
            outcomes.append(outcome)
            last = outcome.words.rpartition("\n")[2]
            print(
                f"{outcome.outcome:8} {outcome.seconds:6.1f} s  {outcome.step}: {last}", flush=True
            )
    if arguments.json:
        content = {"steps": [asdict(o) for o in outcomes], "timings": _timings(place)}
        arguments.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    failed = [o for o in outcomes if o.outcome == "failed"]
    for outcome in failed:
        print(f"\n{outcome.step}\n{outcome.words}")
    sys.exit(1 if failed else 0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", type=Path, help="folders of tests/gpu/prepare.py")
    place = Path(tempfile.gettempdir()) / "xlstm-gpu-check"
    parser.add_argument("--place", type=Path, default=place, help="folder to work in")
    parser.add_argument("--only", nargs="+", metavar="STEP",
                        choices=STEPS)  # fmt: skip
    parser.add_argument("--bench", default="--quick", help="words for benchmarks.gpu.bench_ops")
    parser.add_argument("--workers", type=int, default=10, help="processes of the tests")
    parser.add_argument("--select", default="not sanitizer", help="tests, as pytest's -k")
    parser.add_argument("--seconds", type=float, default=540, help="for all steps")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def install(place: Place) -> Outcome:
    """What has come whole, into a folder of its own."""
    join(place.folder)
    wheels = [w for name in ("wheels", "onnxruntime") for w in (place.folder / name).glob("*.whl")]
    return place.run(
        "install", "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile",
        "--upgrade", "--target", place.folder / "site", *sorted(wheels),
    )  # fmt: skip


def join(folder: Path) -> None:
    """Every file below of which all pieces, NAME.1of3 and so on, have come; .xz is unpacked."""
    for first in sorted(folder.rglob("*.1of*")):
        count = int(first.suffix.rpartition("of")[2])
        pieces = [first.with_suffix(f".{number}of{count}") for number in range(1, count + 1)]
        if not all(piece.is_file() for piece in pieces):
            continue
        content, whole = b"".join(piece.read_bytes() for piece in pieces), first.with_suffix("")
        if whole.suffix == ".xz":
            content, whole = lzma.decompress(content), whole.with_suffix("")
        whole.write_bytes(content)
        for piece in pieces:
            piece.unlink()


def run_tests(place: Place, step: str, options: Tests, more: Mapping[str, str]) -> Outcome:
    """The tests of tests/gpu. None may be skipped: what is missing is a failure here."""
    split = ("-n", str(options.workers)) if options.workers > 1 else ()
    outcome = place.run(
        step, *TESTS, "--ignore", ORT_TESTS, "-k", options.select, *split, more=more
    )
    skipped = re.search(r"(\d+) skipped", outcome.words)
    if outcome.outcome == "passed" and skipped:
        return Outcome(step, "failed", outcome.seconds, f"{outcome.words}\n{skipped[0]}")
    return outcome


def sanitize_all(place: Place) -> list[Outcome]:
    """Every tool of compute-sanitizer, side by side."""
    with ThreadPoolExecutor(len(SANITIZERS)) as pool:
        return list(pool.map(lambda tool: sanitize(place, tool), SANITIZERS))


def sanitize(place: Place, tool: str) -> Outcome:
    """One tool of compute-sanitizer over tests/gpu/sweep.py."""
    program = shutil.which("compute-sanitizer")
    if program is None:
        return Outcome(tool, "not run", 0, "no compute-sanitizer: install the CUDA toolkit")
    sweep = (sys.executable, "-m", "tests.gpu.sweep")
    return place.run(tool, program, "--tool", tool, "--error-exitcode", "9", *sweep)


def timings(place: Place, words: Sequence[str]) -> Outcome:
    """Every operator beside its peers."""
    return place.run("timings", "-m", "benchmarks.gpu.bench_ops", *words,
                     "--json", place.folder / "timings.json")  # fmt: skip


def _timings(place: Place) -> object:
    path = place.folder / "timings.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def onnxruntime(place: Place) -> list[Outcome]:
    """The operators in ONNX Runtime's CUDA provider, and every bundle validated there."""
    ran = place.run("onnxruntime", "-m", "pytest", ORT_TESTS, "-q", "-rs", "-p", "no:cacheprovider")
    if ran.outcome == "passed" and " passed" not in ran.words:
        return [Outcome("onnxruntime", "not run", ran.seconds, ran.words)]
    bundles = sorted((place.folder / "bundles").iterdir())
    return [ran, *(_validate(place, "ort", bundle, "--backend", "ort-cuda") for bundle in bundles)]


def _validate(place: Place, by: str, bundle: Path, *words: str | Path) -> Outcome:
    source = ROOT / "recipes" / "demo" / bundle.name
    command = ("-m", "xlstm_export", "validate", bundle, "--reference", source)
    return place.run(f"validate {bundle.name} {by}", *command, *words)


def engines(place: Place) -> list[Outcome]:
    """An engine of TensorRT-RTX for each bundle: built here, validated, in C++, and by graphs."""
    if not (place.folder / "rtx" / "tensorrt_rtx_libs" / "libtensorrt_rtx.so.1").is_file():
        return [Outcome("engines", "not run", 0, "TensorRT-RTX's library has not come whole")]
    bundles = sorted((place.folder / "bundles").iterdir())
    with ThreadPoolExecutor(len(bundles)) as pool:
        return [
            outcome for pair in pool.map(lambda b: _engine(place, b), bundles) for outcome in pair
        ]


def _engine(place: Place, bundle: Path) -> list[Outcome]:
    name, tool = bundle.name, ("-m", "xlstm_export")
    built = place.run(f"build {name}", *tool, "build", bundle, "--backend", "tensorrt_rtx")
    if built.outcome != "passed":
        return [built]
    engine = next((bundle / "engines").glob("*.engine"))
    validated = _validate(place, "rtx", bundle, "--engine", engine)
    return [
        built,
        validated,
        place.run(f"C++ {name}", "-m", "tests.gpu.cpp_session", bundle, engine),
        place.run(f"graphs {name}", "-m", "tests.gpu.graph_session", bundle, engine),
    ]


if __name__ == "__main__":
    main()
