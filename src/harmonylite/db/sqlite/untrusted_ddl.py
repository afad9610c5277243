"""Apply definitions that came from outside: tables, indexes, views and triggers, as SQL text.

Invariant: a definition creates the one object that it names, in ``main``, and does nothing else. Its text is data: when
SQLite compiles it, before any of it runs, an authorizer refuses every action that such a CREATE statement doesn't need.

SQLite itself bounds the expressions that run later, when rows are written: a schema can't call functions with side
effects (SQLite: SQLITE_DIRECTONLY). This module refuses functions that SQLite doesn't mark as innocuous.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from re import IGNORECASE, escape
from re import compile as pattern
from typing import Any

import apsw

from harmonylite.db.sqlite.connection import rows, value
from harmonylite.db.sqlite.deadline import Deadline
from harmonylite.db.sqlite.extensions import given_functions
from harmonylite.errors import DefinitionError
from harmonylite.schema.section import Known
from harmonylite.schema.sql import is_private

SECONDS = 60.0
"""Deadline of a whole schema: thousands of tables need a second."""

KINDS = {
    "table": ("TABLE", "VIRTUAL TABLE"),
    "index": ("INDEX", "UNIQUE INDEX"),
    "view": ("VIEW",),
    "trigger": ("TRIGGER",),
}
"""What follows CREATE in the text of each kind: SQLite stores it with exactly one space (SQLite: schematab)."""

_CATALOG = {"sqlite_master", "sqlite_schema"}
_ASKED = {"page_size", "data_version", "encoding"}
"""Pragmas that virtual tables query while they are created, without a value."""
_CREATES = {
    "table": apsw.SQLITE_CREATE_TABLE,
    "index": apsw.SQLITE_CREATE_INDEX,
    "view": apsw.SQLITE_CREATE_VIEW,
    "trigger": apsw.SQLITE_CREATE_TRIGGER,
}
_INNOCUOUS = 0x200000
_NO_FUNCTION = pattern(r"(?:no such|unknown) function: (.+?)(?:\(\))?\Z")
_NO_COLLATION = pattern(r"no such collation sequence: (.+)\Z")


@dataclass(frozen=True)
class Definition:
    """One object: its ``kind`` ("table", "index", "view" or "trigger"), name, table, and the text that creates it."""

    kind: str
    name: str
    table: str
    sql: str

    @classmethod
    def of(cls, known: Known) -> Definition:
        """Return what creates an object of a schema."""
        return cls(known.kind, known.name, known.table, known.sql)

    @property
    def virtual(self) -> bool:
        """True for a virtual table."""
        return self.sql.startswith("CREATE VIRTUAL TABLE ")

    @property
    def rank(self) -> int:
        """Tables first, virtual ones after those that they index, then the objects that refer to tables."""
        return {"table": 0 + self.virtual, "index": 2, "view": 3, "trigger": 4}[self.kind]

    def __str__(self) -> str:
        return f"{self.kind} {self.name[:100]!r}"


def decode(row: Sequence[Any]) -> Definition:
    """Return the definition in one row (type, name, table, SQL) from outside; raises DefinitionError."""
    if len(row) != 4 or not all(isinstance(part, str) for part in row):
        raise DefinitionError("a definition is not four texts: type, name, table, SQL")
    found = Definition(*row)
    starts = tuple(f"CREATE {word} " for word in KINDS.get(found.kind, ()))
    if not found.sql.startswith(starts or ("\0",)):
        raise DefinitionError(f"the definition of {found} is no single CREATE statement of that kind")
    if not found.name or "\0" in found.name + found.table + found.sql:
        raise DefinitionError(f"the definition of {found} has no name, or a NUL character")
    if is_private(found.name) or found.name.lower().startswith("sqlite_"):
        raise DefinitionError(f"the definition of {found} has a name that no application's object has")
    return found


def harden(connection: apsw.Connection) -> None:
    """Make SQLite distrust schema and pages of ``connection`` (SQLite: security, "untrusted database files")."""
    connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
    connection.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0)
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_VIEW, 0)
    connection.pragma("cell_size_check", 1)


def apply(connection: apsw.Connection, definitions: Sequence[Definition], deadline: Deadline) -> dict[Definition, str]:
    """Create the objects of ``definitions`` in ``main`` of ``connection``, whose file is empty and has no other user.

    In the caller's transaction. A collation or a function that only the application has may be missing: none of it
    runs while there is no row. Return the objects that are left out, and why: virtual tables whose module is missing,
    with what belongs to them. Raises DefinitionError for a definition that does more, OverdueError, apsw.Error.
    """
    harden(connection)
    barred = _barred(connection)
    if given_functions():
        connection.config(
            apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 1
        )  # else SQLite refuses these; `_alone` refuses the others
    left_out = without_module(connection, definitions)
    with _lacking(connection) as lacking:
        for definition in sorted(definitions, key=lambda d: d.rank):
            if definition in left_out:
                continue
            deadline.check()
            with deadline.bounding(connection):
                _make(connection, definition, lambda one: lacking(partial(_execute, connection, one, barred)))
    return left_out


def make_one(connection: apsw.Connection, definition: Definition) -> None:
    """Create one object in ``main`` of a node's connection, in the caller's transaction; raises as `apply`.

    The functions that it needs must exist here, because there are rows.
    """
    _make(connection, definition, lambda one: _execute(connection, one, _barred(connection)))


def _make(connection: apsw.Connection, definition: Definition, execute: Callable[[Definition], None]) -> None:
    newest = value(connection, "SELECT max(rowid) FROM main.sqlite_schema") or 0
    execute(definition)
    wanted = (definition.kind, definition.name, definition.table)
    found = rows(connection, "SELECT type, name, tbl_name FROM main.sqlite_schema WHERE rowid > ?", (newest,))
    if wanted not in found or any(not _belongs(name, definition) for _, name, _ in found):
        raise DefinitionError(f"the definition of {definition} makes something else")


def _execute(connection: apsw.Connection, definition: Definition, barred: set[str]) -> None:
    with _alone(connection, definition, barred):
        connection.execute(definition.sql).fetchall()


def without_module(connection: apsw.Connection, definitions: Sequence[Definition]) -> dict[Definition, str]:
    """Return the virtual tables whose module is missing here, their tables, and triggers that name them, with why."""
    known = modules(connection)
    found: dict[Definition, str] = {}
    for virtual in definitions:
        module = module_of(virtual.sql)
        if not virtual.virtual or module in known:
            continue
        named = pattern(rf"\b{escape(virtual.name)}\b", IGNORECASE)
        for each in definitions:
            shadow = not each.virtual and each.table.startswith(f"{virtual.name}_")
            if each == virtual or shadow or (each.kind == "trigger" and named.search(each.sql)):
                found[each] = f"this SQLite has no module {module}, which the table {virtual.name} needs"
    return found


def modules(connection: apsw.Connection) -> set[str]:
    """Return the modules of virtual tables that this process has, in lower case."""
    return {str(name).lower() for (name,) in rows(connection, "SELECT name FROM pragma_module_list")}


def module_of(sql: str) -> str:
    """Return the module that a CREATE VIRTUAL TABLE statement names, in lower case."""
    after = sql.upper().partition(" USING ")[2].strip()
    return after.split("(")[0].strip().strip('"[]`').lower()


@contextmanager
def _lacking(connection: apsw.Connection) -> Iterator[Callable[[Callable[[], None]], None]]:
    """Provide a function that runs a statement as if every function and collation in it existed here."""
    functions: list[str] = []
    collations: list[str] = []

    def run(work: Callable[[], None]) -> None:
        while True:
            try:
                return work()
            except apsw.SQLError as error:
                function, collation = (each.search(str(error)) for each in (_NO_FUNCTION, _NO_COLLATION))
                if function and function[1] not in functions:
                    functions.append(function[1])
                    connection.create_scalar_function(function[1], _never, -1, deterministic=True, flags=_INNOCUOUS)
                elif collation and collation[1] not in collations:
                    collations.append(collation[1])
                    connection.create_collation(collation[1], _never)
                else:
                    raise

    try:
        yield run
    finally:
        for name in functions:
            connection.create_scalar_function(name, None)
        for name in collations:
            connection.create_collation(name, None)


def _never(*_values: Any) -> int:
    """Replace a function or a collation in a schema without rows: SQLite never calls it."""
    raise ValueError("only the application has this function")


def _barred(connection: apsw.Connection) -> set[str]:
    """Return the functions that neither SQLite nor the operator trusts in a file of unknown origin.

    A function that is missing here does no harm.
    """
    listed = rows(connection, "SELECT name, max(flags & ?) FROM pragma_function_list GROUP BY name", (_INNOCUOUS,))
    return {str(name).lower() for name, trusted in listed if not trusted} - given_functions()


def _belongs(name: str, definition: Definition) -> bool:
    """Return whether an object is the definition's, or one that SQLite creates for it."""
    if name in (definition.name, "sqlite_sequence"):
        return True
    shadow = name.removeprefix("sqlite_autoindex_")
    return shadow.startswith(f"{definition.name}_") and (definition.virtual or shadow != name)


