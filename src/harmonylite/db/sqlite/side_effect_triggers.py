"""The application's own triggers on this node's connection.

The connection runs with triggers disabled: rows that they wrote to replicated tables at the origin arrive as rows. A
trigger that writes *only* tables that are not replicated (such as an FTS5 index) must run on every node. The node
recreates it as a TEMP trigger, which SQLite fires nevertheless (SQLite: sqlite3_db_config, ENABLE_TRIGGER), and also
the triggers that it fires.

Invariant: a trigger runs here only if an authorizer saw every table that it writes, and none of them is replicated.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from re import IGNORECASE
from re import compile as pattern

import apsw

from harmonylite.db.sqlite.capabilities import compile_writes
from harmonylite.db.sqlite.connection import rows
from harmonylite.db.sqlite.untrusted_ddl import Definition, make_one
from harmonylite.errors import DefinitionError
from harmonylite.schema.shape import TableShape
from harmonylite.schema.sql import OURS_GLOB, PRIVATE, quote, text

_WRITES = {apsw.SQLITE_INSERT, apsw.SQLITE_UPDATE, apsw.SQLITE_DELETE}
_OWN = f"{PRIVATE}hook_"
_OWN_CLAUSE = pattern(r"\bOR\s+(?:REPLACE|IGNORE|FAIL|ROLLBACK|ABORT)\b|\bREPLACE\s+INTO\b", IGNORECASE)
_WRITING = pattern(r"\b(?:INSERT|UPDATE|DELETE|REPLACE)\b", IGNORECASE)
_NAME = r"""(?:"(?:[^"]|"")*"|\[[^\]]*\]|`(?:[^`]|``)*`|'(?:[^']|'')*'|[^\s."'`\[]+)"""
_HEAD = pattern(rf"CREATE\s+TRIGGER\s+(?:IF\s+NOT\s+EXISTS\s+)?(?:{_NAME}\s*\.\s*)?{_NAME}", IGNORECASE)


@dataclass
class Examined:
    """The result of examining triggers. ``writes``: tables that each writes itself; ``errors``: why one can't run."""

    writes: dict[str, set[str]]
    errors: dict[str, str]


def examine(connection: apsw.Connection, triggers: Sequence[tuple[str, str, str]]) -> Examined:
    """Examine triggers (name, table or view, definition), each separately; leaves nothing in ``temp``.

    On EXPLAIN an authorizer sees what a trigger writes. A trigger that can't run, because it calls a function that is
    missing here, is left out, and so are those that write a view that only it makes writable (INSTEAD OF).
    """
    found = Examined({}, {})

    def watch(action: int, first: str | None, _second: str | None, _schema: str | None, trigger: str | None) -> int:
        if trigger and action in _WRITES and first:
            found.writes.setdefault(trigger.removeprefix(_OWN), set()).add(first)
        return int(apsw.SQLITE_OK)

    connection.execute("SAVEPOINT examine")
    connection.authorizer = watch
    try:
        left = list(triggers)
        while left:
            found.errors = {name: why for name, table, sql in left if (why := _try(connection, name, table, sql))}
            failed = [each for each in left if each[0] in found.errors]
            if len(failed) == len(left):
                break
            left = failed  # one that runs may be what these need
        for name in found.errors:
            found.writes.pop(name, None)
    finally:
        connection.authorizer = None
        connection.execute("ROLLBACK TO examine")
        connection.execute("RELEASE examine")
    return found


def why_not(connection: apsw.Connection, name: str, table: str, sql: str) -> str | None:
    """Return why a new trigger can't run, None if it can; leaves nothing in ``temp``."""
    why = _try(connection, name, table, sql)
    connection.execute(f"DROP TRIGGER IF EXISTS temp.{quote(_OWN + name)}")
    return why


def make_working(connection: apsw.Connection, definition: Definition) -> None:
    """Create an object from another node's definition. Raises as `make_one`, and for a trigger that can't run here."""
    make_one(connection, definition)
    if definition.kind == "trigger" and (why := why_not(connection, definition.name, definition.table, definition.sql)):
        raise DefinitionError(why)


