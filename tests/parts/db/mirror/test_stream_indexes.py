"""Which unique indexes of the stream a mirror can have though its database lacks them."""

from __future__ import annotations

import pytest

from harmonylite.db.mirror.stream_shapes import _can_be_made
from harmonylite.db.sqlite.untrusted_ddl import Definition

TABLE = 'CREATE TABLE "t"(id TEXT PRIMARY KEY, v TEXT, "a b", low TEXT AS (lower(v)))'


@pytest.mark.parametrize(
    "on",
    ["(v)", '("a b" DESC)', "(v COLLATE NOCASE)", "(lower(v), id)", "(v) WHERE v IS NOT NULL", "(low)", "(id || v)"],
)
def test_what_names_columns_and_functions_of_sqlite_can_be_made(on: str) -> None:
    assert _can_be_made(TABLE, Definition("index", "u", "t", f"CREATE UNIQUE INDEX u ON t{on}"))


@pytest.mark.parametrize(
    "on",
    [
        "(gone)",
        "(norm(v))",
        "(v) WHERE norm(v) = 'x'",
        "(v COLLATE unicase)",
        "(random())",
        "(v); DROP TABLE t",
        "(v); CREATE TABLE other(id)",
        "(load_extension('x'))",
        "(v",
    ],
)
def test_what_lacks_something_or_does_more_cannot(on: str) -> None:
    assert not _can_be_made(TABLE, Definition("index", "u", "t", f"CREATE UNIQUE INDEX u ON t{on}"))
