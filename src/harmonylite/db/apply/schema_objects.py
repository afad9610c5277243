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
from harmonylite.schema.names import folded
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


def create_table(connection: apsw.Connection, table: Known, virtual: Iterable[Known]) -> None:
    """Create a table of a schema. Raises as `create_object`, and for one of a virtual table whose module is missing.

    ``virtual``: the schema's virtual tables. SQLite calls such a table an ordinary one where it lacks the module.
    """
    wanted, others = Definition.of(table), list(map(Definition.of, virtual))
    if (wanted.virtual or others) and (why := without_module(connection, [wanted, *others]).get(wanted)):
        raise DefinitionError(why)
    create_object(connection, wanted)


def create_object(connection: apsw.Connection, definition: Definition) -> None:
    """Create an object from another node's definition. Raises apsw.Error, DefinitionError."""
    make_working(connection, definition)
    if definition.virtual and _CONTENT.search(definition.sql):
        name = quote(definition.name)
        connection.execute(f"INSERT INTO main.{name}({name}) VALUES ('rebuild')")


class DatabaseObjects:
    """The objects of the database by name, while a merge changes them.

    SQLite reads its whole catalogue to find one, so it is not asked for names that none has had since this was made.
    """

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._names = self._all()
        self._dropped: set[str] = set()

    def _all(self) -> set[str]:
        return {folded(name) for (name,) in rows(self._connection, "SELECT name FROM main.sqlite_schema")}

    def find(self, kind: str, name: str) -> Known | None:
        """Return what `find_object` does."""
        return find_object(self._connection, kind, name) if folded(name) in self._names else None

    def is_there(self, known: Known) -> bool:
        """Return whether an object that was there is there still."""
        return folded(known.name) not in self._dropped or self.find(known.kind, known.name) is not None

    def drop(self, kind: str, name: str) -> None:
        """Drop an object, if it is there."""
        self._dropped.add(folded(name))
        self._connection.execute(f"DROP {kind.upper()} IF EXISTS main.{quote(name)}")

    def make_way(self, name: str) -> None:
        """Drop a view or an index of a name that the stream has given to a table: it gets it nowhere."""
        for kind in ("view", "index") if folded(name) in self._names else ():
            here = self.find(kind, name)
            if here is not None and here.kind == kind:
                self.drop(kind, here.name)
        self._names.add(folded(name))

    def create_table(self, table: Known, virtual: Iterable[Known]) -> None:
        """Create a table; see `create_table`."""
        self.make_way(table.name)
        create_table(self._connection, table, virtual)
        self._came(table)

    def make(self, wanted: Known) -> None:
        """Create an index, a view or a trigger, in place of one of its name."""
        here = self.find(wanted.kind, wanted.name)
        if here is not None and here.kind != wanted.kind:
            raise DefinitionError(f"{here.kind} {here.name} has its name")
        if here is not None:
            self.drop(wanted.kind, wanted.name)
        create_object(self._connection, Definition.of(wanted))
        self._came(wanted)

    def _came(self, known: Known) -> None:
        self._names.add(folded(known.name))
        if known.is_virtual:  # it has tables of its own
            self._names |= self._all()
