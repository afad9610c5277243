"""The pages of docs/design have one form, and the five ways through the code are as short as they say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PARTS = ["What it must guarantee", "The obvious way, and why not", "The way", "What shows it"]


@pytest.mark.parametrize("page", sorted(path.name for path in (DOCS / "design").glob("*.md")))
def test_a_design_page_says_what_holds_what_was_not_done_and_what_shows_it(page: str) -> None:
    heads = re.findall(r"^## (.+)$", (DOCS / "design" / page).read_text(), re.MULTILINE)
    assert [head for head in heads if head in PARTS] in (PARTS, [part for part in PARTS if part != "The way"])


def test_the_index_lists_every_page() -> None:
    index = (DOCS / "README.md").read_text()
    pages = [
        path.relative_to(DOCS) for path in DOCS.rglob("*.md") if path.parent.name != "adr" and path.name != "README.md"
    ]
    assert [page for page in pages if f"({page})" not in index] == []


def test_a_row_passes_as_many_files_as_the_page_says() -> None:
    text = (DOCS / "architecture.md").read_text()
    said, table = re.findall(
        r"^\*\*A row, from a commit.*?\*\* \((\d+) files\)\n(.*?)\n\n\*\*", text, re.MULTILINE | re.DOTALL
    )[0]
    files = re.findall(r"`((?:\w+/)*\w+\.py)`", table)
    assert len(files) == len(set(files)) == int(said) <= 26


def test_every_file_that_a_page_names_is_there() -> None:
    pages = [DOCS / "architecture.md", *(DOCS / "design").glob("*.md")]
    named = {name for page in pages for name in re.findall(r"`((?:\w+/)*\w+\.py)`", page.read_text())}
    root = DOCS.parent
    assert [
        name for name in sorted(named) if not (root / "src/harmonylite" / name).exists() and not (root / name).exists()
    ] == []
