"""The HTTP service: OpenAI's client, many clients that hang up, limits, errors, counters."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest

import xlstm_export as xe
from tests.cli.terminal import OWN_PROCESS, assert_short_error, run_cli
from tests.docs.manifests import probed
from tests.generation.forecaster import ONE_BY_ONE, Sums
from tests.generation.own_model import speaker
from tests.model_cases import BY_ID, Library
from tests.serving.service import Service, serving, text_bundle
from xlstm_export.generation.prompt import read_prompts
from xlstm_export.generation.text import TextCodec
from xlstm_export.runtime.ort import OrtSession

CLIENTS, REQUESTS = 24, 6


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_bundle(tmp_path_factory.mktemp("service"))


@pytest.fixture(scope="module")
def service(bundle: Path) -> Iterator[Service]:
    session = OrtSession(bundle, threads=1)
    session.most_steps = 16
    with serving(session, max_rows=8, max_waiting=200) as made:
        yield made


def post(service: Service, path: str = "completions", **fields: Any) -> httpx.Response:
    return httpx.post(f"{service.address}/v1/{path}", json=fields, timeout=30)


def expected(service: Service, prompt: str, tokens: int, **options: Any) -> str:
    """What the library makes of the prompt, in a batch of its own."""
    (made,) = xe.generate_many(service.session, [prompt], max_new_tokens=tokens, **options)
    return made.text


def test_openais_client_whole_and_as_a_stream(service: Service) -> None:
    client = openai.OpenAI(base_url=f"{service.address}/v1", api_key="none")
    assert [model.id for model in client.models.list()] == ["model"]
    asked: dict[str, Any] = {"model": "model", "prompt": "Once upon", "max_tokens": 20}
    whole = client.completions.create(**asked, temperature=0)
    text = expected(service, "Once upon", 20)
    assert (whole.choices[0].text, whole.choices[0].finish_reason) == (text, "length")
    assert whole.usage is not None
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (9, 20)
    pieces = list(client.completions.create(
        **asked, temperature=0, stream=True, stream_options={"include_usage": True}
    ))  # fmt: skip
    assert "".join(p.choices[0].text for p in pieces if p.choices) == text
    assert pieces[-1].usage is not None
    assert pieces[-1].usage.total_tokens == 29
    assert [p.choices[0].finish_reason for p in pieces if p.choices][-1] == "length"


def test_many_prompts_and_several_choices(service: Service) -> None:
    answer = post(service, prompt=["a", "bc"], n=2, max_tokens=12, temperature=1, seed=4).json()
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    for number, choice in enumerate(answer["choices"]):
        prompt = ["a", "a", "bc", "bc"][number]
        assert choice["text"] == expected(service, prompt, 12, temperature=1, seed=4 + number)
    assert answer["choices"][0]["text"] != answer["choices"][1]["text"]


def test_a_prompt_of_ids_is_answered_with_text(service: Service) -> None:
    (prompt,) = read_prompts(service.session, ["stop"])
    ids = list(prompt.ids)
    text = expected(service, "stop", 30, repetition_penalty=1.5)
    fields = {"max_tokens": 30, "temperature": 0, "repetition_penalty": 1.5}
    assert post(service, prompt=ids, **fields).json()["choices"][0]["text"] == text
    several = post(service, prompt=[ids, [98]], **fields, stop=text[5:7]).json()["choices"]
    assert several[0]["text"] == text.partition(text[5:7])[0]


def test_without_a_tokenizer_the_answer_is_ids(library: Library) -> None:
    with serving(OrtSession(library.bundle(BY_ID["stack-mixed"]), threads=1)) as service:
        (choice,) = post(service, prompt=[97], max_tokens=5, temperature=0).json()["choices"]
        assert len(choice["text"].split()) == 5
        assert "has no tokenizer" in post(service, prompt=[97], stop="x").text


def test_an_id_that_only_the_model_refuses_is_the_clients_mistake(tmp_path: Path) -> None:
    session = OrtSession(speaker(tmp_path / "out", states=True), threads=1)
    with serving(session) as service:
        wrong = post(service, prompt=[99], max_tokens=5)
        assert (wrong.status_code, "outside the vocabulary" in wrong.text) == (400, True)
        text = post(service, prompt=[99], max_tokens=5, stream=True).text
        assert "invalid_request_error" in text
        assert post(service, prompt=[9], max_tokens=5).status_code == 200


def test_files_are_read_once_and_a_prompt_for_all_its_choices(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Counter[str]()

    def count(name: str) -> None:
        plain = getattr(TextCodec, name)

        def counted(*given: Any) -> Any:
            calls[name] += 1
            return plain(*given)

        monkeypatch.setattr(TextCodec, name, counted)

    count("__init__")
    count("encode")
    with serving(OrtSession(bundle, threads=1)) as service:
        for _ in range(3):
            assert post(service, prompt="a", n=4, max_tokens=1).status_code == 200
    assert calls == {"__init__": 1, "encode": 3}


def test_a_stop_string_and_a_penalty(service: Service) -> None:
    text = expected(service, "stop", 30, repetition_penalty=1.5)
    stop = text[5:7]
    fields = {"prompt": "stop", "max_tokens": 30, "temperature": 0, "repetition_penalty": 1.5}
    (choice,) = post(service, **fields, stop=stop).json()["choices"]
    assert (choice["text"], choice["finish_reason"]) == (text.partition(stop)[0], "stop")


async def ask(
    client: httpx.AsyncClient, seed: int, expected_texts: dict[str, str]
) -> tuple[int, int]:
    """Requests of one client, some of which it drops: how many it heard out, and how many not."""
    dice, heard, dropped = random.Random(seed), 0, 0
    for _ in range(REQUESTS):
        prompt, text = dice.choice(list(expected_texts.items()))
        fields = {"prompt": prompt, "max_tokens": 40, "temperature": 0}
        hang_up = dice.choice([None, None, 0.0, 0.02, 0.1])
        try:
            async with asyncio.timeout(hang_up):
                if dice.random() < 0.5:
                    answer = await client.post("/v1/completions", json=fields)
                    assert answer.json()["choices"][0]["text"] == text
                else:
                    await read_stream(client, fields, text)
            heard += 1
        except TimeoutError:
            dropped += 1
    return heard, dropped


async def read_stream(client: httpx.AsyncClient, fields: dict[str, Any], text: str) -> None:
    found = ""
    async with client.stream("POST", "/v1/completions", json={**fields, "stream": True}) as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data: {"):
                found += json.loads(line[6:])["choices"][0]["text"]
            assert text.startswith(found), "text of another"
    assert found == text


@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.timeout is of Python 3.11")
def test_clients_that_hang_up_at_random_mix_nothing_up(service: Service) -> None:
    prompts = [f"prompt {i} " * (1 + i % 5) for i in range(12)]
    texts = {p: expected(service, p, 40) for p in prompts}
    assert len(set(texts.values())) > 6

    async def main() -> list[tuple[int, int]]:
        limits = httpx.Limits(max_connections=CLIENTS)
        async with httpx.AsyncClient(
            base_url=service.address, timeout=120, limits=limits
        ) as client:
            return await asyncio.gather(*(ask(client, i, texts) for i in range(CLIENTS)))

    results = asyncio.run(main())
    heard, dropped = (sum(column) for column in zip(*results, strict=True))
    assert heard + dropped == CLIENTS * REQUESTS
    assert heard > 20
    assert dropped > 20
    service.wait_until(0, 0)


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({}, 400, "prompt"),
        ({"prompt": ""}, 400, "the prompt is empty"),
        ({"prompt": [300]}, 400, "token id 300 is outside the vocabulary of 256"),
        ({"prompt": "a", "max_tokens": 0}, 400, "max_tokens"),
        ({"prompt": "a", "max_tokens": 99_999}, 400, "max_tokens: 99999 > 4096"),
        ({"prompt": "a", "temperature": -1}, 400, "temperature"),
        ({"prompt": "a", "logprobs": 5}, 400, "logprobs: 5 is not done here"),
        ({"prompt": "a", "stop": ""}, 400, "a stop string is empty"),
        ({"prompt": "a", "model": "other"}, 404, "other is not served here, model is"),
        ({"prompt": "a" * 40_000}, 400, "40000 tokens > 32768"),
        ({"prompt": ["a"] * 300}, 400, "300 prompts at once"),
    ],
)
def test_what_does_not_fit_is_named(
    service: Service, fields: dict[str, Any], status: int, words: str
) -> None:
    answer = post(service, **fields)
    assert answer.status_code == status, answer.text
    assert words in answer.json()["error"]["message"]


def test_a_body_that_is_too_long_or_says_no_length(service: Service) -> None:
    url = f"{service.address}/v1/completions"
    assert httpx.post(url, content=b"x" * ((16 << 20) + 1)).status_code == 413
    assert httpx.post(url, content=iter([b"{}"])).status_code == 411
    assert httpx.post(url, content=b"{").status_code == 400
    assert httpx.get(f"{service.address}/nothing").status_code == 404


def slow(bundle: Path, seconds: float) -> OrtSession:
    """A session whose calls take so long at least."""

    class Slow(OrtSession):
        def _graph(self, *given: Any) -> Any:
            time.sleep(seconds)
            return super()._graph(*given)

    return Slow(bundle, threads=1)


def test_who_comes_too_late_is_told_so(bundle: Path) -> None:
    """One row steps and one waits: the third is refused, and goes when there is room."""
    with serving(slow(bundle, 0.02), max_rows=1, max_waiting=1) as service:
        long = {"prompt": "a", "max_tokens": 4000, "temperature": 0}
        with httpx.stream(
            "POST", f"{service.address}/v1/completions", json={**long, "stream": True}
        ) as first:
            lines = first.iter_lines()  # dropped, it would hang up
            next(lines)
            waiting = threading.Thread(
                target=post, args=(service,), kwargs={**long, "max_tokens": 1}
            )
            waiting.start()
            service.wait_until(1, 1)
            refused = post(service, **long)
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        waiting.join()  # the first one hung up
        service.wait_until(0, 0)


def test_an_answer_has_its_time(bundle: Path) -> None:
    with serving(slow(bundle, 0.02), timeout=1) as service:
        fields = {"prompt": "a", "max_tokens": 4096, "temperature": 0, "n": 16}
        late = post(service, **fields)
        assert late.status_code == 504, late.text
        text = post(service, **fields, stream=True).text
        assert "took too long" in text
        assert text.endswith("data: [DONE]\n\n")
        service.wait_until(0, 0)


def test_what_goes_wrong_is_told_and_the_service_goes_on(bundle: Path) -> None:
    session = OrtSession(bundle, threads=1)
    choose, broken = session.choose, threading.Event()

    def sometimes(*arguments: Any, **options: Any) -> Any:
        if broken.is_set():
            raise RuntimeError("no memory left")
        return choose(*arguments, **options)

    session.choose = sometimes  # type: ignore[method-assign]
    with serving(session) as service:
        fields = {"prompt": "a", "max_tokens": 3, "temperature": 0}
        text = post(service, **fields).json()["choices"][0]["text"]
        broken.set()
        failed = post(service, **fields)
        assert (failed.status_code, failed.json()["error"]["type"]) == (500, "server_error")
        assert "no memory left" in failed.text
        assert "no memory left" in post(service, **fields, stream=True).text
        broken.clear()
        assert post(service, **fields).json()["choices"][0]["text"] == text
        assert httpx.get(f"{service.address}/health").json() == {"status": "ok"}


def test_counters_and_health(service: Service) -> None:
    before = service.metric("xlstm_tokens_total")
    post(service, prompt="abc", max_tokens=7, temperature=0)
    assert service.metric("xlstm_tokens_total") == before + 7
    assert probed("serve") == {"/health"}  # by Kubernetes, as docs/serving.md has it
    text = httpx.get(f"{service.address}/metrics").text
    assert 'xlstm_requests_total{path="/v1/completions",status="200"}' in text
    assert "xlstm_first_token_seconds_bucket" in text
    assert httpx.get(f"{service.address}/health").json() == {"status": "ok"}
    assert post(service, "forecast", series=[[1]], horizon=1).status_code == 404


def test_forecasts(library: Library) -> None:
    session = OrtSession(library.bundle(BY_ID["tirex-small"]), threads=1)
    series = [[1.0, 2.0, None, 4.0] * 5, [3.0, 1.0]]
    with serving(session, max_series=2) as service:
        answer = post(service, "forecast", series=series, horizon=9).json()
        rows = [[np.nan if x is None else x for x in row] for row in series]
        made = xe.forecast(session, rows, 9)
        assert answer["levels"] == list(made.levels)
        np.testing.assert_array_equal(np.array(answer["quantiles"], np.float32), made.quantiles)
        assert post(service, "forecast", series=[[1]] * 3, horizon=1).status_code == 400
        assert post(service, "forecast", series=[[]], horizon=1).status_code == 400
        wrong = post(service, "forecast", series=[[1]], horizon=1, together=True)
        assert (wrong.status_code, "by itself" in wrong.text) == (400, True)
        assert post(service, prompt="a").status_code == 404
        assert service.metric("xlstm_series_total") == 2


def test_forecasts_of_a_stand_in() -> None:
    with serving(Sums(ONE_BY_ONE)) as service:  # type: ignore[arg-type]
        answer = post(service, "forecast", series=[[1, 2, 3, 4]], horizon=2).json()
        np.testing.assert_allclose(answer["quantiles"], [[[10.1, 10.5, 10.9], [11.1, 11.5, 11.9]]])


def test_the_command_serves_until_it_is_stopped(bundle: Path) -> None:
    words = ["serve", str(bundle), "--port", "0", "--name", "mine", "--threads", "1"]
    command = [sys.executable, "-c", OWN_PROCESS, *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ}) as child:
        assert child.stderr is not None
        line = child.stderr.readline()
        address = line.split()[2].rstrip(";")
        assert line.startswith("listening on http://127.0.0.1:")
        for _ in range(200):
            try:
                health = httpx.get(f"{address}/health")
                break
            except httpx.ConnectError:
                time.sleep(0.05)
        assert health.json() == {"status": "ok"}
        assert httpx.get(f"{address}/v1/models").json()["data"][0]["id"] == "mine"
        child.send_signal(signal.SIGTERM)
        assert child.wait(20) == 128 + signal.SIGTERM
        assert "Traceback" not in child.stderr.read()


def test_what_is_not_served(library: Library, bundle: Path) -> None:
    bare = library.bundle(BY_ID["stack-bare"])
    assert_short_error(run_cli("serve", bare, "--port", 0), "neither a language model nor")
    with serving(OrtSession(bundle, threads=1)) as service:
        port = service.address.rpartition(":")[2]
        taken = run_cli("serve", bundle, "--port", port)
        assert_short_error(taken, "--port", "cannot be listened to", code=2)
    assert_short_error(run_cli("serve", bundle, "--port", 99_999), "--port", code=2)
