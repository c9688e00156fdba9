"""The published reports: one page for each model, all in the site, none of a failure."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks import evidence
from benchmarks.plant_fault import FAULTS, plant
from tests.model_cases import BY_ID, Library
from tests.report.reports import report_of
from xlstm_export.runtime.ort import OrtSession

ROOT = Path(__file__).resolve().parents[2]
PAGES = {entry.name for entry in evidence.ENTRIES}


def test_every_page_is_kept_and_in_the_site() -> None:
    kept = {path.stem for path in evidence.PAGES.glob("*.md")}
    assert kept == PAGES | {"index", "peers"}

    nav = re.findall(r"validation/([\w-]+)\.md", (ROOT / "mkdocs.yml").read_text())
    assert sorted(nav) == sorted(kept)
    assert sum(path.stat().st_size for path in evidence.PAGES.iterdir()) < 2_000_000


@pytest.mark.parametrize("name", sorted(PAGES))
def test_a_page_holds_a_whole_report_that_did_not_fail(name: str) -> None:
    text = (evidence.PAGES / f"{name}.md").read_text(encoding="utf-8")
    assert "**Validation: validated**" in text, "upstream took no part, or it failed"
    assert "incomplete" not in text
    assert re.search(r"sha256 [0-9a-f]{64}", text)
    assert "Versions: xlstm-export" in text
    index = (evidence.PAGES / "index.md").read_text(encoding="utf-8")
    assert f"({name}.md) | validated |" in index


def test_all_pages_and_the_table_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages, html = tmp_path / "pages", tmp_path / "html"
    pages.mkdir()
    old = "| [x](vil.md) | failed |"
    (pages / "index.md").write_text(f"# Before\n\n{evidence._TABLE}\n\n{old}\n")
    monkeypatch.setattr(evidence, "report_of", lambda entry: report_of("validated"))
    with pytest.raises(SystemExit, match=r"^0$"):
        evidence.main(["--pages", str(pages), "--html", str(html)])
    assert {path.stem for path in pages.iterdir()} == PAGES | {"index"}
    assert {path.stem for path in html.iterdir()} == PAGES
    index = (pages / "index.md").read_text()
    assert index.startswith("# Before\n")
    assert "failed" not in index
    assert index.count("| validated |") == len(PAGES)
    page = (pages / "vil.md").read_text()
    assert page.startswith("# Vision-LSTM 2, random")
    assert "**Validation: validated**" in page


def test_one_page_leaves_the_rows_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence, "report_of", lambda entry: report_of("failed"))
    others = "| [x](parity.md) | validated |\n| [y](gone.md) | validated |"
    (tmp_path / "index.md").write_text(f"# Before\n\n{evidence._TABLE}\n\n{others}\n")
    assert not evidence.run(["vil"], tmp_path, None, None)
    assert {path.name for path in tmp_path.iterdir()} == {"vil.md", "index.md"}
    index = (tmp_path / "index.md").read_text()
    assert "| [x](parity.md) | validated |\n| [Vision-LSTM 2" in index
    assert "gone.md" not in index


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_a_planted_fault_runs_and_changes_numbers(
    library: Library, tmp_path: Path, fault: str
) -> None:
    """In the second call: a state that is lost is right in the first."""

    bundle = library.bundle(BY_ID["stack-mixed"])
    name = plant(bundle, tmp_path / "out", fault)
    assert name in ("present.0.mlstm.C", "/layers.0/mlstm/out.weight")
    found = []
    for folder in (bundle, tmp_path / "out"):
        session = OrtSession(folder, threads=1)
        ids = np.arange(8)[None]
        first, states = session.run({"input_ids": ids})
        second, _ = session.run({"input_ids": ids}, states)
        found.append((first["logits"], second["logits"]))
    (first, second), (wrong_first, wrong_second) = found
    assert np.array_equal(first, wrong_first) is (fault == "state-not-carried")
    assert np.abs(second - wrong_second).max() > 1e-3
