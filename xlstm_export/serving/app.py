"""The HTTP service: completions of a language model, forecasts of a forecaster."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from xlstm_export import __version__
from xlstm_export.errors import XlstmExportError
from xlstm_export.generation.continuation import Continuation, Limits
from xlstm_export.generation.forecast import read_rows
from xlstm_export.generation.prompt import read_prompts
from xlstm_export.generation.sampling import Sampling
from xlstm_export.generation.text import stop_ids
from xlstm_export.runtime.session import Session
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


def make_app(session: Session, settings: Settings) -> FastAPI:
    """The service of ``session``; its worker runs as long as the application does."""
    metrics, is_model = Metrics(), session.manifest.is_language_model
    worker: Worker | None = None

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        nonlocal worker
        if is_model:
            worker = Worker(session, settings.max_rows, settings.max_waiting, metrics)
        yield
        if worker is not None:
            await run_in_threadpool(worker.stop)

    # its page of the API would load scripts from elsewhere
    app = FastAPI(
        title="xlstm-export", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    _add_errors(app)
    app.add_middleware(Counting, metrics=metrics, max_body=settings.max_body)

    @app.get("/health")
    async def health() -> Response:
        is_well = not is_model or (worker is not None and worker.is_alive)
        return JSONResponse({"status": "ok" if is_well else "failed"}, 200 if is_well else 503)

    @app.get("/metrics")
    async def prometheus() -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        about = {"id": settings.name, "object": "model", "created": 0, "owned_by": "xlstm-export"}
        return {"object": "list", "data": [about]}

    if is_model:

        @app.post("/v1/completions")
        async def completions(asked: CompletionRequest, request: Request) -> Response:
            assert worker is not None
            _check_model(asked.model, settings)
            several = await run_in_threadpool(_continuations, session, asked, settings)
            choices = Choices(several)
            worker.submit(*choices.jobs)
            metrics.prompt_tokens.inc(choices.usage()["prompt_tokens"])
            return await _answer(worker, choices, asked, request, settings)

    if session.manifest.forecast is not None:
        _add_forecast(app, session, session.manifest.forecast.levels, settings, metrics)

    return app


def _add_forecast(
    app: FastAPI, session: Session, levels: Sequence[float], settings: Settings, metrics: Metrics
) -> None:
    forecasts = Forecasts(session, settings.max_series)

    @app.post("/v1/forecast")
    async def forecast(asked: ForecastRequest) -> dict[str, Any]:
        _check_model(asked.model, settings)
        if len(asked.series) > settings.max_series:
            raise HTTPException(400, f"series: more than {settings.max_series}")
        quantiles = await run_in_threadpool(_forecast, forecasts, asked)
        metrics.series.inc(len(asked.series))
        answer = {"levels": list(levels), "quantiles": quantiles}
        return {"object": "forecast", "model": settings.name, **answer}


def _check_model(name: str | None, settings: Settings) -> None:
    if name not in (None, settings.name):
        raise HTTPException(404, f"model: {name} is not served here, {settings.name} is")


def _continuations(
    session: Session, asked: CompletionRequest, settings: Settings
) -> list[Continuation]:
    """What the request asks for, within the limits. Raises HTTPException, XlstmExportError."""
    prompts = asked.prompts()
    if len(prompts) > settings.max_rows + settings.max_waiting:
        raise HTTPException(400, f"{len(prompts)} prompts at once are more than are served")
    if asked.max_tokens > settings.max_new_tokens:
        raise HTTPException(400, f"max_tokens: {asked.max_tokens} > {settings.max_new_tokens}")
    limits = Limits(asked.max_tokens, stop_ids(session.bundle), asked.stops())
    seed = time.time_ns() if asked.seed is None else asked.seed
    found = []
    for number, prompt in enumerate(read_prompts(session, prompts)):
        if len(prompt.ids) > settings.max_prompt_tokens:
            raise HTTPException(
                400, f"prompt: {len(prompt.ids)} tokens > {settings.max_prompt_tokens}"
            )
        sampling = Sampling(
            asked.temperature, asked.top_k, asked.top_p, seed + number, asked.repetition_penalty
        )
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
        while not making.done():
            await asyncio.wait({making}, timeout=_GONE_CHECK_S)
            if not making.done() and await request.is_disconnected():
                return Response(status_code=_CLIENT_GONE)
        return JSONResponse(making.result())
    finally:
        making.cancel()
        worker.drop(*choices.jobs)


async def _freeing(
    worker: Worker, choices: Choices, pieces: AsyncIterator[str]
) -> AsyncIterator[str]:
    """``pieces``; at their end, or when the reader goes, nobody waits for the choices."""
    try:
        async for piece in pieces:
            yield piece
    finally:
        worker.drop(*choices.jobs)


def _forecast(forecasts: Forecasts, asked: ForecastRequest) -> list[Any]:
    rows = read_rows(asked.arrays())
    found: list[Any] = forecasts.quantiles(rows, asked.horizon, asked.together).tolist()
    return found


def _add_errors(app: FastAPI) -> None:
    """Every error in OpenAI's form."""

    def answer(status: int, message: str, kind: str, param: str | None = None) -> JSONResponse:
        headers = {"Retry-After": "1"} if status == 429 else None
        return JSONResponse(error_content(message, kind, param), status, headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "body")
        return answer(400, f"{where}: {first['msg']}", "invalid_request_error", where)

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
