"""Version of the package: that of ``xlstm_export``, and what native libraries are inside.

scikit-build-core asks for it. ``make wheel`` sets XLSTM_WHEEL_TAG: cpu, or cu12 or cu13 with the
CUDA part. The version is then 0.1.0+cpu, which pip does not take for the pure 0.1.0.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

_TAGS = re.compile(r"cpu|cu\d+")


def dynamic_metadata(field: str, settings: dict[str, Any] | None = None) -> str:
    """The field ``version``. Raises ValueError for another field, settings, or an odd tag."""
    if field != "version" or settings:
        raise ValueError("only the version is known here, and it takes no settings")
    text = (Path(__file__).parents[1] / "xlstm_export" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"', text, re.MULTILINE)
    if found is None:
        raise ValueError("xlstm_export/__init__.py has no __version__")
    tag = os.environ.get("XLSTM_WHEEL_TAG", "")
    if tag and not _TAGS.fullmatch(tag):
        raise ValueError(f"XLSTM_WHEEL_TAG={tag}: expected cpu, cu12, cu13 or the like")
    return f"{found[1]}+{tag}" if tag else found[1]
