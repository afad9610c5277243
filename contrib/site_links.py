"""A hook of MkDocs: links from docs/ to other files of the repository, which the site lacks, become their names."""

from __future__ import annotations

import posixpath
import re
from typing import Any

LINK = re.compile(r"\[([^\]\[]+)\]\(([^)#:\s]+)(#[^)]*)?\)")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Return the page's text with the path behind each such link's text."""

    def named(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(page.file.src_uri), link[2]))
        if not path.startswith("../"):
            return link[0]
        return f"{link[1]} (`{path.removeprefix('../')}` in the repository)"

    return LINK.sub(named, markdown)
