"""What documents point at is there; the site's own links are checked by ``make docs``."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
MOST_README_LINES = 90


def test_links_of_documents_outside_the_site_lead_somewhere() -> None:
    documents = [
        *ROOT.glob("*.md"),
        *(ROOT / "recipes").rglob("*.md"),
        *ROOT.glob("benchmarks/*.md"),
    ]
    links = [
        (document, link)
        for document in documents
        for link in re.findall(r"\]\(([^)#\s]+)\)", document.read_text(encoding="utf-8"))
    ]
    assert len(links) > 10
    for document, link in links:
        assert "://" in link or (document.parent / link).exists(), (document, link)


def test_files_that_the_site_names_are_there() -> None:
    """The site cannot link into the checkout: it names files by their paths."""
    paths = {
        path
        for document in (ROOT / "docs").glob("*.md")
        for path in re.findall(
            r"`((?:recipes|benchmarks|xlstm_export|plugins)/[\w./]+)`",
            document.read_text(encoding="utf-8"),
        )
    }
    assert len(paths) >= 4
    assert not [path for path in paths if not (ROOT / path).exists()]


def test_every_page_is_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    named = re.findall(r": ([\w-]+\.md)$", text, re.MULTILINE)
    assert sorted(named) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))
    assert yaml.safe_load(text)["strict"] is True


def test_ci_builds_the_site_before_the_tests() -> None:
    """Strictly: a dead link, a dead anchor or a name that is gone ends it."""
    commands = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert commands.index("make docs") < commands.index("make test") == len(commands) - 1
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8").partition("\ndocs: setup\n")[2]
    assert "mkdocs build --strict\n" in recipe.partition("\n\n")[0] + "\n"
    checks = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["validation"]
    assert checks["links"]["not_found"] == checks["links"]["anchors"] == "warn"


def test_the_site_fetches_nothing() -> None:
    configuration = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert configuration["theme"]["font"] is False
    (_, strings) = configuration["plugins"]
    assert strings["mkdocstrings"]["handlers"]["python"]["inventories"] == []
    assert "://" not in (ROOT / "mkdocs.yml").read_text(encoding="utf-8")


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= MOST_README_LINES
