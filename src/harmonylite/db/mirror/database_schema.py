"""Store the database's schema in the mirror, so that a snapshot of the mirror can become a complete database.

Invariant: the stored schema is untrusted data; only `harmonylite.db.sqlite.untrusted_ddl` executes it.
"""

from __future__ import annotations

from collections.abc import Iterable

import apsw

from harmonylite.db.mirror.file_facts import HEADER, remember_file, remembered_facts
from harmonylite.db.mirror.stream_schema import has_catalog, read_catalog
from harmonylite.db.sqlite.connection import rows, transaction
from harmonylite.db.sqlite.introspection import Listed, application_objects
from harmonylite.db.sqlite.listing import write_list
from harmonylite.db.sqlite.untrusted_ddl import Definition, decode
from harmonylite.db.tracking import layout
from harmonylite.db.tracking.captured_schema import captured_schema
from harmonylite.schema.columns import columns_of
from harmonylite.schema.names import folded
from harmonylite.schema.section import PRAGMA, Known
from harmonylite.schema.sql import PRIVATE, quote

SCHEMA = quote(PRIVATE + "schema")
CAPTURED = quote(PRIVATE + "captured")


def remember_schema(connection: apsw.Connection, objects: list[Listed], captured: Iterable[Known]) -> None:
    """Store the database's schema and the facts of its file in the mirror, within a transaction.

    ``objects``: the application's; ``captured``: the schema that counts as captured.
    """
    remember_file(connection)
    layout.make(connection, "mirror", dict.fromkeys((SCHEMA, CAPTURED), "(type, name, tbl, sql)"))
    _keep(connection, SCHEMA, objects)
    _keep(connection, CAPTURED, [(k.kind, k.name, k.table, k.sql) for k in captured])


def keep_schema(connection: apsw.Connection) -> None:
    """Like `remember_schema`, in a separate transaction."""
    with transaction(connection, "keep the schema"):
        remember_schema(connection, application_objects(connection), captured_schema(connection))


def _keep(connection: apsw.Connection, table: str, wanted: list[tuple[str, str, str, str]]) -> None:
    write_list(connection, f"mirror.{table}", ("type", "name", "tbl", "sql"), wanted)


def captured_there(connection: apsw.Connection, schema: str = "main") -> list[Known]:
    """Return the part of a mirror's stored schema that the stream knew; the rest was still to be sent.

    For a mirror without that record, the whole stored schema.
    """
    listed = rows(connection, f"SELECT 1 FROM {schema}.sqlite_schema WHERE name = ?", (PRIVATE + "captured",))
    if listed:
        found = rows(connection, f"SELECT type, name, tbl, sql FROM {schema}.{CAPTURED}")
        return [Known(*row) for row in found if all(isinstance(part, str) for part in row)]
    known = [Known(d.kind, d.name, d.table, d.sql) for d in remembered(connection, schema)]
    return known + [Known(PRAGMA, name, "", str(n)) for name, n in remembered_numbers(connection, schema).items()]


def sent_there(connection: apsw.Connection, schema: str = "mirror") -> dict[str, set[str]] | None:
    """Return the columns, by table, that the stream knows of a mirror's database; None: that is unknown."""
    if not is_remembered(connection, schema):
        return None
    stream = read_catalog(connection, schema) if has_catalog(connection, schema) else None
    sent: dict[str, set[str]] = {}
    for known in (k for k in captured_there(connection, schema) if k.kind == "table"):
        # what a mirror that is behind its database remembers is more than its stream knows
        there = known if stream is None else stream.get(known.key)
        columns = set() if there is None else columns_of(there.sql).keys()
        sent[folded(known.name)] = {name for name in columns_of(known.sql) if name in columns}
    return sent


def remembered_numbers(connection: apsw.Connection, schema: str = "main") -> dict[str, int]:
    """Return the ``user_version`` and ``application_id`` that a mirror stores of its database."""
    return {name: number for name, number in remembered_facts(connection, schema).items() if name in HEADER}


def is_remembered(connection: apsw.Connection, schema: str = "mirror") -> bool:
    """Return whether the mirror stores a schema."""
    listed = f"SELECT 1 FROM {schema}.sqlite_schema WHERE type = 'table' AND name = ?"
    return bool(rows(connection, listed, (PRIVATE + "schema",)))


def remembered(connection: apsw.Connection, schema: str = "main") -> list[Definition]:
    """Return the definitions that a mirror stores of its database; raises DefinitionError, apsw.Error."""
    listed = rows(connection, f"SELECT type, name, tbl, sql FROM {schema}.{SCHEMA}")
    return [decode(row) for row in listed]
