"""Options of generating text: the prompt, how many tokens, how they are chosen."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer


def _a_number(value: float) -> float:
    if math.isnan(value):  # which is not below the least either
        raise typer.BadParameter("nan is not a number")
    return value


PromptOption = Annotated[
    str | None, typer.Option("-p", "--prompt", metavar="TEXT", help="Text to continue.")
]
PromptFileOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="File with the text to continue; - is stdin.")
]
IdsOption = Annotated[
    str | None, typer.Option(metavar="1,2,3", help="Token ids to continue; ids are printed.")
]
CountOption = Annotated[
    int, typer.Option("-n", "--max-new-tokens", metavar="N", help="Most tokens to make.", min=1)
]
TemperatureOption = Annotated[
    float,
    typer.Option(
        metavar="X", help="0 takes the likeliest; above, draws.", min=0.0, callback=_a_number
    ),
]
TopKOption = Annotated[int, typer.Option(metavar="N", help="Draw from the N best; 0: all.", min=0)]
TopPOption = Annotated[
    float,
    typer.Option(
        metavar="X",
        help="Draw from the likeliest that reach this.",
        min=0.0,
        max=1.0,
        callback=_a_number,
    ),
]
PenaltyOption = Annotated[
    float,
    typer.Option(
        metavar="X",
        help="Above 1: ids that have come already become less likely.",
        callback=_a_number,
    ),
]
StopOption = Annotated[
    list[str] | None,
    typer.Option(
        "--stop", metavar="TEXT", help="End before this text; may be given several times."
    ),
]
SeedOption = Annotated[int, typer.Option(metavar="N", help="Seed of the draws.", min=0)]
BosOption = Annotated[
    bool | None,
    typer.Option(
        "--bos/--no-bos",
        help="Put the beginning-of-sequence id in front; default: as the configuration says.",
        show_default=False,
    ),
]
