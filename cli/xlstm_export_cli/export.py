"""``xlstm-export export``: a checkpoint to a bundle."""

from __future__ import annotations

import dataclasses
import shlex
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.filesize import decimal

import xlstm_export as xe
from xlstm_export_cli.arguments import (
    ConfigOption,
    FamilyOption,
    JsonOption,
    NumericsOption,
    PrefixOption,
    SourceArgument,
)
from xlstm_export_cli.console import console, error_console, print_json, progress_bar

StateNamesOption = Annotated[
    str,
    typer.Option(
        metavar="STYLE",
        help="Names of the states: native, genai, edgellm. Names only: onnxruntime-genai feeds "
        "conv_state and recurrent_state alone, and so does not run such a bundle by itself.",
    ),
]
ResolutionOption = Annotated[
    str | None,
    typer.Option(
        metavar="HxW", help="Size of the images, such as 384x384; default: as it was trained."
    ),
]

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
    state_names: StateNamesOption = "native",
    resolution: ResolutionOption = None,
    numerics: NumericsOption = "faithful",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the bundle OUT, with all it holds.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Lower SOURCE to the ONNX bundle OUT."""
    start = time.perf_counter()
    with progress_bar("export") as progress:
        made = xe.export(
            source, out, family=family, config=config, prefix=prefix, overwrite=overwrite,
            progress=progress, dtype=dtype, opset=opset, logits=logits, ragged=ragged,
            state_names=state_names, resolution=resolution, numerics=numerics,
        )  # fmt: skip
    seconds = time.perf_counter() - start
    files = made.files()
    if json:
        print_json(
            {
                "bundle": str(made.path),
                "seconds": seconds,
                "nodes": made.nodes,
                "left_out": list(made.left_out),
                "notes": list(made.notes),
                "files": files,
                "manifest": dataclasses.asdict(made.manifest),
            }
        )
        return
    _print(made, files, seconds)
    words = ["xlstm-export", "validate", str(made.path), "--reference", source]
    words += ["--config", str(config)] if config else []
    words += ["--prefix", prefix] if prefix else []
    words += ["--family", family] if family != "auto" else []
    console().print(f"next: {shlex.join(words)}")


def _print(made: xe.Bundle, files: dict[str, int], seconds: float) -> None:
    out = console()
    manifest = made.manifest
    out.print(
        f"{made.path}: {manifest.family}, {manifest.dtype}, opset {manifest.opset}, "
        f"{made.nodes} nodes, {len(manifest.states)} states, {seconds:.1f} s"
    )
    if made.left_out:
        some = ", ".join(made.left_out[:_SHOWN]) + (", …" if len(made.left_out) > _SHOWN else "")
        out.print(f"  left out: {len(made.left_out)} tensors outside the prefix ({some})")
    for note in made.notes:
        error_console().print(f"warning: {note}", style="yellow")
    for name, size in files.items():
        out.print(f"  {name:24} {decimal(size):>10}")