def _try(connection: apsw.Connection, name: str, table: str, sql: str) -> str | None:
    """Create a trigger in ``temp``, and keep it if it can run; else return why it can't."""
    before = _compile(connection, table)
    try:
        connection.execute(_copy(name, sql))
    except apsw.Error as error:
        return str(error)
    after = _compile(connection, table)
    # a table accepts all three; a view those that a trigger makes possible
    worse = [why for was, why in zip(before, after, strict=True) if why and (not was or before == after)]
    if worse:
        connection.execute(f"DROP TRIGGER temp.{quote(_OWN + name)}")
        return worse[0]
    return None


def _compile(connection: apsw.Connection, table: str) -> list[str]:
    columns = rows(connection, "SELECT name FROM pragma_table_xinfo(?, 'main') WHERE hidden = 0", (table,))
    return compile_writes(connection, "main", table, [name for (name,) in columns])


def _copy(name: str, sql: str) -> str:
    return _HEAD.sub(lambda _: f"CREATE TEMP TRIGGER {quote(_OWN + name)}", sql, count=1)


def drop_hooks(connection: apsw.Connection) -> None:
    """Drop the triggers of `SideEffectTriggers` in the caller's transaction, before it changes a table of theirs."""
    for (name,) in rows(connection, "SELECT name FROM temp.sqlite_schema WHERE type = 'trigger'"):
        if name.startswith(_OWN):
            connection.execute(f"DROP TRIGGER temp.{quote(name)}")


class SideEffectTriggers:
    """The application's triggers that run on this connection."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection

    def renew(self, replicated: Mapping[str, TableShape]) -> dict[str, str]:
        """Create the TEMP triggers again; return a sentence for each trigger that can't run here."""
        drop_hooks(self._connection)
        listed = "SELECT name, tbl_name, sql FROM main.sqlite_schema WHERE type = 'trigger' AND name NOT GLOB ?"
        theirs = rows(self._connection, listed, (OURS_GLOB,))
        if not any(table in replicated for _, table, _ in theirs):
            return {}
        examined = examine(self._connection, theirs)
        fired = _fired(theirs, examined.writes, replicated)
        warnings: dict[str, str] = {}
        for name, table, sql in theirs:
            if table not in fired:
                continue
            why = _unknown(sql, examined.errors.get(name)) or self._hook(
                name, table, sql, examined.writes.get(name, set()), replicated
            )
            if why:
                warnings[f"trigger {name}"] = (
                    f"trigger {name} of {table} does not run for rows of other nodes, so what it keeps (a search index,"
                    f" a sum) lacks them: {why}"
                )
        return warnings

    def _hook(
        self, name: str, table: str, sql: str, writes: set[str], replicated: Mapping[str, TableShape]
    ) -> str | None:
        """Create one TEMP trigger if it must run here; return why it can't."""
        shared = sorted(writes & replicated.keys())
        if not writes or shared:
            if shared and writes - replicated.keys():
                return f"it writes {shared[0]}, which is replicated, and tables that are not"
            return None
        if table in replicated and replicated[table].conflict_clause and _OWN_CLAUSE.search(sql):
            return f"it says OR in a statement of its own, and {table} has an ON CONFLICT clause"
        try:
            self._connection.execute(_copy(name, sql))
        except apsw.Error as error:
            return str(error)
        return None


def _unknown(sql: str, error: str | None) -> str | None:
    """Return ``error`` if its trigger may write something."""
    return error if error and _WRITING.search(sql.partition("BEGIN")[2] or sql) else None


def _fired(
    triggers: Sequence[tuple[str, str, str]], writes: Mapping[str, set[str]], replicated: Collection[str]
) -> set[str]:
    """Return the tables whose triggers rows of other nodes fire: replicated ones, and those that these write."""
    fired = set(replicated)
    while True:
        more = {each for name, table, _ in triggers if table in fired for each in writes.get(name, ())} - fired
        if not more:
            return fired
        fired |= more


def drop_statement(kind: str, name: str) -> str:
    """Return the statement that drops one object of the database."""
    if kind not in ("trigger", "view", "table", "index"):
        raise ValueError(f"{text(kind)} is not a kind of object that we make")
    return f"DROP {kind.upper()} IF EXISTS main.{quote(name)}"
