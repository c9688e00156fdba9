"""The HTTP service: completions of a language model, forecasts of a forecaster."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from xlstm_export import __version__
from xlstm_export.errors import XlstmExportError
from xlstm_export.generation.continuation import Continuation, Limits
from xlstm_export.generation.forecast import read_rows
from xlstm_export.generation.prompt import check_generates, read_prompt
from xlstm_export.generation.sampling import Sampling
from xlstm_export.generation.text import TextCodec, open_codec, stop_ids
from xlstm_export.runtime.session import Array, Session
from xlstm_export.serving.answers import (
    Choices,
    FailedError,
    LateError,
    error_content,
    stream,
    whole,
)
from xlstm_export.serving.counting import Counting
from xlstm_export.serving.forecasts import Forecasts
from xlstm_export.serving.metrics import Metrics
from xlstm_export.serving.schema import CompletionRequest, ForecastRequest
from xlstm_export.serving.settings import Settings
from xlstm_export.serving.worker import BusyError, Worker

_GONE_CHECK_S = 0.25
"""How often it is looked whether who asked is still there."""
_CLIENT_GONE = 499
"""What nginx calls it; nobody reads it but the counters."""

T = TypeVar("T")


@dataclass(frozen=True)
class _Model:
    """A language model, and what its bundle's files say of tokens: they are read once."""

    session: Session
    codec: TextCodec | None
    stop: tuple[int, ...]


