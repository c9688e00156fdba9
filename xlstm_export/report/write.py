"""A report's files."""

from __future__ import annotations

from pathlib import Path

from xlstm_export.engine.record import ENGINE_SUFFIX
from xlstm_export.output import write_text
from xlstm_export.report.html import to_html
from xlstm_export.report.json import to_json
from xlstm_export.report.markdown import to_markdown
from xlstm_export.validation.result import Report


def write_report(report: Report, folder: str | Path) -> Path:
    """Write ``report`` into ``folder`` as validation.html, .md and .json; returns the page.

    That of an engine has a name of its own, so that it stands beside the bundle's. Raises
    TargetError where the folder cannot be written.
    """
    engine = Path(report.engine).name.removesuffix(ENGINE_SUFFIX)
    name = f"validation-{engine}" if engine else "validation"
    page = to_html(report)
    write_text(Path(folder) / f"{name}.json", to_json(report))
    write_text(Path(folder) / f"{name}.md", to_markdown(report))
    path = Path(folder) / f"{name}.html"
    write_text(path, page)
    return path
