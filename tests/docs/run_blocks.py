"""Runs the blocks of a document from the top: ``python run_blocks.py DOCUMENT``.

Python blocks share one namespace, sh blocks run in bash, all in the current folder. A text block
holds what the block before it prints; ``…`` in it is anything, on a line of its own any lines.
A block with a title, ``title="needs a GPU"``, is left out: readers see the reason too.
"""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LANGUAGES = ("python", "sh")


@dataclass(frozen=True)
class Block:
    """A fenced block; ``line`` is where its content begins, ``skip`` why it is not run."""

    language: str
    skip: str
    code: str
    line: int


def blocks(document: Path) -> list[Block]:
    """Every fenced block of ``document`` in order."""
    text = document.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        skip = re.search(r'title="([^"]+)"', match[2])
        line = text.count("\n", 0, match.start(3)) + 1
        found.append(Block(match[1], skip[1] if skip else "", match[3], line))
    return found


def run(block: Block, document: Path, namespace: dict[str, Any]) -> str:
    """What ``block`` prints. Raises where it fails."""
    if block.language == "sh":
        command = ["bash", "-euo", "pipefail", "-c", block.code]
        return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    printed = io.StringIO()
    padded = "\n" * (block.line - 1) + block.code  # a traceback names the document's line
    with contextlib.redirect_stdout(printed):
        exec(compile(padded, str(document), "exec", dont_inherit=True), namespace)
    return printed.getvalue()


def is_as_told(told: str, printed: str) -> bool:
    """Whether ``printed`` is ``told``, in which … stands for anything."""
    lines = [
        "(?:.*\n)*" if line.strip() == "…" else re.escape(line.rstrip()).replace("…", ".*") + " *\n"
        for line in told.splitlines()
    ]
    whole = printed if printed.endswith("\n") else printed + "\n"
    return re.fullmatch("".join(lines), whole) is not None


def main(document: Path) -> None:
    """Run ``document``; the error of a block that fails or prints something else ends it."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    printed: str | None = None
    for block in blocks(document):
        if block.language in LANGUAGES:
            printed = None if block.skip else run(block, document, namespace)
        elif block.language == "text" and printed is not None:
            if not is_as_told(block.code, printed):
                sys.exit(f"{document}:{block.line}: the block before prints\n{printed}")
            printed = None


if __name__ == "__main__":
    main(Path(sys.argv[1]))
