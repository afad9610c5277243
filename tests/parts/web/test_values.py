"""Rows and keys as JSON: every column of the table, and nothing beside them."""

from __future__ import annotations

import pytest

from harmonylite.model import SqlValue
from harmonylite.web.values import key_json


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
