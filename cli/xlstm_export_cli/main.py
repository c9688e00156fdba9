"""Entry point: the command line, and errors as a few lines instead of a traceback.

Only what Python brings is imported here: the rest comes inside the guard, where Ctrl-C is answered.
"""

from __future__ import annotations

import gc
import io
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

import xlstm_export as xe

FAILED = 1
USAGE = 2
"""What typer ends with, too."""
BUG = 70
"""EX_SOFTWARE of sysexits.h: nothing the user did."""
PIPE_CLOSED = 128 + 13
"""SIGPIPE: what other programs end with when the reader of their output is gone."""


_GARBAGE = 20_000
"""Objects between two looks for garbage: importing torch makes a million that stay, and at every
700 Python looks again."""


# Read by torch: tensors of megabytes in pages of 2 MB. In pages of 4 KB a fifth of the time of a
# large model's validation went into the faults of memory that is new with every call.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


class _Stopped(BaseException):
    """A stopping signal arrived; typer would turn KeyboardInterrupt into silence."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; exit code 0 means that what was printed is true."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words  # before or after the command
    gc.set_threshold(_GARBAGE, *gc.get_threshold()[1:])
    try:
        with xe.on_stop(_stop):
            _prepare_streams()
            from xlstm_export_cli.app import app

            app([word for word in words if word != "--debug"], prog_name="xlstm-export")
    except SystemExit as stop:
        # typer and rich answer a closed pipe with the code of an error
        if isinstance(stop.__context__, BrokenPipeError):
            sys.exit(PIPE_CLOSED)
        raise
    except _Stopped as stopped:
        _fail(stopped, f"interrupted ({stopped})", 128 + stopped.number, debug)
    except xe.OptionError as error:
        option = error.option.replace("_", "-")
        _fail(error, f"--{option}: {error}", USAGE, debug)
    except xe.XlstmExportError as error:
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


def _prepare_streams() -> None:
    """One that the caller closed (``>&-``) leads nowhere; a terminal without ✓ shows a ?."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _stop(number: int, frame: FrameType | None) -> None:
    raise _Stopped(number)


def _fail(error: BaseException, message: str, code: int, debug: bool) -> None:
    if debug:
        raise error
    with xe.on_stop(lambda *_: None):  # it ends anyway: a second Ctrl-C must not cut the message
        from xlstm_export_cli.console import print_error

        print_error(message)
    sys.exit(code)


if __name__ == "__main__":
    main()
