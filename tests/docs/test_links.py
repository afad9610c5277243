"""Every link of the documentation leads to a page, and to a heading, that is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(str(path.relative_to(ROOT)) for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")))
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")


def text_of(page: Path) -> str:
    """Return a page without its fenced blocks: what is in them is no link."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)


def anchors(page: Path) -> set[str]:
    """Return the names by which a page's headings are reached: lower case, words joined by dashes."""
    heads = re.findall(r"^#+ +(.+)$", text_of(page), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("name", PAGES)
def test_a_link_leads_somewhere(name: str) -> None:
    page = ROOT / name
    for link in _LINK.findall(text_of(page)):
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), f"{link} leads nowhere"
        assert target.is_relative_to(ROOT), f"{link} leads out of the project"
        assert not anchor or anchor in anchors(target), f"{file or name} has no heading {anchor}"


def test_every_page_can_be_reached_from_the_readme() -> None:
    linked = set(_LINK.findall(text_of(ROOT / "README.md")))
    assert {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")} <= linked


def test_every_decision_is_listed() -> None:
    listed = set(_LINK.findall((ROOT / "docs" / "adr" / "README.md").read_text()))
    assert listed == {path.name for path in (ROOT / "docs" / "adr").glob("[0-9]*.md")}


@pytest.mark.parametrize("name", PAGES)
def test_a_file_that_a_page_names_is_there(name: str) -> None:
    folders = (ROOT, ROOT / "src", ROOT / "src" / "harmonylite")
    for file in re.findall(r"`((?:\w+/)*\w+\.py)`", (ROOT / name).read_text()):
        assert any((folder / file).is_file() for folder in folders), f"{file} is not there"
