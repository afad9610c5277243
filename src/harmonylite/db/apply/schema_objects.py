"""Find and create the objects of a schema: tables, indexes, views, triggers.

Invariant: only `harmonylite.db.sqlite.untrusted_ddl` executes another node's definition.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import apsw

from harmonylite.db.sqlite.connection import rows
from harmonylite.db.sqlite.side_effect_triggers import make_working
from harmonylite.db.sqlite.untrusted_ddl import Definition, without_module
from harmonylite.errors import DefinitionError
from harmonylite.schema.section import Known
from harmonylite.schema.sql import quote

_CONTENT = re.compile(r"USING\s+fts5\b.*\bcontent\s*=\s*['\"]?[^\s'\",)]", re.IGNORECASE | re.DOTALL)


def find_object(connection: apsw.Connection, kind: str, name: str) -> Known | None:
    """Return an object of the database by its name in any case; tables and views share one namespace."""
    either = ("table", "view") if kind in ("table", "view") else (kind, kind)
    found = rows(
        connection,
        "SELECT type, name, tbl_name, sql FROM main.sqlite_schema WHERE lower(name) = lower(?) AND type IN (?, ?)"
        " AND sql IS NOT NULL",
        (name, *either),
    )
    return Known(*found[0]) if found else None


def create_table(connection: apsw.Connection, table: Known, schema: Iterable[Known]) -> None:
    """Create a table of a schema. Raises as `create_object`, and for one of a virtual table whose module is missing.

    SQLite calls such a table an ordinary one where it lacks the module.
    """
    wanted = Definition("table", table.name, table.table, table.sql)
    others = (Definition(known.kind, known.name, known.table, known.sql) for known in schema)
    if why := without_module(connection, [wanted, *(each for each in others if each.virtual)]).get(wanted):
        raise DefinitionError(why)
    create_object(connection, wanted)


def create_object(connection: apsw.Connection, definition: Definition) -> None:
    """Create an object from another node's definition. Raises apsw.Error, DefinitionError."""
    make_working(connection, definition)
    if definition.virtual and _CONTENT.search(definition.sql):
        name = quote(definition.name)
        connection.execute(f"INSERT INTO main.{name}({name}) VALUES ('rebuild')")
