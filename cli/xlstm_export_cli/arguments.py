"""Arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SourceArgument = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="Checkpoint folder, weights file, or org/name on the Hugging Face Hub.",
        show_default=False,
    ),
]
BundleArgument = Annotated[
    Path,
    typer.Argument(metavar="OUT", help="Bundle folder that export made.", show_default=False),
]
FamilyOption = Annotated[
    str,
    typer.Option(
        "--family",
        metavar="NAME",
        help="auto, hf, xlstm_large, block_stack, tirex, tirex2, or vil.",
    ),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Configuration of a weights file given alone."),
]
PrefixOption = Annotated[
    str,
    typer.Option(
        "--prefix",
        metavar="NAME",
        help="Where the model is a part of another: what the names of its tensors start with.",
        show_default=False,
    ),
]
NumericsOption = Annotated[
    str | None,
    typer.Option(
        metavar="WAY",
        help="faithful (default): round to bfloat16 what upstream rounds; fp32: nothing (TiRex "
        "alone).",
    ),
]
NativeOption = Annotated[
    bool, typer.Option(help="Compute operators with the native kernels where installed.")
]
EngineOption = Annotated[
    str | None,
    typer.Option(
        "--engine",
        metavar="NAME|FILE",
        help="Run this engine of OUT/engines on the GPU instead of ONNX Runtime.",
    ),
]
ModuleOption = Annotated[
    str | None,
    typer.Option(
        metavar="PACKAGE.MODULE:FUNCTION",
        help="A network of your own instead of SOURCE: the function returns it and its example "
        "inputs. Looked for in this folder, too.",
    ),
]
WeightsOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Weights of --module: .safetensors, or a state dict."),
]
BackendOption = Annotated[
    str,
    typer.Option(
        "--backend",
        metavar="NAME",
        help="ort: ONNX Runtime on the CPU; ort-cuda: on the GPU (onnxruntime-gpu); tensorrt, "
        "tensorrt_rtx: OUT's engine of that kind; default: the engine where one is given, else "
        "ort.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
ThreadsOption = Annotated[
    int | None, typer.Option(metavar="N", help="Processors to use; default: all.", min=1)
]
