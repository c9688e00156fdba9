"""``xlstm-export triton``: a bundle as a model of Triton Inference Server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import xlstm_export as xe
from xlstm_export_cli.arguments import BundleArgument
from xlstm_export_cli.console import console

RepositoryOption = Annotated[
    Path,
    typer.Option("-o", "--output", metavar="FOLDER", help="Model repository.", show_default=False),
]
NameOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="Name of the model; default: OUT's folder.")
]
BackendOption = Annotated[
    str, typer.Option("--backend", metavar="NAME", help="onnxruntime, tensorrt, or python.")
]
EngineOption = Annotated[
    str | None,
    typer.Option(metavar="NAME|FILE", help="Engine of OUT/engines, for the backend tensorrt."),
]
DeviceOption = Annotated[
    str, typer.Option(metavar="NAME", help="cpu, gpu, or auto: the GPU for tensorrt alone.")
]
InstancesOption = Annotated[int, typer.Option(metavar="N", help="Copies on a device.", min=1)]
RowsOption = Annotated[int, typer.Option(metavar="N", help="Most rows of a batch.", min=1)]
SequencesOption = Annotated[
    int, typer.Option(metavar="N", help="Sequences at once, of a model with states.", min=1)
]
IdleOption = Annotated[
    int, typer.Option(metavar="N", help="A sequence ends so long after its last request.", min=1)
]
DelayOption = Annotated[
    int, typer.Option(metavar="N", help="How long a batch waits for more rows.", min=0)
]
SeenOption = Annotated[
    str | None,
    typer.Option(metavar="FOLDER", help="The repository as the server sees it; default: as here."),
]


def triton(
    bundle: BundleArgument,
    output: RepositoryOption,
    name: NameOption = None,
    backend: BackendOption = "onnxruntime",
    engine: EngineOption = None,
    device: DeviceOption = "auto",
    instances: InstancesOption = 1,
    max_rows: RowsOption = 16,
    max_sequences: SequencesOption = 256,
    idle_seconds: IdleOption = 600,
    delay_microseconds: DelayOption = 1_000,
    seen_at: SeenOption = None,
) -> None:
    """Add OUT to a model repository of Triton Inference Server.

    A model with states is a sequence there, its state kept by the server; any other is batched
    dynamically.
    """
    made = xe.triton_repository(
        bundle, output, name=name, backend=backend, engine=engine, device=device,
        instances=instances, max_rows=max_rows, max_sequences=max_sequences,
        idle_seconds=idle_seconds, delay_microseconds=delay_microseconds, seen_at=seen_at,
    )  # fmt: skip
    console().print(str(made))