@contextmanager
def _alone(connection: apsw.Connection, definition: Definition, barred: set[str]) -> Iterator[None]:
    """Restrict one statement to the rights that ``definition`` needs."""
    refused: list[str] = []

    def authorize(action: int, first: str | None, second: str | None, schema: str | None, trigger: str | None) -> int:
        if trigger is None and schema in (None, "main") and _allowed(definition, barred, action, first, second):
            return apsw.SQLITE_OK
        name = str(apsw.mapping_authorizer_function[action]).removeprefix("SQLITE_").lower().replace("_", " ")
        refused.append(" ".join(part for part in (name, first, second) if part)[:200])
        return apsw.SQLITE_DENY

    def is_all(_cursor: apsw.Cursor, sql: str, _bindings: Any) -> bool:
        return sql == definition.sql  # of a text of two statements only the first one comes here, compiled and not run

    before: Callable[..., Any] | None = connection.exec_trace
    connection.authorizer, connection.exec_trace = authorize, is_all
    try:
        yield
    except apsw.ExecTraceAbort:
        raise DefinitionError(f"the definition of {definition} holds more than one statement") from None
    except apsw.Error as error:
        if refused:
            raise DefinitionError(f"the definition of {definition} is refused: it asks for {refused[0]}") from error
        raise
    finally:
        connection.authorizer, connection.exec_trace = None, before
    if refused:
        raise DefinitionError(f"the definition of {definition} is refused: it asks for {refused[0]}")


