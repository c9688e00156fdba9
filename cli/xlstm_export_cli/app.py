"""The commands under one name, and the options that all of them share."""

from __future__ import annotations

import typer

from xlstm_export_cli import (
    bench,
    build,
    doctor,
    export,
    inspect,
    recipes,
    run,
    serve,
    triton,
    validate,
)


def _with_dashes(name: str) -> str:
    """--max_new_tokens is --max-new-tokens: people's fingers know either."""
    return name.replace("_", "-")


app = typer.Typer(
    name="xlstm-export",
    context_settings={
        "token_normalize_func": _with_dashes,
        "help_option_names": ["-h", "--help"],
    },
    help="Trained xLSTM checkpoints to ONNX, and proof that the numbers are PyTorch's.",
    epilog="Exit codes: 0 done and true, 1 error or failed validation, 2 wrong usage, 70 a bug "
    "of xlstm-export, 128+N stopped by signal N (141: the reader of a pipe was gone).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("inspect")(inspect.inspect)
app.command("export")(export.export)
app.command("build")(build.build)
app.command("validate")(validate.validate)
app.command("run")(run.run)
app.command("bench")(bench.bench)
app.command("serve")(serve.serve)
app.command("triton")(triton.triton)
app.command("recipes")(recipes.recipes)
app.command("doctor")(doctor.doctor)


@app.callback()
def options(
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error."),
    version: bool = typer.Option(
        False, "--version", help="Print the version.", is_eager=True, callback=doctor.print_version
    ),
    cmake_dir: bool = typer.Option(
        False,
        "--cmake-dir",
        help="Print the folder for CMake's xlstm_DIR, for C++ programs.",
        is_eager=True,
        callback=doctor.print_cmake_dir,
    ),
) -> None:
    """Options of every command."""
