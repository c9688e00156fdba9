"""How fast a bundle runs here: rates and latencies of every backend at hand, beside PyTorch's."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from xlstm_export.bundle.bundle import Bundle
from xlstm_export.bundle.manifest import (
    IMAGES,
    LENGTHS,
    Manifest,
    TensorInfo,
    image_size,
    shape_text,
)
from xlstm_export.checkpoint.hub import resolve_source
from xlstm_export.checkpoint.source import Source
from xlstm_export.environment import install
from xlstm_export.errors import (
    BackendUnavailableError,
    BundleError,
    CheckpointError,
    OptionError,
    XlstmExportError,
)
from xlstm_export.model.spec import ModelSpec
from xlstm_export.pipeline import read_checkpoint
from xlstm_export.runtime.open import Execution, open_session
from xlstm_export.runtime.session import MOST_STEPS, Array, Runner, split_time

Opener = Callable[[], AbstractContextManager[Runner]]
WARM_UP = 3
"""Steps or calls before those that count."""
GRAPHS = "ort-cuda, CUDA graphs"


@dataclass(frozen=True)
class Measured:
    """One backend at one batch size; seconds and bytes.

    ``rate`` is ``unit`` a second: tokens, steps, series or images of all rows. ``first`` is the
    time to the first token (of a model without states: the first call), ``p50``, ``p95`` and
    ``p99`` are percentiles of a step (a call). ``memory`` is what the process grew by while the
    backend was open and ran, None where it cannot be told.
    """

    backend: str
    name: str
    operators: str
    rows: int
    unit: str
    rate: float
    first: float
    p50: float
    p95: float
    p99: float
    memory: int | None


@dataclass(frozen=True)
class Benchmark:
    """What ``bench`` measured, and the backends that could not be, with the reason."""

    bundle: Path
    prompt: int
    steps: int
    measured: tuple[Measured, ...]
    missing: tuple[tuple[str, str], ...]

    def ratio(self, of: Measured) -> float | None:
        """Rate of ``of`` over PyTorch's at as many rows; None where that was not measured."""
        for peer in self.measured:
            if peer.backend == "pytorch" and peer.rows == of.rows and peer is not of:
                return of.rate / peer.rate
        return None


@dataclass(frozen=True)
class Load:
    """What is asked of every backend."""

    rows: int
    prompt: int
    steps: int


def bench(
    bundle: str | Path | Bundle,
    reference: str | Path | None = None,
    *,
    family: str = "auto",
    config: str | Path | None = None,
    prefix: str = "",
    rows: Sequence[int] = (1, 16),
    prompt: int = 128,
    steps: int = 50,
    threads: int | None = None,
) -> Benchmark:
    """Measure how fast ``bundle`` runs here, by every backend that this machine has.

    - ``reference``: the checkpoint, to measure PyTorch beside it: this toolkit's readable model in
      float32, its mLSTM chunkwise; ``family``, ``config`` and ``prefix`` as in ``export``.
    - ``rows``: batch sizes. A model that carries states is given a prompt of ``prompt`` steps, then
      ``steps`` single ones; any other ``steps`` whole inputs. Inputs are random.
    - ``threads`` of ONNX Runtime, the native kernels and torch; default: all.

    Backends run one after the other: for claims, compare within one run on an idle machine. Raises
    BundleError where no backend runs it, CheckpointError, UnsupportedModelError, OptionError,
    BackendUnavailableError where torch is missing for ``reference``.
    """
    path = bundle.path if isinstance(bundle, Bundle) else Path(bundle)
    torch_side = None
    if reference is not None:
        settings = None if config is None else Path(config)
        source = resolve_source(str(reference), settings, prefix)
        torch_side = _reference(source, family, Bundle.open(path).manifest, threads)
    return bench_bundle(path, rows, prompt, steps, threads, torch_side)


def _reference(source: Source, family: str, manifest: Manifest, threads: int | None) -> Opener:
    """What opens the PyTorch side, for images of the size that the bundle takes.

    Raises BackendUnavailableError where torch is missing.
    """
    try:
        from xlstm_export.reference.model import ReferenceModel
        from xlstm_export.reference.threads import torch_threads
    except ModuleNotFoundError as error:
        raise BackendUnavailableError(
            f"--reference needs {error.name}, which is not installed: {install('torch')}"
        ) from error

    @contextmanager
    def opened() -> Iterator[Runner]:
        sized = replace(source, resolution=image_size(manifest.inputs))
        checkpoint = read_checkpoint(sized, family)
        _check_same(source, checkpoint.spec, manifest)
        with torch_threads(threads):
            yield ReferenceModel(
                checkpoint.spec, checkpoint.weights, compute="float32", form="chunkwise"
            )

    return opened


def _check_same(source: Source, spec: ModelSpec, manifest: Manifest) -> None:
    """Raise CheckpointError where another model than the bundle's would be measured beside it."""
    own, its = (_ends(ends.inputs, ends.outputs) for ends in (spec, manifest))
    if own != its:
        raise CheckpointError(
            f"{source.path}: {own}, where the bundle {its}; give the checkpoint it was made from"
        )


def _ends(inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]) -> str:
    """What a model takes and yields, whatever the number of steps."""
    taken = (f"{t.name} {shape_text(t.shape)}" for t in inputs if t.name != LENGTHS)
    yielded = (f"{t.name} of {t.shape[-1]}" for t in outputs)
    return f"takes {', '.join(taken)} and yields {', '.join(yielded)}"


