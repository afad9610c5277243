"""The site of docs/: its table of contents has every page, and it builds strictly, without a network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.needs import Need

ROOT = Path(__file__).parents[2]
MKDOCS = Path(sys.prefix) / "site" / "bin" / "mkdocs"
SITE = Need("mkdocs", "" if MKDOCS.exists() else "make site")


def test_every_page_is_in_the_table_of_contents_once() -> None:
    nav = (ROOT / "mkdocs.yml").read_text().partition("nav:\n")[2]
    listed = re.findall(r"[\w-]+\.md", nav)
    pages = sorted(path.name for path in (ROOT / "docs").glob("*.md"))
    assert sorted(listed) == pages, "name the page below nav in mkdocs.yml"


@SITE.mark
@pytest.mark.timeout(300)
def test_the_site_builds_strictly_and_fetches_nothing_from_elsewhere(tmp_path: Path) -> None:
    built = subprocess.run(
        [MKDOCS, "build", "--quiet", "--site-dir", tmp_path / "site"],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > len(list((ROOT / "docs").glob("*.md")))
    fetched = r'<(?:script|img|iframe)[^>]+src="(https?:[^"]+)|<link[^>]+rel="stylesheet"[^>]+href="(https?:[^"]+)'
    assert [found for page in pages for found in re.findall(fetched, page.read_text())] == []


@pytest.mark.parametrize(
    ("source", "text", "made"),
    [
        (
            "feed.md",
            "see [one](cli.md#commands), [two](../README.md#use-it)",
            "see [one](cli.md#commands), two (`README.md` in the repository)",
        ),
        (
            "adr/0001.md",
            "[a](../feed.md) [b](../../src/x.py) [c](https://example.org/x)",
            "[a](../feed.md) b (`src/x.py` in the repository) [c](https://example.org/x)",
        ),
    ],
)
def test_only_links_out_of_the_site_become_names(source: str, text: str, made: str) -> None:
    script = (ROOT / "contrib" / "site_links.py").read_text()
    names: dict[str, object] = {}
    exec(script, names)  # noqa: S102  # a hook is a script that MkDocs runs like this
    page = type("Page", (), {"file": type("File", (), {"src_uri": source})})
    assert names["on_page_markdown"](text, page=page) == made  # type: ignore[operator]
