"""The scripts in findings/ are executable, listed, and say what was found, in which versions, and what to do."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

FINDINGS = Path(__file__).parents[2] / "findings"
SCRIPTS = sorted(FINDINGS.glob("*.sh"))
PINNED = re.compile(r"(\S==|\"=|\S@v?|<version>|artifact=[\w.:-]+:)[\d$]|\$\{PYTHON:-")


@pytest.mark.parametrize("script", SCRIPTS, ids=[path.stem for path in SCRIPTS])
def test_a_finding_can_be_run_and_says_what_it_found(script: Path) -> None:
    assert os.access(script, os.X_OK)
    text = script.read_text(encoding="utf-8")
    head = text.partition("\nsource ")[0]
    for word in ("Versions:", "Guess:", "Behaviour:", "For users:", "Output:"):
        assert f"# {word}" in head, word
    assert PINNED.search(text), "its packages are pinned"
    assert "harmonylite" not in text.replace("HarmonyLite", ""), "it runs without HarmonyLite"


def test_the_table_lists_each_finding_once() -> None:
    listed = re.findall(
        r"^\| \[([\w-]+)\]\(\1\.sh\)", (FINDINGS / "README.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert sorted(listed) == [path.stem for path in SCRIPTS]


def test_the_page_on_compatibility_says_what_to_do_about_each_finding() -> None:
    page = (FINDINGS.parent / "docs" / "compatibility.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"\.\./findings/([\w-]+)\.sh", page)) == [path.stem for path in SCRIPTS]