def _allowed(definition: Definition, barred: set[str], action: int, first: str | None, second: str | None) -> bool:
    """Return whether creating ``definition`` may need an action (SQLite: c_alter_table, the action codes)."""
    name = first or ""
    if action == apsw.SQLITE_FUNCTION:
        return (second or "").lower() not in barred
    if name in _CATALOG:  # the statement itself can't write there, because the connection is defensive
        return action in (apsw.SQLITE_INSERT, apsw.SQLITE_UPDATE, apsw.SQLITE_READ)
    if action in (*_CREATES.values(), apsw.SQLITE_CREATE_VTABLE):
        mine = apsw.SQLITE_CREATE_VTABLE if definition.virtual else _CREATES[definition.kind]
        made = (apsw.SQLITE_CREATE_TABLE, apsw.SQLITE_CREATE_INDEX)
        return (name == definition.name and action == mine) or (
            name != definition.name and action in made and _belongs(name, definition)
        )
    if definition.virtual:
        return _virtual(definition, action, name, second)
    if action == apsw.SQLITE_READ:
        return name == definition.table
    return action == apsw.SQLITE_REINDEX and definition.kind == "index" and name == definition.name


def _virtual(definition: Definition, action: int, name: str, second: str | None) -> bool:
    """Return whether a virtual table's module may do that: read, and write its own shadow tables."""
    if action in (apsw.SQLITE_SELECT, apsw.SQLITE_READ):
        return True
    if action == apsw.SQLITE_PRAGMA:
        return name.lower() in _ASKED and second is None
    writes = (apsw.SQLITE_INSERT, apsw.SQLITE_UPDATE, apsw.SQLITE_DELETE)
    return action in writes and name.startswith(f"{definition.name}_")
