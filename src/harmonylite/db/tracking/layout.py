"""The layout of our own tables, in the database and in the mirror.

Invariant: after `make` a table has at least the columns of its definition, whichever version made it. Values stay. What
was not there is NULL, and the module that reads the table knows what that means.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from functools import lru_cache

import apsw

from harmonylite.db.sqlite.connection import open_scratch, rows
from harmonylite.schema.names import folded
from harmonylite.schema.sql import PRIVATE, quote

_REMEMBERED = 64
"""So many definitions are remembered; there are about twenty, and one more for each width of keys."""
_THERE = (
    "SELECT t.name, c.name FROM {}.sqlite_schema AS t, pragma_table_info(t.name, ?1) AS c"
    f" WHERE t.type = 'table' AND substr(t.name, 1, {len(PRIVATE)}) = '{PRIVATE}'"
)


def make(connection: apsw.Connection, schema: str, tables: Mapping[str, str]) -> set[str]:
    """Create those of our ``tables`` that are missing, and add the columns that the others lack.

    ``tables``: definitions by quoted name, from the opening parenthesis on. Return the names of those created.
    """
    there: dict[str, set[str]] = {}
    for table, column in rows(connection, _THERE.format(schema), (schema,)):
        there.setdefault(quote(table), set()).add(folded(column))
    for table, definition in tables.items():
        if table not in there:
            connection.execute(f"CREATE TABLE {schema}.{table}{definition}")
            continue
        for column, declared in _columns(definition):
            if folded(column) not in there[table]:
                connection.execute(f"ALTER TABLE {schema}.{table} ADD COLUMN {quote(column)} {declared}")
    return set(tables) - there.keys()


@lru_cache(maxsize=_REMEMBERED)
def _columns(definition: str) -> tuple[tuple[str, str], ...]:
    """Return names and types of the columns of a definition."""
    with closing(open_scratch()) as scratch:
        scratch.execute(f"CREATE TABLE t{definition}")
        return tuple(rows(scratch, "SELECT name, type FROM pragma_table_info('t')"))
