"""The public functions on a bundle that is there: sessions, text, forecasts, hidden states."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xlstm_export.bundle.bundle import Bundle

if TYPE_CHECKING:
    from xlstm_export.generation.embeddings import HiddenStates
    from xlstm_export.generation.forecast import Forecast
    from xlstm_export.generation.forecast_file import ForecastTable
    from xlstm_export.generation.generate import Generation
    from xlstm_export.runtime.session import Session

PathLike = str | Path


def open(
    bundle: PathLike | Bundle,
    engine: str | None = None,
    *,
    backend: str = "auto",
    threads: int | None = None,
    native: bool = True,
    cuda_graph: bool = False,
) -> Session:
    """A session of ``bundle``: in ONNX Runtime, or in TensorRT by ``engine``.

    - ``bundle``: its folder, or what ``export`` returned.
    - ``engine``: a name in the bundle's folder of engines, or a file.
    - ``backend``: "ort" is ONNX Runtime on the CPU, "ort-cuda" on the first GPU, by its CUDA
      provider (onnxruntime-gpu), states staying there; "tensorrt" and "tensorrt_rtx" the bundle's
      only engine of that kind; "auto" the engine where one is given, else "ort".
    - ``threads`` of ONNX Runtime and of the native kernels; default: all.
    - ``native``: compute operators with the native kernels where they are installed; False runs
      the function bodies. ONNX Runtime's alone, as ``threads``.
    - ``cuda_graph``: on a GPU, replay decode steps as CUDA graphs: two for each batch size, in a
      loop that passes back the states it got. Such a session is for one thread at a time.

    Raises BundleError, EngineError, BackendUnavailableError, OptionError.
    """
    from xlstm_export.runtime.open import Execution, open_session

    path = bundle.path if isinstance(bundle, Bundle) else Path(bundle)
    return open_session(path, Execution(engine, backend, threads, native, cuda_graph))


def generate(
    bundle: PathLike | Bundle | Session,
    prompt: str | Sequence[int],
    *,
    max_new_tokens: int = 100,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    repetition_penalty: float = 1.0,
    seed: int = 0,
    stop: str | Sequence[str] = (),
    bos: bool | None = None,
    engine: str | None = None,
    backend: str = "auto",
    threads: int | None = None,
    native: bool = True,
) -> Generation:
    """Continue ``prompt``: iterate over the result for text as it is made.

    - ``bundle``: a bundle, or a session of one; ``engine``, ``backend``, ``threads`` and ``native``
      are those of ``open``, and of no effect on a session.
    - ``prompt``: text for the bundle's tokenizer, or token ids, which are continued in ids.
    - ``max_new_tokens``: the most to make, 1 or more; a stop id of the bundle's configuration ends
      earlier.
    - ``temperature`` 0 takes the likeliest token; above it draws: of the ``top_k`` best (0: all),
      of the likeliest that reach ``top_p``, by ``seed``.
    - ``repetition_penalty`` above 1 makes ids likelier that have not come yet.
    - ``stop``: a string, or several, before which the text ends; for prompts of text.
    - ``bos`` puts the beginning-of-sequence id in front; None: where the configuration says so.

    Raises BundleError where the bundle generates nothing, carries no states or lacks a tokenizer,
    InputError for a prompt that is empty or outside the vocabulary, OptionError, and what ``open``
    raises.
    """
    from xlstm_export.generation.generate import start_generation
    from xlstm_export.generation.sampling import Sampling

    session = _session(bundle, engine, backend, threads, native)
    sampling = Sampling(temperature, top_k, top_p, seed, repetition_penalty)
    return start_generation(session, prompt, max_new_tokens, sampling, bos, _several(stop))


def generate_many(
    bundle: PathLike | Bundle | Session,
    prompts: Sequence[str | Sequence[int]],
    *,
    max_new_tokens: int = 100,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    repetition_penalty: float = 1.0,
    seed: int = 0,
    stop: str | Sequence[str] = (),
    bos: bool | None = None,
    batch_size: int = 16,
    engine: str | None = None,
    backend: str = "auto",
    threads: int | None = None,
    native: bool = True,
) -> list[Generation]:
    """Continue every one of ``prompts`` to its end, ``batch_size`` of them stepping together.

    One result for each, in their order. On the CPU each is bit for bit what it is whatever stands
    beside it; ``generate`` computes a row by itself, and rounds otherwise (see StepBatch). Prompt
    number n, from 0, draws by ``seed`` + n. ``bundle``, ``max_new_tokens``, ``temperature``,
    ``top_k``, ``top_p``, ``repetition_penalty``, ``stop``, ``bos``, ``engine``, ``backend``,
    ``threads`` and ``native`` as in ``generate``. Raises what ``generate`` does.
    """
    from xlstm_export.generation.generate import generate_together
    from xlstm_export.generation.sampling import Sampling

    session = _session(bundle, engine, backend, threads, native)
    samplings = [
        Sampling(temperature, top_k, top_p, seed + number, repetition_penalty)
        for number in range(len(prompts))
    ]
    return generate_together(
        session, prompts, max_new_tokens, samplings, batch_size, bos, _several(stop)
    )


def run_embeddings(
    bundle: PathLike | Bundle,
    inputs_embeds: PathLike,
    output: PathLike,
    *,
    engine: str | None = None,
    backend: str = "auto",
    threads: int | None = None,
    native: bool = True,
) -> HiddenStates:
    """Write the hidden states of a bare stack over embeddings, both .npy files [B,T,D].

    ``inputs_embeds`` holds floating-point numbers of any width, ``output`` gets float32. Memory
    does not grow with T, but of a network of your own without states. ``bundle``, ``engine``,
    ``backend``, ``threads`` and ``native`` as in ``open``. Raises BundleError where the bundle or
    the file does not fit, TargetError, and what ``open`` raises.
    """
    from xlstm_export.generation.embeddings import run_file

    session = open(bundle, engine, backend=backend, threads=threads, native=native)
    return run_file(session, Path(inputs_embeds), Path(output))


def forecast(
    bundle: PathLike | Bundle | Session,
    series: Any,
    horizon: int,
    *,
    together: bool = False,
    past_covariates: Any = None,
    future_covariates: Any = None,
    rollout: str = "carried",
    batch_size: int = 64,
    engine: str | None = None,
    backend: str = "auto",
    threads: int | None = None,
    native: bool = True,
) -> Forecast:
    """Forecast ``horizon`` steps of each series: quantiles float32 [series, horizon, Q].

    - ``bundle``: of a forecaster, or a session of one; ``engine``, ``backend``, ``threads`` and
      ``native`` are those of ``open``, and of no effect on a session.
    - ``series``: numbers [length], [series, length], or several of unequal lengths; NaN is a
      missing value. Each is forecast by itself, ``batch_size`` of them in one call.
    - ``together``: the series, of one length, see each other, where the model takes several.
    - ``past_covariates`` [count, length] and ``future_covariates`` [count, length + horizon] stand
      beside the series, which are forecast together then; NaN is what is not known.
    - ``rollout``: a model that begins and goes on foretells a patch a call. "carried" goes on from
      its states, with what it has foretold as missing; "rerun" begins again for every patch, over
      the same values. They differ by what is in the window that the model looks back: of a long
      series the oldest values fall out, before a short one stand fewer missing patches.

    Raises BundleError where the bundle is no forecaster, InputError for series that do not fit,
    OptionError, and what ``open`` raises.
    """
    from xlstm_export.generation.forecast import forecast_series

    return forecast_series(
        _session(bundle, engine, backend, threads, native), series, horizon, together=together,
        past_covariates=past_covariates, future_covariates=future_covariates, rollout=rollout,
        batch_size=batch_size,
    )  # fmt: skip


def forecast_file(
    bundle: PathLike | Bundle | Session,
    source: PathLike,
    horizon: int,
    *,
    columns: Sequence[str] = (),
    time: str | None = None,
    output: PathLike | None = None,
    plot: PathLike | None = None,
    together: bool = False,
    past_covariates: Sequence[str] = (),
    future_covariates: Sequence[str] = (),
    rollout: str = "carried",
    batch_size: int = 64,
    engine: str | None = None,
    backend: str = "auto",
    threads: int | None = None,
    native: bool = True,
) -> ForecastTable:
    """``forecast`` of columns of a table: the quantiles with the time that goes on.

    - ``source``: a table with a header, "-" for one on stdin, or a .npy array [length] or
      [series, length]. An empty cell is a missing value.
    - ``columns``: the series; default: every column of numbers. Those of a .npy array are called
      by their number, from 0. ``time``: the column of a table's times; default: one that is called
      time, date, datetime, timestamp or ds.
    - ``output``: a .csv or .npy file for the quantiles. ``plot``: a .png, .svg or .pdf file.
    - ``past_covariates``, ``future_covariates``: columns beside the series. Those of the future
      reach ``horizon`` rows further, in which the series are empty.
    - ``together``, ``rollout`` and ``batch_size`` as in ``forecast``; ``bundle``, ``engine``,
      ``backend``, ``threads`` and ``native`` as there.

    Raises InputError naming the column and row, TargetError, OptionError, BackendUnavailableError
    where pandas or matplotlib is missing, and what ``forecast`` raises.
    """
    from xlstm_export.generation.forecast_file import run_file

    return run_file(
        _session(bundle, engine, backend, threads, native), source, horizon, columns=columns,
        time=time, output=_path(output), plot=_path(plot), together=together,
        past_covariates=past_covariates, future_covariates=future_covariates, rollout=rollout,
        batch_size=batch_size,
    )  # fmt: skip


def _session(
    bundle: PathLike | Bundle | Session,
    engine: str | None,
    backend: str,
    threads: int | None,
    native: bool,
) -> Session:
    if isinstance(bundle, (str, Path, Bundle)):
        return open(bundle, engine, backend=backend, threads=threads, native=native)
    return bundle


def _several(strings: str | Sequence[str]) -> Sequence[str]:
    return [strings] if isinstance(strings, str) else strings


def _path(path: PathLike | None) -> Path | None:
    return None if path is None else Path(path)
