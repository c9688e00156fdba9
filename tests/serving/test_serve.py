"""How the program of ``serve`` is set up: its end, and what it refuses before it listens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import uvicorn

import xlstm_export as xe
from tests.serving.service import text_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_bundle(tmp_path_factory.mktemp("serve"))


@pytest.mark.parametrize(("options", "seconds"), [({}, 30), ({"grace": 110.5}, 111)])
def test_answers_under_way_have_their_time_to_end(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], seconds: int
) -> None:
    configs: list[uvicorn.Config] = []

    class Server:
        def __init__(self, config: uvicorn.Config) -> None:
            configs.append(config)

        def run(self, sockets: list[Any]) -> None: ...

    monkeypatch.setattr(uvicorn, "Server", Server)
    xe.serve(bundle, port=0, threads=1, **options)
    assert [config.timeout_graceful_shutdown for config in configs] == [seconds]


def test_a_damaged_tokenizer_is_told_before_it_listens(bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in bundle.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    (copy / "tokenizer.json").write_text("{")
    with pytest.raises(xe.BundleError, match="not a readable tokenizer"):
        xe.serve(copy, port=0, threads=1, ready=lambda _: pytest.fail("it listens"))
