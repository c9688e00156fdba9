"""Around the application: requests are counted and timed, and what they may bring is bounded."""

from __future__ import annotations

import time

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from xlstm_export.serving.answers import error_content
from xlstm_export.serving.metrics import Metrics

PATHS = frozenset({"/health", "/metrics", "/v1/models", "/v1/completions", "/v1/forecast"})
"""Any other is counted as "other": a label for each that somebody asks for would have no end."""


class Counting:
    """An ASGI application in front of ``app``; a stream is timed to its end."""

    def __init__(self, app: ASGIApp, metrics: Metrics, max_body: int) -> None:
        self.app = app
        self.metrics = metrics
        self.max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"] if scope["path"] in PATHS else "other"
        begun, status = time.monotonic(), "500"

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        try:
            await (_refusal(scope, self.max_body) or self.app)(scope, receive, counted)
        finally:
            self.metrics.requests.labels(path, status).inc()
            self.metrics.request_seconds.labels(path).observe(time.monotonic() - begun)


def _refusal(scope: Scope, most: int) -> ASGIApp | None:
    """The answer to a body that is too long, or does not say how long it is."""
    if scope["method"] in ("GET", "HEAD"):
        return None
    size = Headers(scope=scope).get("content-length", "")
    if not size.isdigit():
        return JSONResponse(error_content("give Content-Length", "invalid_request_error"), 411)
    if int(size) > most:
        message = f"the body has more than {most} bytes"
        return JSONResponse(error_content(message, "invalid_request_error"), 413)
    return None
