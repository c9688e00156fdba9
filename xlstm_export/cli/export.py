"""``xlstm-export export``: a checkpoint to a bundle."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Annotated

import typer

from xlstm_export import pipeline
from xlstm_export.cli.arguments import ConfigOption, FamilyOption, JsonOption, SourceArgument
from xlstm_export.cli.choices import parse_dtype, parse_logits, parse_opset, parse_state_names
from xlstm_export.cli.console import console, print_json, progress_bar
from xlstm_export.families.hub import resolve_source
from xlstm_export.lowering.lower import LoweringOptions


def export(
    source: SourceArgument,
    out: Annotated[Path, typer.Option("-o", "--output", help="Bundle folder to make.")],
    family: FamilyOption = "auto",
    config: ConfigOption = None,
    dtype: Annotated[str, typer.Option(help="fp32, fp16, or bf16.")] = "fp32",
    opset: Annotated[int, typer.Option(help="ONNX opset, 18 to 21.")] = 18,
    logits: Annotated[str, typer.Option(help="all steps, or the last one only.")] = "all",
    ragged: Annotated[
        bool, typer.Option("--ragged", help="Add the input sequence_lengths [batch].")
    ] = False,
    state_names: Annotated[
        str, typer.Option(help="Names of the states: native, genai, or edgellm.")
    ] = "native",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle.")] = False,
    json: JsonOption = False,
) -> None:
    """Lower SOURCE to an ONNX bundle."""
    options = LoweringOptions(
        dtype=parse_dtype(dtype),
        opset=parse_opset(opset),
        logits=parse_logits(logits),
        ragged=ragged,
        state_names=parse_state_names(state_names),
    )
    start = time.perf_counter()
    with progress_bar("export") as progress:
        made = pipeline.export(
            resolve_source(source, config),
            out,
            options,
            family=family,
            overwrite=overwrite,
            progress=progress,
        )
    seconds = time.perf_counter() - start
    files = {f.name: f.stat().st_size for f in sorted(made.bundle.iterdir()) if f.is_file()}
    if json:
        print_json(
            {
                "bundle": str(made.bundle),
                "seconds": seconds,
                "nodes": made.nodes,
                "files": files,
                "manifest": dataclasses.asdict(made.manifest),
            }
        )
        return
    out_console = console()
    manifest = made.manifest
    out_console.print(
        f"{made.bundle}: {manifest.family}, {manifest.dtype}, opset {manifest.opset}, "
        f"{made.nodes} nodes, {len(manifest.states)} states, {seconds:.1f} s",
        markup=False,
    )
    for name, size in files.items():
        out_console.print(f"  {name:24} {size / 1e6:10.2f} MB", markup=False, highlight=False)
    out_console.print(
        f"next: xlstm-export validate {made.bundle} --reference {source}", markup=False
    )
