"""``xlstm-export export``: a checkpoint to a bundle."""

from __future__ import annotations

import dataclasses
import shlex
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.filesize import decimal
from rich.padding import Padding
from rich.table import Table

import xlstm_export as xe
from xlstm_export_cli import own_module
from xlstm_export_cli.arguments import (
    ConfigOption,
    FamilyOption,
    JsonOption,
    ModuleOption,
    NumericsOption,
    PrefixOption,
    WeightsOption,
)
from xlstm_export_cli.console import console, error_console, print_json, progress_bar

OptionalSourceArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="SOURCE",
        help="Checkpoint folder, weights file, or org/name on the Hugging Face Hub.",
        show_default=False,
    ),
]
RecipeOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="A published model: its source, family and options. See recipes."
    ),
]
StateNamesOption = Annotated[
    str | None,
    typer.Option(
        metavar="STYLE",
        help="Names of the states: native (default), genai, edgellm. Names only: "
        "onnxruntime-genai feeds conv_state and recurrent_state alone, and so does not run such a "
        "bundle by itself.",
    ),
]
ResolutionOption = Annotated[
    str | None,
    typer.Option(
        metavar="HxW", help="Size of the images, such as 384x384; default: as it was trained."
    ),
]

StatesOption = Annotated[
    bool, typer.Option("--states", help="States of --module are inputs and outputs.")
]
DtypeOption = Annotated[
    str | None, typer.Option(metavar="TYPE", help="fp32 (default), fp16, or bf16.")
]
OpsetOption = Annotated[
    int | None, typer.Option(metavar="N", help="ONNX opset, 18 (default) to 21.")
]
LogitsOption = Annotated[
    str | None, typer.Option(metavar="STEPS", help="all steps (default), or the last one only.")
]
RaggedOption = Annotated[
    bool | None, typer.Option("--ragged", help="Add the input sequence_lengths [batch].")
]
WeightFormatOption = Annotated[
    str | None,
    typer.Option(
        metavar="TYPE",
        help="int8 or int4: projections, tables and heads in blocks with a scale each.",
    ),
]
BlockSizeOption = Annotated[
    int | None, typer.Option(metavar="N", help="Weights under one scale: 16 to 256 (default 64).")
]
SymmetricOption = Annotated[
    bool | None,
    typer.Option(
        "--symmetric/--asymmetric",
        help="Blocks around 0 (default), or with zero points, which TensorRT does not read.",
        show_default=False,
    ),
]
KeepWideOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATTERN",
        help="Names of weights that --weight-format leaves as they are, such as "
        "'lm_head.*'; may be given again.",
    ),
]
MatMulNBitsOption = Annotated[
    bool | None,
    typer.Option(
        "--matmul-nbits",
        help="Products as MatMulNBits, for ONNX Runtime alone, not standard operators.",
    ),
]
CalibrateOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Real input (text, or a table of series): scales that suit it best.",
    ),
]
MaxKlOption = Annotated[
    float | None,
    typer.Option(
        "--max-kl",
        metavar="X",
        help="Mixed bits: the weights that hurt most get more, until the KL divergence on the "
        "--calibrate text is X nats at most.",
    ),
]
TargetSizeOption = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Mixed bits: as many as fit into SIZE, such as 300MB, of model.onnx.data; with "
        "--calibrate.",
    ),
]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace the bundle OUT, with all it holds.")
]

_SHOWN = 4
"""Names of tensors that were left out."""


