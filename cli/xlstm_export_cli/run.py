"""``xlstm-export run``: text, a forecast, or a bare stack, by ONNX Runtime or TensorRT."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

import xlstm_export as xe
from xlstm_export_cli.arguments import (
    BackendOption,
    BundleArgument,
    EngineOption,
    JsonOption,
    NativeOption,
    ThreadsOption,
)
from xlstm_export_cli.console import console, error_console, print_json
from xlstm_export_cli.forecast import (
    ColumnOption,
    CsvOption,
    FutureOption,
    HorizonOption,
    PastOption,
    PlotOption,
    Request,
    RolloutOption,
    TimeOption,
    TogetherOption,
    run_forecast,
)
from xlstm_export_cli.generation import (
    BosOption,
    CountOption,
    IdsOption,
    PenaltyOption,
    PromptFileOption,
    PromptOption,
    SeedOption,
    StopOption,
    TemperatureOption,
    TopKOption,
    TopPOption,
)

_ONE_INPUT = "give one of --prompt, --prompt-file, --ids, --inputs-embeds, --csv"
_OF_TEXT = (
    "max_new_tokens", "temperature", "top_k", "top_p", "repetition_penalty", "stop", "seed", "bos",
)  # fmt: skip
_OF_FORECASTS = (
    "column", "time_column", "horizon", "plot", "together", "past_covariates", "future_covariates",
    "rollout",
)  # fmt: skip


EmbedsOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE.npy", help="Embeddings [batch, sequence, size]: a bare stack."),
]
OutputOption = Annotated[
    Path | None,
    typer.Option(
        "-o", "--output", metavar="FILE", help="Where hidden states (.npy), quantiles (.csv) go."
    ),
]


def run(
    context: typer.Context,
    bundle: BundleArgument,
    prompt: PromptOption = None,
    prompt_file: PromptFileOption = None,
    ids: IdsOption = None,
    max_new_tokens: CountOption = 100,
    temperature: TemperatureOption = 0.0,
    top_k: TopKOption = 0,
    top_p: TopPOption = 1.0,
    repetition_penalty: PenaltyOption = 1.0,
    stop: StopOption = None,
    seed: SeedOption = 0,
    bos: BosOption = None,
    inputs_embeds: EmbedsOption = None,
    csv: CsvOption = None,
    column: ColumnOption = None,
    time_column: TimeOption = None,
    horizon: HorizonOption = None,
    plot: PlotOption = None,
    together: TogetherOption = False,
    past_covariates: PastOption = None,
    future_covariates: FutureOption = None,
    rollout: RolloutOption = "carried",
    output: OutputOption = None,
    threads: ThreadsOption = None,
    native: NativeOption = True,
    engine: EngineOption = None,
    backend: BackendOption = "auto",
    json: JsonOption = False,
) -> None:
    """Generate with OUT: text for a text, ids for --ids.

    A forecaster takes --csv and --horizon. A bare block stack takes --inputs-embeds and writes its
    hidden states to --output.
    """
    _check_one(prompt, prompt_file, ids, inputs_embeds, csv)
    _check_mode(context, csv is not None, inputs_embeds is not None)
    where: dict[str, Any] = {
        "engine": engine, "backend": backend, "threads": threads, "native": native,
    }  # fmt: skip
    if csv is not None:
        request = Request(
            csv, horizon, column, time_column, plot, output, together, past_covariates,
            future_covariates, rollout,
        )  # fmt: skip
        run_forecast(bundle, request, where, json)
        return
    if (inputs_embeds is None) != (output is None):
        raise typer.BadParameter("--inputs-embeds and --output go together")
    if inputs_embeds is not None and output is not None:
        _run_stack(bundle, inputs_embeds, output, where, json)
        return
    generation = xe.generate(
        bundle, _text(prompt, prompt_file) if ids is None else _parse_ids(ids),
        max_new_tokens=max_new_tokens, temperature=temperature, top_k=top_k, top_p=top_p,
        repetition_penalty=repetition_penalty, stop=stop or (), seed=seed, bos=bos, **where,
    )  # fmt: skip
    _generate(generation, json)


def _check_one(*given: object) -> None:
    if sum(value is not None for value in given) > 1:
        raise typer.BadParameter(_ONE_INPUT)


def _check_mode(context: typer.Context, is_forecast: bool, is_stack: bool) -> None:
    if not is_forecast:
        _refuse(context, _OF_FORECASTS, "--csv")
    if is_forecast or is_stack:
        _refuse(context, _OF_TEXT, "--prompt, --prompt-file or --ids")


def _refuse(context: typer.Context, names: Sequence[str], others: str) -> None:
    """Raises BadParameter for an option of ``names`` that is given: it would be of no effect."""
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if parameter.name in names and source is not None and source.name == "COMMANDLINE":
            raise typer.BadParameter(f"{max(parameter.opts, key=len)} goes with {others}")


def _text(prompt: str | None, prompt_file: Path | None) -> str:
    if prompt_file is not None:
        return _read_prompt(prompt_file)
    # what the shell gave, as bytes: Python spells those that are no text as half characters
    return "" if prompt is None else _as_text(os.fsencode(prompt), "--prompt")


def _parse_ids(ids: str) -> list[int]:
    try:
        return [int(part) for part in ids.replace(",", " ").split()]
    except ValueError as error:
        raise typer.BadParameter(
            f"takes whole numbers separated by commas, not {ids!r}", param_hint="--ids"
        ) from error


def _generate(generation: xe.Generation, json: bool) -> None:
    if generation.unknown:
        told = (
            f"{generation.unknown} of {len(generation.prompt)} prompt tokens are unknown to the "
            "tokenizer"
        )
        error_console().print(f"warning: {told}", style="yellow")
    start = time.perf_counter()
    for piece in generation:
        if not json:
            sys.stdout.write(piece)
            sys.stdout.flush()
    seconds = time.perf_counter() - start
    if json:
        print_json(
            {
                "prompt_ids": list(generation.prompt),
                "bos": generation.begin,
                "ids": generation.ids,
                "end": generation.end,
                "text": generation.text if generation.has_text else None,
                "seconds": seconds,
                "session": generation.session.name,
                "operators": generation.session.describe(),
            }
        )
        return
    typer.echo()
    begin = "" if generation.begin is None else f" (id {generation.begin} in front)"
    error_console().print(
        f"{len(generation.prompt)} prompt{begin} + {len(generation.ids)} new tokens in "
        f"{seconds:.2f} s, {_who(generation.session)}",
        style="dim",
    )


def _run_stack(
    bundle: Path, inputs_embeds: Path, output: Path, where: dict[str, Any], json: bool
) -> None:
    start = time.perf_counter()
    made = xe.run_embeddings(bundle, inputs_embeds, output, **where)
    seconds = time.perf_counter() - start
    if json:
        print_json(
            {
                "output": str(made.output),
                "shape": list(made.shape),
                "seconds": seconds,
                "session": made.session.name,
                "operators": made.session.describe(),
            }
        )
        return
    console().print(
        f"{made.output}: last_hidden_state {list(made.shape)}, {seconds:.2f} s, "
        f"{_who(made.session)}"
    )


def _who(session: xe.Session) -> str:
    return "; ".join([session.name, *session.describe().values()])


def _read_prompt(path: Path) -> str:
    try:
        content = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise typer.BadParameter(f"{path}: {error.strerror}", param_hint="--prompt-file") from error
    return _as_text(content, "--prompt-file", f"{path}: ")


def _as_text(content: bytes, option: str, name: str = "") -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise typer.BadParameter(
            f"{name}not UTF-8 text ({error.reason} at byte {error.start})", param_hint=option
        ) from error
