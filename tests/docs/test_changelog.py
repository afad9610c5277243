"""CHANGELOG.md keeps the form of Keep a Changelog: in each version one heading of each kind."""

from __future__ import annotations

import re
from pathlib import Path

KINDS = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]


def test_a_version_has_one_heading_of_each_kind_in_their_order() -> None:
    text = (Path(__file__).parents[2] / "CHANGELOG.md").read_text()
    versions = re.split(r"^## .*$", text, flags=re.MULTILINE)[1:]
    assert versions
    for version in versions:
        heads = re.findall(r"^### (.+)$", version, re.MULTILINE)
        assert heads == [kind for kind in KINDS if kind in heads]
