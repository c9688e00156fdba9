"""A service in this process, on a free port, and small models for it."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn

import xlstm_export as xe
from tests.families.large_checkpoints import make_hf
from tests.generation.byte_tokenizer import save_byte_tokenizer
from xlstm_export.runtime.session import Session
from xlstm_export.serving.app import make_app
from xlstm_export.serving.serve import _listen
from xlstm_export.serving.settings import Settings


@dataclass(frozen=True)
class Service:
    address: str
    session: Any

    def metric(self, name: str) -> float:
        """A number of /metrics."""
        lines = httpx.get(f"{self.address}/metrics").text.splitlines()
        return next(float(line.split()[-1]) for line in lines if line.startswith(f"{name} "))

    def wait_until(self, rows: int, waiting: int) -> None:
        """Until so many rows step and so many wait; fails after 20 seconds."""
        for _ in range(400):
            found = self.metric("xlstm_rows"), self.metric("xlstm_waiting")
            if found == (rows, waiting):
                return
            time.sleep(0.05)
        raise AssertionError(found)


def text_bundle(folder: Path) -> Path:
    """A language model of bytes."""
    made = make_hf(folder / "source", vocab_size=256)
    save_byte_tokenizer(folder / "source" / "tokenizer.json")
    bundle = xe.export(made.source.path, folder / "bytes").path
    for name in ("config.json", "generation_config.json"):  # no id ends an answer early
        if (bundle / name).is_file():
            content = json.loads((bundle / name).read_text())
            (bundle / name).write_text(json.dumps({**content, "eos_token_id": None}))
    return bundle


@contextlib.contextmanager
def serving(session: Session, **limits: Any) -> Iterator[Service]:
    """The service of ``session`` while the block runs."""
    settings = Settings("model", **limits)
    config = uvicorn.Config(
        make_app(session, settings), log_level="error", timeout_graceful_shutdown=2
    )
    server = uvicorn.Server(config)
    with _listen("127.0.0.1", 0) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield Service(f"http://127.0.0.1:{listening.getsockname()[1]}", session)
        finally:
            server.should_exit = True
            thread.join()
