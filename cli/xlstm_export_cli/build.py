"""``xlstm-export build``: a bundle to a TensorRT or TensorRT-RTX engine."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.filesize import decimal

import xlstm_export as xe
from xlstm_export_cli.arguments import BundleArgument, JsonOption
from xlstm_export_cli.console import console, print_json, progress_bar

PRECISION = (
    "precision is chosen at export and written into the graph: xlstm-export export SOURCE -o OUT "
    "--dtype fp16. Engines are strongly typed, and TensorRT 11 has no other kind"
)
ShapesOption = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME:1x64", help="As trtexec or Polygraphy spell it; repeatable."),
]
PrecisionOption = Annotated[bool, typer.Option(hidden=True)]


def build(
    bundle: BundleArgument,
    backend: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="tensorrt or tensorrt_rtx; default: the installed one."),
    ] = None,
    compute_capability: Annotated[
        list[str] | None,
        typer.Option(metavar="8.9", help="GPU to build for (tensorrt_rtx); repeatable."),
    ] = None,
    max_batch_size: Annotated[
        int | None, typer.Option(metavar="N", help="Rows at most; default 8.")
    ] = None,
    max_input_len: Annotated[
        int | None, typer.Option(metavar="N", help="Steps a call at most; default 512.")
    ] = None,
    min_shapes: ShapesOption = None,
    opt_shapes: ShapesOption = None,
    max_shapes: ShapesOption = None,
    timing_cache: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Read, extended and written (tensorrt).")
    ] = None,
    print_trtexec: Annotated[
        bool, typer.Option("--print-trtexec", help="Print NVIDIA's equivalent command instead.")
    ] = False,
    fp16: PrecisionOption = False,
    bf16: PrecisionOption = False,
    int8: PrecisionOption = False,
    fp8: PrecisionOption = False,
    best: PrecisionOption = False,
    json: JsonOption = False,
) -> None:
    """Build a TensorRT engine of OUT, its recurrences in our plugins.

    It goes into OUT/engines. Profile 0 is decode (one step a call), profile 1 prefill.
    tensorrt_rtx needs no GPU to build.
    """
    if fp16 or bf16 or int8 or fp8 or best:
        raise typer.BadParameter(PRECISION)
    options: dict[str, Any] = {
        "backend": backend,
        "compute_capabilities": compute_capability or (),
        "timing_cache": timing_cache,
        "max_batch_size": max_batch_size,
        "max_input_len": max_input_len,
        "min_shapes": min_shapes,
        "opt_shapes": opt_shapes,
        "max_shapes": max_shapes,
    }
    if print_trtexec:
        typer.echo(xe.trtexec_command(bundle, **options))
        return
    start = time.perf_counter()
    with progress_bar("build") as progress:
        made = xe.build(bundle, **options, progress=progress)
    _print(made, time.perf_counter() - start, json)


def _print(made: xe.Built, seconds: float, json: bool) -> None:
    size = made.engine.stat().st_size
    if json:
        record = dataclasses.asdict(made.record)
        about = {"engine": str(made.engine), "seconds": seconds, "bytes": size}
        more = made.continuation
        going_on = more and {"engine": str(more.engine), **dataclasses.asdict(more.record)}
        print_json({**about, "notice": made.notice, **record, "continuation": going_on})
        return
    out = console()
    out.print(f"{made.engine}: {decimal(size)}, {seconds:.1f} s")
    facts = xe.inspect(made.engine).words
    for key in ("backend", "GPUs", "plugin library"):
        out.print(f"  {key:16} {facts[key]}")
    for line in facts["profiles"]:
        out.print(f"  profile {line}")
    out.print(f"  {len(made.record.plugins)} operators of ai.xlstm, each a plugin")
    if made.continuation:
        count = len(made.continuation.record.plugins)
        out.print(f"  {'goes on by':16} {made.continuation.engine}: {count} operators, plugins too")
    if made.notice:
        out.print(f"  {'note':16} {made.notice}")
