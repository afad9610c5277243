"""docs/security.md names tests that exist, and every key that opens a port, calls somebody or holds a secret."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harmonylite.config import Settings
from harmonylite.config.section import keys

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
TESTS = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
NAMED = sorted(set(re.findall(r"`(test_\w+)`", PAGE)))
DOORS = re.compile(r"\b(Secret|Url)\b|function=<function (_file|_address|_http_address|_endpoint) ")
"""In the declaration of a key that is an address, a file, or something that may hold a password."""

TOUCHY = [key.name for key in keys(Settings) if DOORS.search(repr(key.kind))]


@pytest.mark.parametrize("name", NAMED)
def test_a_test_that_is_named_exists(name: str) -> None:
    assert re.search(rf"def {name}\(", TESTS)


@pytest.mark.parametrize("name", TOUCHY)
def test_a_key_that_opens_a_door_or_holds_a_secret_is_listed(name: str) -> None:
    assert f"`{name}`" in PAGE


def test_such_keys_are_found_by_their_kind() -> None:
    assert {"nats.token", "nats.leaf_addr", "nats.urls", "health_check.bind", "snapshot.sign_key"} <= set(TOUCHY)
    assert {"snapshot.sftp.url", "nats.cluster_secret_file", "snapshot.file.path"} <= set(TOUCHY)


def test_each_threat_has_its_test() -> None:
    table = PAGE.partition("## Threats")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 15
    assert [row for row in rows if "`test_" not in row] == []