def make_app(session: Session, settings: Settings) -> FastAPI:
    """The service of ``session``; its worker runs as long as the application does.

    Raises BundleError where a tokenizer or a configuration is damaged, BackendUnavailableError
    where a text needs the tokenizers package.
    """
    metrics, model = Metrics(), _open_model(session)
    worker: Worker | None = None
    forecasts: Forecasts | None = None

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        nonlocal worker
        if model is not None:
            worker = Worker(session, settings.max_rows, settings.max_waiting, metrics)
        yield
        for running in (worker, forecasts):
            if running is not None:
                await run_in_threadpool(running.stop)

    # its page of the API would load scripts from elsewhere
    app = FastAPI(
        title="xlstm-export", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    _add_errors(app)
    app.add_middleware(Counting, metrics=metrics, max_body=settings.max_body)

    @app.get("/health")
    async def health() -> Response:
        is_well = model is None or (worker is not None and worker.is_alive)
        return JSONResponse({"status": "ok" if is_well else "failed"}, 200 if is_well else 503)

    @app.get("/metrics")
    async def prometheus() -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        about = {"id": settings.name, "object": "model", "created": 0, "owned_by": "xlstm-export"}
        return {"object": "list", "data": [about]}

    if model is not None:

        @app.post("/v1/completions")
        async def completions(asked: CompletionRequest, request: Request) -> Response:
            assert worker is not None
            _check_model(asked.model, settings)
            several = await run_in_threadpool(_continuations, model, asked, settings)
            choices = Choices(several)
            worker.submit(*choices.jobs)
            metrics.prompt_tokens.inc(choices.usage()["prompt_tokens"])
            return await _answer(worker, choices, asked, request, settings)

    if session.manifest.forecast is not None:
        forecasts = Forecasts(session, settings.max_series, settings.max_waiting, metrics)
        _add_forecast(app, forecasts, session.manifest.forecast.levels, settings, metrics)

    return app


def _open_model(session: Session) -> _Model | None:
    """None where ``session`` is of no language model."""
    if not session.manifest.is_language_model:
        return None
    check_generates(session)
    return _Model(session, open_codec(session.bundle), stop_ids(session.bundle))


def _add_forecast(
    app: FastAPI,
    forecasts: Forecasts,
    levels: Sequence[float],
    settings: Settings,
    metrics: Metrics,
) -> None:
    def content(quantiles: Array) -> Response:
        answer = {"levels": list(levels), "quantiles": quantiles.tolist()}
        return JSONResponse({"object": "forecast", "model": settings.name, **answer})

    @app.post("/v1/forecast")
    async def forecast(asked: ForecastRequest, request: Request) -> Response:
        deadline = asyncio.get_running_loop().time() + settings.timeout
        _check_model(asked.model, settings)
        if len(asked.series) > settings.max_series:
            raise HTTPException(400, f"series: more than {settings.max_series}")
        rows = await run_in_threadpool(lambda: read_rows(asked.arrays()))
        making = forecasts.submit(rows, asked.horizon, asked.together)
        quantiles = await _while_heard(asyncio.wrap_future(making), request, deadline)
        if quantiles is None:
            return Response(status_code=_CLIENT_GONE)
        metrics.series.inc(len(asked.series))
        return await run_in_threadpool(content, quantiles)  # which are many numbers


def _check_model(name: str | None, settings: Settings) -> None:
    if name not in (None, settings.name):
        raise HTTPException(404, f"model: {name} is not served here, {settings.name} is")


def _continuations(
    model: _Model, asked: CompletionRequest, settings: Settings
) -> list[Continuation]:
    """What the request asks for, within the limits. Raises HTTPException, XlstmExportError."""
    prompts = asked.prompts()
    count = len(prompts) * asked.n
    if count > settings.max_rows + settings.max_waiting:
        raise HTTPException(400, f"{count} prompts at once are more than are served")
    if asked.max_tokens > settings.max_new_tokens:
        raise HTTPException(400, f"max_tokens: {asked.max_tokens} > {settings.max_new_tokens}")
    limits = Limits(asked.max_tokens, model.stop, asked.stops())
    seed = time.time_ns() if asked.seed is None else asked.seed
    found: list[Continuation] = []
    for given in prompts:
        prompt = read_prompt(model.session, given, model.codec)
        if len(prompt.ids) > settings.max_prompt_tokens:
            raise HTTPException(
                400, f"prompt: {len(prompt.ids)} tokens > {settings.max_prompt_tokens}"
            )
        for _ in range(asked.n):
            sampling = Sampling(
                asked.temperature, asked.top_k, asked.top_p, seed + len(found),
                asked.repetition_penalty,
            )  # fmt: skip
            found.append(Continuation(prompt, limits, sampling))
    return found


async def _answer(
    worker: Worker, choices: Choices, asked: CompletionRequest, request: Request, settings: Settings
) -> Response:
    """Whole or as a stream; whoever hangs up makes room."""
    deadline = asyncio.get_running_loop().time() + settings.timeout
    if asked.stream:
        usage = asked.stream_options is not None and asked.stream_options.include_usage
        return StreamingResponse(
            _freeing(worker, choices, stream(choices, settings.name, deadline, usage)),
            media_type="text/event-stream", headers={"Cache-Control": "no-cache"},
        )  # fmt: skip
    making = asyncio.create_task(whole(choices, settings.name, deadline))
    try:
        answer = await _while_heard(making, request, deadline)
    finally:
        worker.drop(*choices.jobs)
    return Response(status_code=_CLIENT_GONE) if answer is None else JSONResponse(answer)


async def _while_heard(making: asyncio.Future[T], request: Request, deadline: float) -> T | None:
    """What is made; None where who asked has gone. Raises LateError, and what making it does."""
    try:
        while not making.done():
            left = deadline - asyncio.get_running_loop().time()
            await asyncio.wait({making}, timeout=max(min(left, _GONE_CHECK_S), 0))
            if making.done():
                break
            if left <= 0:
                raise LateError
            if await request.is_disconnected():
                return None
        return making.result()
    finally:
        making.cancel()


async def _freeing(
    worker: Worker, choices: Choices, pieces: AsyncIterator[str]
) -> AsyncIterator[str]:
    """``pieces``; at their end, or when the reader goes, nobody waits for the choices."""
    try:
        async for piece in pieces:
            yield piece
    finally:
        worker.drop(*choices.jobs)


def _add_errors(app: FastAPI) -> None:
    """Every error in OpenAI's form."""

    def answer(status: int, message: str, kind: str, param: str | None = None) -> JSONResponse:
        headers = {"Retry-After": "1"} if status == 429 else None
        return JSONResponse(error_content(message, kind, param), status, headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "body")
        what = first["msg"].removeprefix("Value error, ")  # pydantic's name for our own checks
        return answer(400, f"{where}: {what}", "invalid_request_error", where)

    @app.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> Response:
        return answer(error.status_code, str(error.detail), "invalid_request_error")

    @app.exception_handler(XlstmExportError)
    async def unfit(_: Request, error: XlstmExportError) -> Response:
        return answer(400, str(error), "invalid_request_error")

    @app.exception_handler(BusyError)
    async def busy(_: Request, error: BusyError) -> Response:
        return answer(429, "too many requests wait; try again", "rate_limit_error")

    @app.exception_handler(FailedError)
    async def failed(_: Request, error: FailedError) -> Response:
        return answer(500, str(error), "server_error")

    @app.exception_handler(LateError)
    async def late(_: Request, error: LateError) -> Response:
        return answer(504, "the answer took too long", "timeout")
