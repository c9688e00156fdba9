"""``xlstm-export export``: a checkpoint to a bundle."""

from __future__ import annotations

import dataclasses
import shlex
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.filesize import decimal

from xlstm_export import pipeline
from xlstm_export.cli.arguments import (
    ConfigOption,
    FamilyOption,
    JsonOption,
    PrefixOption,
    SourceArgument,
)
from xlstm_export.cli.choices import (
    parse_dtype,
    parse_family,
    parse_logits,
    parse_opset,
    parse_state_names,
)
from xlstm_export.cli.console import console, print_json, progress_bar
from xlstm_export.families.hub import resolve_source
from xlstm_export.lowering.options import LoweringOptions

_SHOWN = 4
"""Names of tensors that were left out."""


def export(
    source: SourceArgument,
    out: Annotated[Path, typer.Option("-o", "--output", metavar="OUT", help="Bundle to make.")],
    family: FamilyOption = "auto",
    config: ConfigOption = None,
    prefix: PrefixOption = "",
    dtype: Annotated[str, typer.Option(metavar="TYPE", help="fp32, fp16, or bf16.")] = "fp32",
    opset: Annotated[int, typer.Option(metavar="N", help="ONNX opset, 18 to 21.")] = 18,
    logits: Annotated[
        str, typer.Option(metavar="STEPS", help="all steps, or the last one only.")
    ] = "all",
    ragged: Annotated[
        bool, typer.Option("--ragged", help="Add the input sequence_lengths [batch].")
    ] = False,
    state_names: Annotated[
        str, typer.Option(metavar="STYLE", help="Names of the states: native, genai, edgellm.")
    ] = "native",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the bundle OUT, with all it holds.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Lower SOURCE to the ONNX bundle OUT."""
    options = LoweringOptions(
        parse_dtype(dtype),
        parse_opset(opset),
        parse_logits(logits),
        ragged,
        parse_state_names(state_names),
    )
    family = parse_family(family)
    start = time.perf_counter()
    with progress_bar("export") as progress:
        made = pipeline.export(
            resolve_source(source, config, prefix), out, options,
            family=family, overwrite=overwrite, progress=progress,
        )  # fmt: skip
    seconds = time.perf_counter() - start
    files = {f.name: f.stat().st_size for f in sorted(made.bundle.iterdir()) if f.is_file()}
    if json:
        print_json(
            {
                "bundle": str(made.bundle),
                "seconds": seconds,
                "nodes": made.nodes,
                "left_out": list(made.left_out),
                "files": files,
                "manifest": dataclasses.asdict(made.manifest),
            }
        )
        return
    _print(made, files, seconds)
    words = ["xlstm-export", "validate", str(made.bundle), "--reference", source]
    words += ["--config", str(config)] if config else []
    words += ["--prefix", prefix] if prefix else []
    words += ["--family", family] if family != "auto" else []
    console().print(f"next: {shlex.join(words)}")


def _print(made: pipeline.Exported, files: dict[str, int], seconds: float) -> None:
    out = console()
    manifest = made.manifest
    out.print(
        f"{made.bundle}: {manifest.family}, {manifest.dtype}, opset {manifest.opset}, "
        f"{made.nodes} nodes, {len(manifest.states)} states, {seconds:.1f} s"
    )
    if made.left_out:
        some = ", ".join(made.left_out[:_SHOWN]) + (", …" if len(made.left_out) > _SHOWN else "")
        out.print(f"  left out: {len(made.left_out)} tensors outside the prefix ({some})")
    for name, size in files.items():
        out.print(f"  {name:24} {decimal(size):>10}")
