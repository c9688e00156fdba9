"""Entry point: the commands, and errors as a few lines instead of a traceback."""

from __future__ import annotations

import os
import sys

import typer

from xlstm_export.cli import doctor, export, inspect, run, validate
from xlstm_export.cli.console import error_console
from xlstm_export.errors import XlstmExportError

app = typer.Typer(
    name="xlstm-export",
    help="Trained xLSTM checkpoints to ONNX, and proof that the numbers are PyTorch's.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("inspect")(inspect.inspect)
app.command("export")(export.export)
app.command("validate")(validate.validate)
app.command("run")(run.run)
app.command("doctor")(doctor.doctor)


@app.callback()
def options(
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error."),
    version: bool = typer.Option(
        False, "--version", help="Print the version.", is_eager=True, callback=doctor.print_version
    ),
) -> None:
    """Options of every command."""
    if debug:
        os.environ["XLSTM_EXPORT_DEBUG"] = "1"


def main() -> None:
    """Run the command line; exit code 0 means that what was printed is true."""
    try:
        app()
    except XlstmExportError as error:
        _fail(error, str(error))
    except KeyboardInterrupt as error:
        _fail(error, "interrupted; nothing was left behind", code=130)
    except MemoryError as error:
        _fail(error, "out of memory; nothing was left behind")


def _fail(error: BaseException, message: str, code: int = 1) -> None:
    if os.environ.get("XLSTM_EXPORT_DEBUG"):
        raise error
    error_console().print(f"error: {message}", style="red", markup=False, highlight=False)
    sys.exit(code)


if __name__ == "__main__":
    main()
