"""docs/schema.md says of each way to change a table whether SQLite refuses it while the capture triggers are there."""

from __future__ import annotations

import re
from pathlib import Path

import apsw
import pytest

from harmonylite.db.sqlite.introspection import read_shape
from harmonylite.db.tracking import layout
from harmonylite.db.tracking.triggers import private_tables, triggers

PAGE = Path("docs/schema.md").read_text().partition("\n## What SQLite refuses beside a node\n")[2]
SETUP = PAGE.partition("```sql\n")[2].partition("```")[0]
FIRST = re.compile(r"ALTER TABLE \w+ ")


def listed() -> list[tuple[str, str]]:
    """Return the statements of each row of the table, whole, and what they are said to meet: "" for nothing."""
    found = []
    for line in PAGE.splitlines():
        if line.startswith("| `"):
            cell, said = (part.strip() for part in line.strip("|").split(" | "))
            several = re.findall("`([^`]*)`", cell)
            start = FIRST.match(several[0])
            whole = [f"{start[0] if start and n else ''}{sql}" for n, sql in enumerate(several)]
            found += [(sql, "".join(re.findall("`([^`]*)`", said))) for sql in whole]
    return found


def outcome(sql: str, *, captured: bool) -> str:
    """Run ``sql`` in one transaction on the page's table, with the capture triggers or without; return the error."""
    connection = apsw.Connection(":memory:")
    connection.execute(SETUP)
    if captured:
        layout.make(connection, "main", private_tables(2))
        shape = read_shape(connection, "t", False)[0]
        assert shape is not None
        for made in triggers(shape, 1).values():
            connection.execute(made)
    pragma, _, rest = sql.partition("; ") if sql.startswith("PRAGMA") else ("", "", sql)
    try:
        connection.execute(pragma)
        with connection:
            connection.execute(rest)
    except apsw.Error as error:
        return str(error)
    finally:
        connection.close()
    return ""


@pytest.mark.parametrize(("sql", "refusal"), listed())
def test_the_page_says_what_sqlite_refuses_beside_a_node(sql: str, refusal: str) -> None:
    assert outcome(sql, captured=False) == ""
    beside = outcome(sql, captured=True)
    assert beside.startswith(refusal)
    assert bool(beside) == bool(refusal)


def test_the_page_lists_the_newer_forms_and_both_that_are_refused() -> None:
    assert [refusal for _, refusal in listed() if refusal] == ["error in trigger", "no such table"]
    assert sum("ALTER COLUMN" in sql or "CONSTRAINT" in sql for sql, _ in listed()) == 6
