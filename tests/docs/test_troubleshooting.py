"""The page about errors quotes messages that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")


def messages() -> str:
    """Every source of the package, its strings joined where a line was broken."""
    sources = [
        p for folder in ("xlstm_export", "cli") for p in sorted((ROOT / folder).rglob("*.py"))
    ]
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    return re.sub(r"""["']\s*\n\s*f?["']""", "", text)


def test_every_heading_is_a_piece_of_a_message() -> None:
    quoted = re.findall(r"^### `(.+)`$", PAGE, re.MULTILINE)
    assert len(quoted) == PAGE.count("\n### ") > 25
    written = messages()
    assert not [words for words in quoted if words not in written]
