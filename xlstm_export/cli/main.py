"""Entry point: the commands, and errors as a few lines instead of a traceback."""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Sequence
from types import FrameType

import typer

from xlstm_export.cli import build, doctor, export, inspect, run, validate
from xlstm_export.cli.console import print_error
from xlstm_export.errors import XlstmExportError
from xlstm_export.target import on_stop

FAILED = 1
BUG = 70
"""EX_SOFTWARE of sysexits.h: nothing the user did."""


def _with_dashes(name: str) -> str:
    """--max_new_tokens is --max-new-tokens: people's fingers know either."""
    return name.replace("_", "-")


app = typer.Typer(
    name="xlstm-export",
    context_settings={"token_normalize_func": _with_dashes},
    help="Trained xLSTM checkpoints to ONNX, and proof that the numbers are PyTorch's.",
    epilog="Exit codes: 0 done and true, 1 error or failed validation, 2 wrong usage.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("inspect")(inspect.inspect)
app.command("export")(export.export)
app.command("build")(build.build)
app.command("validate")(validate.validate)
app.command("run")(run.run)
app.command("doctor")(doctor.doctor)


class _Stopped(BaseException):
    """A stopping signal arrived; typer would turn KeyboardInterrupt into silence."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@app.callback()
def options(
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error."),
    version: bool = typer.Option(
        False, "--version", help="Print the version.", is_eager=True, callback=doctor.print_version
    ),
) -> None:
    """Options of every command."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; exit code 0 means that what was printed is true."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words  # before or after the command
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that has no ✓
    try:
        with on_stop(_stop):
            app([word for word in words if word != "--debug"], prog_name="xlstm-export")
    except _Stopped as stopped:
        _fail(stopped, f"interrupted ({stopped})", 128 + stopped.number, debug)
    except XlstmExportError as error:
        _fail(error, str(error), FAILED, debug)
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        _fail(error, f"{error.filename}: {reason}" if error.filename else reason, FAILED, debug)
    except MemoryError as error:
        _fail(error, "out of memory", FAILED, debug)
    except Exception as error:
        what = f"{type(error).__name__}: {error}".rstrip(": ").splitlines()[0]
        advice = "this is a bug in xlstm-export; please report it with what --debug shows"
        _fail(error, f"unexpected {what}\n{advice}", BUG, debug)


def _stop(number: int, frame: FrameType | None) -> None:
    raise _Stopped(number)


def _fail(error: BaseException, message: str, code: int, debug: bool) -> None:
    if debug:
        raise error
    print_error(message)
    sys.exit(code)


if __name__ == "__main__":
    main()
