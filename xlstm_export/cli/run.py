"""``xlstm-export run``: generate from a language-model bundle in ONNX Runtime."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer

from xlstm_export import pipeline
from xlstm_export.cli.arguments import BundleArgument, JsonOption
from xlstm_export.cli.console import error_console, print_json
from xlstm_export.runtime.generate import Sampling


def run(
    bundle: BundleArgument,
    prompt: Annotated[str, typer.Option("-p", "--prompt", help="Text to continue.")] = "",
    prompt_file: Annotated[
        typer.FileText | None, typer.Option(help="File with the text to continue; - is stdin.")
    ] = None,
    ids: Annotated[str, typer.Option(help="Token ids to continue, separated by commas.")] = "",
    max_new_tokens: Annotated[int, typer.Option("-n", "--max-new-tokens", min=1)] = 100,
    temperature: Annotated[float, typer.Option(help="0 is greedy.", min=0.0)] = 0.0,
    top_k: Annotated[int, typer.Option(help="0 keeps every token.", min=0)] = 0,
    top_p: Annotated[float, typer.Option(min=0.0, max=1.0)] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of the sampling.")] = 0,
    threads: Annotated[int | None, typer.Option(help="Threads; default all.", min=1)] = None,
    json: JsonOption = False,
) -> None:
    """Generate with OUT: text where it has a tokenizer, token ids otherwise."""
    text = prompt_file.read() if prompt_file is not None else prompt
    generation = pipeline.open_generation(bundle, text, ids, threads)
    chosen: list[int] = []
    shown = ""
    start = time.perf_counter()
    for token in generation.tokens(max_new_tokens, Sampling(temperature, top_k, top_p, seed)):
        chosen.append(token)
        if not json:
            whole = generation.render(chosen)
            sys.stdout.write(whole[len(shown) :])
            sys.stdout.flush()
            shown = whole
    seconds = time.perf_counter() - start
    if json:
        print_json(
            {
                "prompt_ids": list(generation.prompt),
                "ids": chosen,
                "text": generation.render(chosen) if generation.codec else None,
                "seconds": seconds,
                "session": generation.session.name,
                "operators": generation.session.describe(),
            }
        )
        return
    sys.stdout.write("\n")
    error_console().print(
        f"{len(generation.prompt)} prompt + {len(chosen)} new tokens in {seconds:.2f} s, "
        f"{generation.session.name}",
        style="dim",
        markup=False,
        highlight=False,
    )
