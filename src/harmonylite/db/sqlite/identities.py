"""Which of the tables in a schema have an identity, and which columns refer to their numbers.

Invariant: a table has an identity only if its key is one counted number and it has every column of the identity.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import apsw

from harmonylite.db.sqlite.connection import rows
from harmonylite.schema.identity import Identities, identity_of, ranks
from harmonylite.schema.names import find, folded
from harmonylite.schema.shape import TableShape


def identify(
    connection: apsw.Connection, tables: dict[str, TableShape], configured: Identities, schema: str
) -> dict[str, str]:
    """Set the identities of ``tables``; return warnings about configured identities that can't be used."""
    warnings = {}
    for name, shape in tables.items():
        real = [column.name for column in shape.columns if not column.pseudo]
        identity = identity_of(name, real, configured)
        if not identity:
            continue
        if why := _unfit(shape, identity, real):
            if any(folded(name) == folded(pattern) for pattern, _ in configured):
                warnings[name] = f"table {name}: its identity has no effect, {why}"
            continue
        tables[name] = replace(shape, identity=identity)
    identified = [name for name, shape in tables.items() if shape.identity]
    if not identified:
        return warnings
    refers = {name: _references(connection, tables, name, identified, schema) for name in tables}
    order = ranks({name: [to for _, to in refers[name]] for name in identified})
    for name, listed in refers.items():
        if listed or name in order:
            shape = tables[name]
            tables[name] = replace(shape, refers=tuple(listed), rank=order.get(name, shape.rank))
    return warnings


def _unfit(shape: TableShape, identity: tuple[str, ...], columns: list[str]) -> str:
    if not shape.counted:
        return "as its key is not one whole number"
    if missing := [name for name in identity if name not in columns]:
        return f"as it has no column {missing[0]}"
    if shape.keys[0].name in identity and not shape.keys[0].pseudo:
        return f"as {shape.keys[0].name} is the number itself"
    return ""


def _references(
    connection: apsw.Connection, tables: Mapping[str, TableShape], name: str, identified: list[str], schema: str
) -> list[tuple[str, str]]:
    """Return the columns of table ``name`` that are foreign keys to a table with an identity, each with that table."""
    listed = rows(connection, 'SELECT "from", "table", "to" FROM pragma_foreign_key_list(?, ?)', (name, schema))
    columns = [column.name for column in tables[name].columns if not column.pseudo]
    found = []
    for column, table, to in listed:
        parent, here = find(table, identified), find(column, columns)
        if parent is not None and here is not None:
            key = tables[parent].keys[0]
            if to is None or (not key.pseudo and folded(to) == folded(key.name)):
                found.append((here, parent))
    return found
