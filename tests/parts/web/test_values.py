"""Rows and keys as JSON: every column of the table, and nothing beside them."""

from __future__ import annotations

import json

import pytest

from harmonylite.model import SqlValue
from harmonylite.web.values import ShownEntry, key_json


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ({"id": "a", "rowid": None}, {"id": "a"}),
        ({"id": "a", "_rowid_": None}, {"id": "a"}),
        ({"id": None, "rowid": 7}, {"id": None, "rowid": 7}),
        ({"rowid": 7}, {"rowid": 7}),
        ({"rowid": None}, {"rowid": None}),
        ({"id": None, "n": b"\x00"}, {"id": None, "n": {"blob": "00"}}),
    ],
)
def test_a_key_names_its_row_and_no_rowid_that_is_null(key: dict[str, SqlValue], shown: object) -> None:
    assert key_json(key) == shown


@pytest.mark.parametrize("text", ["plain", "ü", "a\u2028b\x85c", '\x00\n\r"', "\udcff", "𝄞"])
def test_an_entry_is_one_line_of_ascii_that_means_the_same(text: str) -> None:
    entry = ShownEntry(
        position="0:7", changes=[{"table": text, "key": {text: text}, "n": [2**63 - 1, -0.0, 1e300, None]}]
    )
    assert entry.line.isascii()
    assert entry.line.decode().splitlines(keepends=True) == [entry.line.decode()]
    assert json.loads(entry.line) == entry
    head, data, end = entry.event.decode().split("\n", 2)[0], entry.event.splitlines()[2], entry.event[-2:]
    assert (head, json.loads(data.removeprefix(b"data: ")), end) == ("id: 0:7", entry, b"\n\n")
    assert entry.line is entry.line, "made once"
