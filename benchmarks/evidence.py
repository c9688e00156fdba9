"""What validate says of a model of every family and of every demo: the pages of docs/validation/.

python -m benchmarks.evidence [NAME ...] [--pages DIR] [--html DIR] [--work DIR]

Makes each checkpoint (the demos are in recipes/demo; the others have random weights, written in the
layout of upstream's package), exports it, validates the bundle against upstream's own module, and
writes the report as Markdown and its row in the table of index.md; with --html the pages for people
too. Exit code 1 where a verdict is ``failed``.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import xlstm_export as xe
from benchmarks.evidence_models import MAKERS, nearest_neighbour
from xlstm_export.report.summary import evidence as figures
from xlstm_export.report.summary import headline

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs" / "validation"
_HEAD = (
    "| model | verdict | reference | largest error, of what rounding explains | checks |",
    "|---|---|---|---|---|",
)
_TABLE = "<!-- the table: python -m benchmarks.evidence -->"


@dataclass(frozen=True)
class Entry:
    """One report: ``name`` of the page, what the model is, and how it is exported and validated.

    ``source`` is a checkpoint of this repository or the name of one that is made.
    """

    name: str
    what: str
    source: str
    export: dict[str, Any] = field(default_factory=dict)
    validate: dict[str, Any] = field(default_factory=dict)


_TEXT = "recipes/demo/char_lm/excerpt.txt"
ENTRIES = (
    Entry("char-lm", "Demo language model, block stack of mLSTM and sLSTM, float32",
          "recipes/demo/char_lm", {}, {"inputs": _TEXT}),
    Entry("char-lm-fp16", "The same in float16, beside the float32 bundle",
          "recipes/demo/char_lm", {"dtype": "fp16"}, {"against": "out/char-lm"}),
    Entry("char-lm-int8", "The same with weights in 8 bits, beside the float32 bundle",
          "recipes/demo/char_lm", {"weight_format": "int8"},
          {"inputs": _TEXT, "against": "out/char-lm"}),
    Entry("parity", "Demo of state tracking, block stack of sLSTM", "recipes/demo/parity"),
    Entry("forecaster", "Demo forecaster, TiRex layout", "recipes/demo/forecaster"),
    Entry("block-stack", "Block stack, random, 7 blocks of size 128 with an sLSTM in the middle",
          "block-stack"),
    Entry("xlstm-large", "xLSTM Large, random, 4 blocks of size 256", "xlstm-large"),
    Entry("hf", "transformers' xLSTM, random bfloat16 shards, bundle in float16", "hf",
          {"dtype": "fp16"}),
    Entry("tirex", "TiRex, random, 4 blocks of size 128", "tirex"),
    Entry("tirex2", "TiRex-2, random", "tirex2"),
    Entry("vil", "Vision-LSTM 2, random, 8 blocks of size 96", "vil"),
    Entry("vil-one", "Vision-LSTM 1, random, bundle in bfloat16", "vil-one", {"dtype": "bf16"}),
    Entry("module", "A user's own network around an mLSTM stack", "module"),
)  # fmt: skip


def report_of(entry: Entry) -> xe.Report:
    """Export and validate in the current folder, whose paths the report names."""
    out = Path("out", entry.name)
    if entry.name == "module":
        network, inputs = nearest_neighbour()
        xe.export_module(network, inputs, out, overwrite=True)
        return xe.validate_module(out, network, inputs)
    source = Path(entry.source)
    if entry.source in MAKERS:
        source = Path("checkpoints", entry.source)
        MAKERS[entry.source](source)
    xe.export(source, out, overwrite=True, **entry.export)
    return xe.validate(out, source, **entry.validate)


def page_of(entry: Entry, report: xe.Report) -> str:
    """The report as a page of the site; seconds are left out, which differ in every run."""
    start, _, rest = replace(report, speeds=None).to_markdown().partition("\n")
    return f"# {entry.what}\n\n**{start.removeprefix('# ')}**\n{rest}"


def row_of(entry: Entry, report: xe.Report) -> str:
    """Its row of the table."""
    facts = dict(figures(report))
    cells = (
        f"[{entry.what}]({entry.name}.md)", report.verdict, report.reference,
        facts.get("largest error, of what rounding explains", "–"),
        facts.get("checks passed", "–"),
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def with_rows(index: str, rows: dict[str, str]) -> str:
    """The page ``index`` with ``rows`` by entry, new or in the place of those that are there."""
    start, _, old = index.partition(_TABLE)
    kept = {m[1]: m[0] for m in re.finditer(r"^\| \[.*\]\(([\w-]+)\.md\).*$", old, re.MULTILINE)}
    rows = kept | rows
    shown = (rows[entry.name] for entry in ENTRIES if entry.name in rows)
    return "\n".join([f"{start}{_TABLE}", "", *_HEAD, *shown, ""])


@contextmanager
def _folder(work: Path | None) -> Iterator[None]:
    """A folder that looks like a checkout, as the current one."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as made:
        place = (work or Path(made)).resolve()
        place.mkdir(parents=True, exist_ok=True)
        if not (place / "recipes").exists():
            (place / "recipes").symlink_to(ROOT / "recipes")
        os.chdir(place)
        try:
            yield
        finally:
            os.chdir(before)


def run(names: list[str], pages: Path, html: Path | None, work: Path | None) -> bool:
    """Write the pages of ``names``; whether no verdict is ``failed``."""
    chosen = [entry for entry in ENTRIES if entry.name in names or not names]
    pages, html = pages.resolve(), html.resolve() if html else None
    found: dict[str, xe.Report] = {}
    with _folder(work):
        for entry in chosen:
            report = found[entry.name] = report_of(entry)
            print(f"{entry.name}: {report.verdict}. {headline(report)}", flush=True)
            _write(pages / f"{entry.name}.md", page_of(entry, report))
            if html is not None:
                _write(html / f"{entry.name}.html", report.to_html())
    index = pages / "index.md"
    rows = {entry.name: row_of(entry, found[entry.name]) for entry in chosen}
    _write(index, with_rows(index.read_text(encoding="utf-8"), rows))
    return all(report.ok for report in found.values())


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def main(words: Sequence[str] | None = None) -> None:
    """Write the pages; the exit code is the verdict on all of them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    known = [entry.name for entry in ENTRIES]
    parser.add_argument("names", nargs="*", help=f"of {', '.join(known)}; default: all")
    parser.add_argument("--pages", type=Path, default=PAGES)
    parser.add_argument("--html", type=Path)
    parser.add_argument("--work", type=Path)
    given = parser.parse_args(words)
    unknown = [name for name in given.names if name not in known]  # argparse refuses none at all
    if unknown:
        parser.error(f"{unknown[0]} is not one of {', '.join(known)}")
    sys.exit(0 if run(given.names, given.pages, given.html, given.work) else 1)


if __name__ == "__main__":
    main()