def export(
    out: Annotated[Path, typer.Option("-o", "--output", metavar="OUT", help="Bundle to make.")],
    source: OptionalSourceArgument = None,
    recipe: RecipeOption = None,
    module: ModuleOption = None,
    weights: WeightsOption = None,
    states: StatesOption = False,
    family: FamilyOption = "auto",
    config: ConfigOption = None,
    prefix: PrefixOption = "",
    dtype: DtypeOption = None,
    opset: OpsetOption = None,
    logits: LogitsOption = None,
    ragged: RaggedOption = None,
    state_names: StateNamesOption = None,
    resolution: ResolutionOption = None,
    numerics: NumericsOption = None,
    weight_format: WeightFormatOption = None,
    block_size: BlockSizeOption = None,
    symmetric: SymmetricOption = None,
    keep_wide: KeepWideOption = None,
    matmul_nbits: MatMulNBitsOption = None,
    calibrate: CalibrateOption = None,
    max_kl: MaxKlOption = None,
    target_size: TargetSizeOption = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Lower SOURCE (or --recipe, or --module) to the ONNX bundle OUT."""
    of_checkpoints: dict[str, Any] = {
        "recipe": recipe, "config": config, "prefix": prefix, "logits": logits, "ragged": ragged,
        "state_names": state_names, "resolution": resolution, "numerics": numerics,
        "weight_format": weight_format, "block_size": block_size, "symmetric": symmetric,
        "keep_wide": tuple(keep_wide or ()), "matmul_nbits": matmul_nbits,
        "calibrate": calibrate, "max_kl": max_kl, "target_size": target_size,
    }  # fmt: skip
    named = None if family == "auto" else family
    own_module.refuse(
        module, {"source": source, "family": named, **of_checkpoints},
        {"weights": weights, "states": states or None},
    )  # fmt: skip
    of_all: dict[str, Any] = {"dtype": dtype, "opset": opset, "overwrite": overwrite}
    start = time.perf_counter()
    with progress_bar("export") as progress:
        if module is not None:
            made = own_module.export(module, weights, out, states, progress, **of_all)
        else:
            made = xe.export(
                source, out, family=family, progress=progress, **of_all, **of_checkpoints
            )
    seconds = time.perf_counter() - start
    if json:
        print_json(_about(made, seconds))
        return
    _print(made, made.files(), seconds)
    reference = source or (None if recipe is None else xe.find_recipe(recipe).locate())
    _print_next(
        made, reference=reference, module=module, weights=weights, config=config, prefix=prefix,
        family=named,
    )  # fmt: skip


def _print_next(made: xe.Bundle, **options: Any) -> None:
    """The command that validates what was made."""
    words = ["xlstm-export", "validate", str(made.path)]
    for name, value in options.items():
        words += [f"--{name}", str(value)] if value else []
    console().print(f"next: {shlex.join(words)}")


def _about(made: xe.Bundle, seconds: float) -> dict[str, Any]:
    bound = xe.decode_bound(made)
    return {
        "bundle": str(made.path),
        "seconds": seconds,
        "decoding": None if bound is None else dataclasses.asdict(bound),
        "nodes": made.nodes,
        "left_out": list(made.left_out),
        "notes": list(made.notes),
        "files": made.files(),
        "manifest": dataclasses.asdict(made.manifest),
    }


def _decoding(bound: xe.DecodeBound) -> str:
    """What decoding takes here at least: memory's speed by what a token moves is its bound."""
    return (
        f"  decoding one sequence here: {bound.tokens_per_second:,.0f} tokens/s at most "
        f"({decimal(bound.moved)} a token at {decimal(int(bound.bandwidth))}/s), in "
        f"{decimal(bound.memory)} of memory or some more"
    )


_ROWS = 16
"""Of the table of a mixture."""


def _print_mixture(made: xe.Bundle) -> None:
    """Which weights got how many bits, and why."""
    low_bit = made.manifest.low_bit
    if low_bit is None or low_bit.mixed is None:
        return
    mixed, out = low_bit.mixed, console()
    out.print(f"  {mixed.words}")
    table = Table("kept as", "bytes", "cost in fewest bits", "cost", "weights", box=None)
    for choice in mixed.choices[:_ROWS]:
        costs = (f"{cost:.1e}" for cost in (choice.error, choice.error_kept))
        table.add_row(choice.kept, decimal(choice.bytes), *costs, ", ".join(choice.names))
    out.print(Padding(table, (0, 0, 0, 1)))
    if len(mixed.choices) > _ROWS:
        out.print(f"  and {len(mixed.choices) - _ROWS} that cost less: all are in the manifest")


def _print(made: xe.Bundle, files: dict[str, int], seconds: float) -> None:
    out = console()
    manifest = made.manifest
    out.print(
        f"{made.path}: {manifest.family}, {manifest.dtype}, opset {manifest.opset}, "
        f"{made.nodes} nodes, {len(manifest.states)} states, {seconds:.1f} s"
    )
    low_bit = manifest.low_bit
    if low_bit is not None:
        wide = f"; {len(low_bit.wide)} kept wide" if low_bit.wide else ""
        out.print(f"  weights: {low_bit.words}{wide}")
    bound = xe.decode_bound(made)
    if bound is not None:
        out.print(_decoding(bound))
    _print_mixture(made)
    if made.left_out:
        some = ", ".join(made.left_out[:_SHOWN]) + (", …" if len(made.left_out) > _SHOWN else "")
        out.print(f"  left out: {len(made.left_out)} tensors outside the prefix ({some})")
    for note in made.notes:
        error_console().print(f"warning: {note}", style="yellow")
    for name, size in files.items():
        out.print(f"  {name:24} {decimal(size):>10}")
