"""Remember the database's schema in the mirror, so that a snapshot of the mirror can make a whole database.

Invariant: what is remembered is data, see `harmonylite.db.sqlite.untrusted_ddl`; nobody executes it otherwise.
"""

from __future__ import annotations

import apsw

from harmonylite.db.mirror.file_facts import remember_file
from harmonylite.db.sqlite.connection import rows
from harmonylite.db.sqlite.untrusted_ddl import Definition, decode
from harmonylite.schema.sql import PRIVATE, is_private, quote

SCHEMA = quote(PRIVATE + "schema")


def remember_schema(connection: apsw.Connection) -> None:
    """Keep the database's schema, and what else its file is, in the mirror, within a transaction."""
    remember_file(connection)
    connection.execute(f"CREATE TABLE IF NOT EXISTS mirror.{SCHEMA}(type, name, tbl, sql)")
    shadows = {
        row[0]
        for row in rows(connection, "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'shadow'")
    }
    found = [
        row
        for row in rows(connection, "SELECT type, name, tbl_name, sql FROM main.sqlite_schema WHERE sql IS NOT NULL")
        if not is_private(row[1])
        and not row[1].startswith("sqlite_")
        and row[1] not in shadows
        and row[2] not in shadows
    ]
    if rows(connection, f"SELECT type, name, tbl, sql FROM mirror.{SCHEMA}") != found:
        connection.execute(f"DELETE FROM mirror.{SCHEMA}")
        connection.executemany(f"INSERT INTO mirror.{SCHEMA} VALUES (?, ?, ?, ?)", found)


def remembered(connection: apsw.Connection, schema: str = "main") -> list[Definition]:
    """Return the definitions that a mirror remembers of its database; raises DefinitionError, apsw.Error."""
    listed = rows(connection, f"SELECT type, name, tbl, sql FROM {schema}.{SCHEMA}")
    return [decode(row) for row in listed]
