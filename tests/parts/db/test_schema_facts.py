"""Two files with one schema have one digest of each object, whichever way they came to it."""

from __future__ import annotations

import apsw
import pytest

from harmonylite.db.schema_facts import SchemaFacts, read_facts
from harmonylite.db.sqlite.introspection import TableRules

TABLES = "CREATE TABLE {t}(id INTEGER PRIMARY KEY, {c} TEXT)"
OBJECTS = {
    "index": "CREATE INDEX o ON {t}({c})",
    "partial": "CREATE INDEX o ON {t}(id) WHERE {c} <> 'Ab'",
    "expression": "CREATE INDEX o ON {t}(lower({c}))",
    "view": "CREATE VIEW o AS SELECT {c}, 'Ab' AS d FROM {t}",
    "trigger": "CREATE TRIGGER o AFTER INSERT ON {t} BEGIN UPDATE {t} SET {c} = 'Ab' WHERE id = new.id; END",
}


def facts(*statements: str) -> SchemaFacts:
    connection = apsw.Connection(":memory:")
    for sql in statements:
        connection.execute(sql)
    return read_facts(connection, TableRules())


@pytest.mark.parametrize("sql", OBJECTS.values(), ids=OBJECTS)
@pytest.mark.parametrize("rename", ["ALTER TABLE t RENAME TO u", 'ALTER TABLE t RENAME COLUMN c TO "d"'])
def test_an_object_that_was_renamed_with_its_table_is_one_made_under_the_new_name(sql: str, rename: str) -> None:
    names = {"t": "u", "c": "c"} if "TO u" in rename else {"t": "t", "c": "d"}
    renamed = facts(TABLES.format(t="t", c="c"), sql.format(t="t", c="c"), rename)
    made = facts(TABLES.format(**names), sql.format(**names))
    assert renamed.objects != made.objects, "SQLite quotes the new name"
    assert renamed.outlines == made.outlines
    assert renamed.hash == made.hash


@pytest.mark.parametrize("sql", OBJECTS.values(), ids=OBJECTS)
def test_an_object_that_means_something_else_has_another_digest(sql: str) -> None:
    table, one = TABLES.format(t="t", c="c"), sql.format(t="t", c="c")
    other = one.replace("'Ab'", "'ab'") if "'Ab'" in one else one.replace("(c)", "(id)").replace("lower", "upper")
    assert facts(table, one).outlines != facts(table, other).outlines
