"""``serve``: a bundle behind HTTP on one machine."""

from __future__ import annotations

import importlib.util
import ipaddress
import math
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from xlstm_export.bundle.bundle import Bundle
from xlstm_export.environment import install
from xlstm_export.errors import BackendUnavailableError, BundleError, OptionError
from xlstm_export.runtime.open import Execution, open_session
from xlstm_export.runtime.session import Session
from xlstm_export.serving.settings import Settings

if TYPE_CHECKING:
    from fastapi import FastAPI


def serve(
    bundle: str | Path | Bundle,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    name: str | None = None,
    max_rows: int = 16,
    max_waiting: int = 64,
    max_prompt_tokens: int = 32_768,
    max_new_tokens: int = 4_096,
    max_series: int = 1_024,
    timeout: float = 300.0,
    grace: float = 30.0,
    ready: Callable[[str], None] | None = None,
    engine: str | None = None,
    backend: str = "auto",
    threads: int | None = None,
    native: bool = True,
) -> None:
    """Answer HTTP requests with ``bundle`` until the program is told to stop.

    A language model answers ``/v1/completions`` as OpenAI's clients ask, whole or as a stream; a
    forecaster ``/v1/forecast``. ``/v1/models``, ``/health`` and Prometheus' ``/metrics`` are there.

    - ``host``, ``port``: where to listen; by default this machine alone can reach it. There is no
      login: put a proxy in front before others can. ``port`` 0 takes a free one.
    - ``name`` of the model, as clients say it; default: the bundle's folder.
    - ``max_rows`` continuations step together, ``max_waiting`` more wait; beyond that the answer is
      429. ``max_prompt_tokens``, ``max_new_tokens``, ``max_series`` bound a request, ``timeout``
      in seconds its answer. Of forecasts, too, ``max_waiting`` requests wait.
    - ``grace``: seconds that answers under way may still take when the program is told to stop.
    - ``ready`` is called with the address when it listens.
    - ``engine``, ``backend``, ``threads`` and ``native`` as in ``open``.

    Raises BundleError where the bundle is neither, or a language model that carries no states,
    BackendUnavailableError where fastapi, uvicorn, prometheus_client or, for text, tokenizers is
    missing, OptionError, and what ``open`` raises.
    """
    check_packages()
    from xlstm_export.serving.app import make_app

    path = bundle.path if isinstance(bundle, Bundle) else Path(bundle)
    settings = Settings(
        name or path.resolve().name, max_rows, max_waiting, max_prompt_tokens, max_new_tokens,
        max_series, timeout, grace,
    )  # fmt: skip
    with _listen(host, port) as listening:
        session = open_session(path, Execution(engine, backend, threads, native))
        check_serves(session)
        app = make_app(session, settings)
        if ready is not None:
            address, bound = listening.getsockname()[:2]
            ready(f"http://{f'[{address}]' if ':' in address else address}:{bound}")
        _run(app, settings, listening)
        session.close()


def _run(app: FastAPI, settings: Settings, listening: socket.socket) -> None:
    """Serve until a signal comes; answers that are under way have their time to end."""
    import uvicorn

    config = uvicorn.Config(
        app, log_level="warning", access_log=False,
        timeout_graceful_shutdown=math.ceil(settings.grace),
    )  # fmt: skip
    uvicorn.Server(config).run(sockets=[listening])


def check_packages() -> None:
    """Raise BackendUnavailableError where a package of the service is missing."""
    for module in ("fastapi", "uvicorn", "prometheus_client"):
        if importlib.util.find_spec(module) is None:
            raise BackendUnavailableError(
                f"serve needs {module}, which is not installed: "
                f"{install('fastapi', 'uvicorn', 'prometheus_client')}"
            )


def check_serves(session: Session) -> None:
    """Raise BundleError where the service has no answer to give with ``session``."""
    manifest = session.manifest
    if not manifest.is_language_model and manifest.forecast is None:
        raise BundleError(
            f"{session.bundle}: a {manifest.family} model of {manifest.inputs[0].name} is neither "
            "a language model nor a forecaster; serve it with: xlstm-export triton"
        )


def _listen(host: str, port: int) -> socket.socket:
    """Raises OptionError where it cannot be listened there."""
    if not 0 <= port < 2**16:
        raise OptionError("port", f"{port} is not between 0 and 65535")
    try:
        is_six = ipaddress.ip_address(host).version == 6
    except ValueError:
        is_six = False
    try:
        return socket.create_server(
            (host, port), family=socket.AF_INET6 if is_six else socket.AF_INET, backlog=1024
        )
    except OSError as error:
        raise OptionError(
            "port", f"{host}:{port} cannot be listened to ({error.strerror or error})"
        ) from error
