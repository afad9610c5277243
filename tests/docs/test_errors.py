"""docs/errors.md is the tree of the errors in `harmonylite.errors`, with the exit codes of each."""

from __future__ import annotations

import re
from pathlib import Path

from harmonylite import errors

DOCS = Path(__file__).parents[2] / "docs"
INDENT = "&nbsp;" * 4


def tree(error: type[errors.HarmonyLiteError], depth: int = 0) -> list[tuple[int, str, str]]:
    """Return depth, name and exit code of an error and of all that are cases of it."""
    cases = [
        case for each in error.__subclasses__() if each.__module__ == errors.__name__ for case in tree(each, depth + 1)
    ]
    return [(depth, error.__name__, str(error.exit_code)), *cases]


def test_the_page_draws_the_tree_as_it_is() -> None:
    rows = re.findall(r"^\| ((?:&nbsp;)*)`(\w+Error)` \| (\d+) \|", (DOCS / "errors.md").read_text(), re.MULTILINE)
    drawn = [(len(indent) // len(INDENT), name, code) for indent, name, code in rows]
    assert drawn == tree(errors.HarmonyLiteError)


def test_the_command_line_explains_each_exit_code() -> None:
    explained = set(re.findall(r"^\| (\d+) \|", (DOCS / "cli.md").read_text().split("## Exit codes")[1], re.MULTILINE))
    assert {code for _, _, code in tree(errors.HarmonyLiteError)} <= explained
