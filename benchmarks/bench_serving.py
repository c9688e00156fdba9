"""Many clients for minutes, some of which hang up: what they get, how long it takes, and memory.

python -m benchmarks.bench_serving [serve] [triton] [--bundle DIR] [--clients 32] [--seconds 300]
                                   [--quick] [--json F] [--check]

Each answer is compared with what the library makes of the same prompt alone, bit for bit. The
bundle is recipes/demo/char_lm's unless another one, with a tokenizer, is named. Triton is the real
server with its Python backend (``tests/serving/triton_server.py``).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

import xlstm_export as xe
from benchmarks.command import check, judged, read_arguments
from benchmarks.harness import Bar, machine_facts
from benchmarks.model_run import Result
from tests.serving.triton_server import running, with_paths
from xlstm_export.runtime.ort import OrtSession, cpu_threads
from xlstm_export.serving.triton_model import Sequences

ROOT = Path(__file__).resolve().parents[1]
GROWTH_MIB = 8.0
PROMPTS, TOKENS, START = 24, 60, 1


@dataclass
class Heard:
    """What clients saw; seconds."""

    firsts: list[float] = field(default_factory=list)
    wholes: list[float] = field(default_factory=list)
    tokens: int = 0
    dropped: int = 0
    wrong: int = 0

    def report(self, what: str, whole: str, seconds: float, result: Result) -> None:
        """Numbers and bars; ``whole`` is what ``wholes`` are."""
        for name, found in (("to the first token", self.firsts), (whole, self.wholes)):
            if found:
                for percent in (50, 95, 99):
                    key = f"{what}: {name}, p{percent}, ms"
                    result.numbers[key] = float(np.percentile(found, percent)) * 1e3
        result.numbers[f"{what}: {whole}, how many"] = len(self.wholes)
        result.numbers[f"{what}: clients that hung up"] = self.dropped
        result.numbers[f"{what}: tokens/s"] = self.tokens / seconds
        result.numbers[f"{what}: wrong answers"] = self.wrong
        result.bars.append(Bar(f"{what}: wrong answers", self.wrong, 0, "", at_least=False))


@contextmanager
def watched_memory(process: psutil.Process) -> Iterator[list[int]]:
    """Resident bytes of the process and its children, once a second, for as long as it is open."""
    found, end = list[int](), threading.Event()

    def watch() -> None:
        while not end.wait(1):
            family = [process, *process.children(recursive=True)]
            found.append(sum(one.memory_info().rss for one in family))

    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watch)
        try:
            yield found
        finally:
            end.set()
        watching.result()  # a watch that broke off saw less than the time


def growth(resident: Sequence[int]) -> float:
    """MiB from the tenth of the time after its half to the last tenth: medians, for it swings.

    ONNX Runtime's arena takes blocks for every number of rows and length of prompt there is: over
    25 minutes of 32 clients ``serve`` grew by 15 MiB in the first 14, and by none after that.
    """
    tenth, half = max(1, len(resident) // 10), len(resident) // 2
    middle, last = resident[half : half + tenth], resident[-tenth:]
    return float(np.median(last) - np.median(middle)) / 2**20


async def ask(client: httpx.AsyncClient, prompt: str, text: str, heard: Heard) -> None:
    """One completion as a stream, heard out and compared."""
    begun, pieces = time.perf_counter(), []
    body = {"prompt": prompt, "max_tokens": TOKENS, "temperature": 0, "stream": True}
    async with client.stream("POST", "/v1/completions", json=body) as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data: {"):
                if not pieces:
                    heard.firsts.append(time.perf_counter() - begun)
                pieces.append(json.loads(line[6:])["choices"][0]["text"])
                heard.tokens += 1
    heard.wholes.append(time.perf_counter() - begun)
    heard.wrong += "".join(pieces) != text


async def clients(address: str, texts: dict[str, str], count: int, seconds: float) -> Heard:
    """``count`` clients at once; one request of five is given up after a random while."""
    heard, until = Heard(), time.monotonic() + seconds

    async def one(seed: int, client: httpx.AsyncClient) -> None:
        dice = random.Random(seed)
        while time.monotonic() < until:
            prompt, text = dice.choice(list(texts.items()))
            patience = dice.uniform(0, 0.5) if dice.random() < 0.2 else None
            try:
                async with asyncio.timeout(patience):
                    await ask(client, prompt, text, heard)
            except TimeoutError:
                heard.dropped += 1

    limits = httpx.Limits(max_connections=count)
    async with httpx.AsyncClient(base_url=address, timeout=300, limits=limits) as client:
        await asyncio.gather(*(one(seed, client) for seed in range(count)))
    return heard


def bench_serve(bundle: Path, count: int, seconds: float, result: Result) -> None:
    """``xlstm-export serve`` in a process of its own."""
    prompts = [f"The {word} of {n} " for n in range(8) for word in ("Rays", "Light", "sun")]
    made = xe.generate_many(bundle, prompts[:PROMPTS], max_new_tokens=TOKENS)
    texts = {p: m.text for p, m in zip(prompts, made, strict=False)}
    command = [sys.executable, "-m", "xlstm_export_cli.main", "serve", str(bundle), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        address = child.stderr.readline().split()[2].rstrip(";")
        try:
            with watched_memory(psutil.Process(child.pid)) as resident:
                heard = asyncio.run(clients(address, texts, count, seconds))
        finally:
            child.terminate()
    heard.report("serve", "whole answer", seconds, result)
    _report_growth("serve", resident, result)


def bench_triton(bundle: Path, count: int, seconds: float, result: Result) -> None:
    """Sequences through tritonclient; one of five is left without an end."""
    import tritonclient.http as http

    session, heard = OrtSession(bundle, threads=1), Heard()
    scripts = [_script(session, seed) for seed in range(PROMPTS)]
    until = time.monotonic() + seconds
    lock, next_id = threading.Lock(), iter(range(1, 1 << 40))

    def talk(seed: int, address: str) -> None:
        dice = random.Random(seed)
        connection = http.InferenceServerClient(address, network_timeout=300)
        while time.monotonic() < until:
            script = dice.choice(scripts)
            with lock:
                key = next(next_id)
            leaves = dice.randint(1, len(script)) if dice.random() < 0.2 else len(script)
            for number, (ids, expected) in enumerate(script[:leaves]):
                given = http.InferInput("input_ids", list(ids.shape), "INT64")
                given.set_data_from_numpy(ids)
                begun = time.perf_counter()
                answer = connection.infer(
                    "model", [given], sequence_id=key, sequence_start=number == 0,
                    sequence_end=number == len(script) - 1,
                )  # fmt: skip
                with lock:
                    times = heard.wholes if number else heard.firsts
                    times.append(time.perf_counter() - begun)
                    heard.tokens += 1
                    heard.dropped += leaves < len(script) and number == leaves - 1
                    heard.wrong += not np.array_equal(answer.as_numpy("logits"), expected)

    with tempfile.TemporaryDirectory(prefix="xlstm-triton-") as name:
        folder = Path(name)
        model = xe.triton_repository(
            bundle, folder / "repository", name="model", backend="python", idle_seconds=5,
            max_sequences=1024,
        )  # fmt: skip
        with_paths(model)
        with running(folder / "repository", folder) as (address, _):
            server = next(p for p in psutil.Process().children() if "triton" in p.name())
            threads = [threading.Thread(target=talk, args=(n, address)) for n in range(count)]
            with watched_memory(server) as resident:
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
    heard.report("triton", "step of a sequence", seconds, result)
    _report_growth("triton", resident, result)


def _script(session: OrtSession, seed: int) -> list[tuple[Any, Any]]:
    """A prompt and tokens, each with the logits that they give in a sequence of its own."""
    dice, alone = np.random.default_rng(seed), Sequences(session, 1e9)
    vocabulary = session.manifest.outputs[0].shape[-1]
    found: list[tuple[Any, Any]] = []
    for number in range(20):
        ids = dice.integers(0, vocabulary, (1, dice.integers(2, 12) if number == 0 else 1))
        (made,) = alone.run([(seed, START if number == 0 else 0, {"input_ids": ids})])
        assert not isinstance(made, str), made
        found.append((ids, np.array(made["logits"])))
    return found


def _report_growth(what: str, resident: Sequence[int], result: Result) -> None:
    grown = growth(resident)
    bar = f"{what}: growth of resident memory in the second half"
    result.bars.append(Bar(bar, grown, GROWTH_MIB, "MiB", at_least=False))
    result.numbers[f"{bar}, MiB"] = grown


PARTS = {"serve": bench_serve, "triton": bench_triton}


def main() -> None:
    """Run the parts that were asked for, print, and say whether the bars hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, help="a language model's, with a tokenizer")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=300)
    arguments = read_arguments(parser, quick="for 15 seconds", parts=list(PARTS))
    facts, result = machine_facts(cpu_threads()), Result()
    seconds = 15.0 if arguments.quick else arguments.seconds
    with tempfile.TemporaryDirectory(prefix="xlstm-serving-") as name:
        bundle = arguments.bundle
        if bundle is None:
            bundle = xe.export(ROOT / "recipes" / "demo" / "char_lm", Path(name) / "char_lm").path
        for part in arguments.parts:
            PARTS[part](bundle, arguments.clients, seconds, result)
    result.bars = judged(result.bars, arguments)
    result.report(facts, arguments.json)
    check(result.bars, arguments)


if __name__ == "__main__":
    main()