def bench_bundle(
    bundle: Path, rows: Sequence[int], prompt: int, steps: int, threads: int | None,
    reference: Opener | None,
) -> Benchmark:  # fmt: skip
    """As ``bench``; ``reference`` opens the PyTorch side."""
    for option, value in (("prompt", prompt), ("steps", steps), *(("rows", r) for r in rows)):
        if value < 1:
            raise OptionError(option, f"{value} is not 1 or more")
    manifest = Bundle.open(bundle).manifest
    loads = [Load(count, prompt, steps) for count in rows]
    measured: list[Measured] = []
    missing: list[tuple[str, str]] = []
    for backend, open_it in _backends(bundle, threads, reference):
        if backend == GRAPHS and not (_steps(manifest) and "ort-cuda" not in dict(missing)):
            continue
        try:
            measured += _measure(backend, open_it, manifest, loads)
        except (XlstmExportError, MemoryError, RuntimeError) as error:  # torch raises the last
            missing.append((backend, str(error) or "out of memory"))
    if not measured:
        raise BundleError(f"{bundle}: no backend runs it here ({missing[0][1]})")
    return Benchmark(bundle, prompt, steps, tuple(measured), tuple(missing))


def _backends(
    bundle: Path, threads: int | None, reference: Opener | None
) -> Iterator[tuple[str, Opener]]:
    """Name and opener of every backend that a bundle may have."""
    ways = {
        "ort": Execution(threads=threads),
        "ort, function bodies": Execution(threads=threads, native=False),
        "ort-cuda": Execution(backend="ort-cuda", threads=threads),
        GRAPHS: Execution(backend="ort-cuda", threads=threads, cuda_graph=True),
    }
    for engine in sorted((bundle / "engines").glob("*.engine")):
        ways[engine.stem] = Execution(engine=engine.stem)
    for name, how in ways.items():
        yield name, lambda how=how: closing(open_session(bundle, how))  # type: ignore[misc]
    if reference is not None:
        yield "pytorch", reference


def _measure(
    backend: str, open_it: Opener, manifest: Manifest, loads: Sequence[Load]
) -> Iterator[Measured]:
    before = _resident()
    with open_it() as runner:
        describe = getattr(runner, "describe", None)
        operators = "; ".join(describe().values()) if describe else ""
        for load in loads:
            first, seconds = _timed(runner, manifest, load)
            p50, p95, p99 = np.percentile(seconds, [50, 95, 99]).tolist()
            after = _resident()
            yield Measured(
                backend, runner.name, operators, load.rows, _unit(manifest),
                load.rows * len(seconds) / sum(seconds), first, p50, p95, p99,
                None if before is None or after is None else max(0, after - before),
            )  # fmt: skip


def _timed(runner: Runner, manifest: Manifest, load: Load) -> tuple[float, list[float]]:
    """Seconds to the first result, and of each step or call after the warm-up."""
    random = np.random.default_rng(0)
    count = WARM_UP + load.steps
    if not _steps(manifest):
        feeds = _whole_input(manifest, load, random)
        seconds = [_seconds(lambda: runner.run(feeds)) for _ in range(count)]
        return seconds[0], seconds[WARM_UP:]
    name = manifest.inputs[0].name
    prompt = _inputs(manifest, load.rows, load.prompt, random)
    step = _inputs(manifest, load.rows, 1, random)
    states: Mapping[str, Array] | None = None

    def feed(part: Array) -> None:
        nonlocal states
        _, states = runner.run({name: part}, states)

    most = getattr(runner, "most_steps", MOST_STEPS)
    first = sum(_seconds(lambda p=part: feed(p)) for part in split_time(prompt, most))  # type: ignore[misc]
    return first, [_seconds(lambda: feed(step)) for _ in range(count)][WARM_UP:]


def _steps(manifest: Manifest) -> bool:
    """Whether the model goes on one step at a time, from states."""
    return bool(manifest.states) and manifest.forecast is None and manifest.takes_states


def _unit(manifest: Manifest) -> str:
    if manifest.forecast is not None:
        return "series"
    if manifest.inputs[0].name == IMAGES:
        return "images"
    return "tokens" if manifest.is_language_model else "steps"


def _inputs(manifest: Manifest, rows: int, steps: int, random: np.random.Generator) -> Array:
    """The first input [B,T] or [B,T,D] of a model of steps."""
    first = manifest.inputs[0]
    if first.dtype.startswith("int"):
        size = manifest.outputs[0].shape[-1]
        return random.integers(0, size if isinstance(size, int) else 2, (rows, steps))
    shape = (rows, steps, *(int(size) for size in first.shape[2:]))
    return random.standard_normal(shape).astype(first.dtype)


def _whole_input(manifest: Manifest, load: Load, random: np.random.Generator) -> dict[str, Any]:
    """Every input of a model that takes all at once: a series' whole context, an image."""
    sizes: dict[str, int] = {"batch": load.rows}
    if (info := manifest.forecast) is not None:
        sizes |= {"length": info.context, "targets": 1, "past": 0, "known": 0}
        sizes |= {"horizon": info.horizon}
    feeds: dict[str, Any] = {}
    for tensor in manifest.inputs:
        if tensor.name == LENGTHS:
            continue
        parts = [str(dim).split("+") for dim in tensor.shape]
        shape = [
            sum(int(p) if p.isdigit() else sizes.get(p, load.prompt) for p in dims)
            for dims in parts
        ]
        is_number = tensor.dtype.startswith("float")
        values = random.standard_normal(shape) if is_number else np.zeros(shape)
        feeds[tensor.name] = values.astype(tensor.dtype)
    return feeds


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _resident() -> int | None:
    """Resident bytes of this process; None where the system does not tell."""
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    except OSError:
        return None
    return None
