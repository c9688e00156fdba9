"""The options that the CPU benchmarks share, and what becomes of their bars."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from benchmarks.harness import Bar


def read_arguments(
    parser: argparse.ArgumentParser, *, quick: str, parts: Collection[str] = ()
) -> argparse.Namespace:
    """Parse with --quick (``quick`` says what it does), --json and --check; of ``parts``, any.

    Exits with usage on an unknown part, and on --check beside --quick.
    """
    if parts:
        parser.add_argument("parts", nargs="*", help=f"of {', '.join(parts)}; default all")
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--json", type=Path, help="file to write everything to")
    parser.add_argument("--check", action="store_true", help="exit 1 when a bar is missed")
    arguments = parser.parse_args()
    if arguments.quick and arguments.check:
        parser.error("--check judges full sizes: leave out --quick")
    if parts:
        unknown = set(arguments.parts) - set(parts)
        if unknown:
            parser.error(f"no such part: {', '.join(sorted(unknown))}")
        arguments.parts = arguments.parts or list(parts)
    return arguments


def judged(bars: list[Bar], arguments: argparse.Namespace) -> list[Bar]:
    """``bars``; none of them where sizes are --quick's."""
    return [] if arguments.quick else bars


def check(bars: Sequence[Bar], arguments: argparse.Namespace) -> None:
    """With --check, exit 1 where a bar is missed."""
    if arguments.check and not all(bar.passed for bar in bars):
        sys.exit(1)
