"""Change a table of the database as another node changed it: with ALTER if SQLite can, else with a rebuild.

Invariant: everything is in the caller's transaction; a table keeps its rows, indexes, triggers and references, as far
as the new definition has the columns for them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from re import compile as pattern

import apsw

from harmonylite.db.mirror.pouring import known_pairs, pour
from harmonylite.db.sqlite.connection import is_unique, rows, value
from harmonylite.db.sqlite.introspection import find_shape
from harmonylite.db.sqlite.side_effect_triggers import why_not
from harmonylite.db.sqlite.untrusted_ddl import Definition, make_one
from harmonylite.db.tracking.triggers import OURS, triggers
from harmonylite.errors import DefinitionError
from harmonylite.schema.columns import ColumnText, added, columns_of, is_one, names_in
from harmonylite.schema.names import folded
from harmonylite.schema.shape import FILLERS, TableShape, affinity_of
from harmonylite.schema.sql import PRIVATE, is_private, quote
from harmonylite.schema.table_text import Moves, same_table

ASIDE = PRIVATE + "aside"
_TYPE_ENDS = pattern(r"\b(?:NOT|NULL|CHECK|REFERENCES|COLLATE|CONSTRAINT)\b")
"""What ends the type in a column's declaration."""


def definition_of(connection: apsw.Connection, name: str) -> str:
    """Return the definition of a table of the database, "" if there is none."""
    found = "SELECT sql FROM main.sqlite_schema WHERE type = 'table' AND lower(name) = lower(?)"
    return str(value(connection, found, (name,)) or "")


def rename_table(connection: apsw.Connection, old: str, new: str) -> None:
    """Rename a table and all that refers to it."""
    connection.execute("PRAGMA legacy_alter_table = OFF")
    try:
        connection.execute(f"ALTER TABLE main.{quote(old)} RENAME TO {quote(new)}")
    except apsw.SQLError:  # another object can't be parsed: it may name the table, and stays unchanged
        connection.execute("PRAGMA legacy_alter_table = ON")
        connection.execute(f"ALTER TABLE main.{quote(old)} RENAME TO {quote(new)}")


def names_of(connection: apsw.Connection, name: str) -> list[str]:
    """Return the names of a table's columns."""
    return names_in(definition_of(connection, name))


def rename_columns(connection: apsw.Connection, table: str, moves: Moves) -> None:
    """Rename the columns of a table that have another name now, where they are here and that name is free."""
    here = set(columns_of(definition_of(connection, table)))
    wanted = {old: new for old, new in moves.items() if new is not None and folded(old) in here}
    moving = {folded(old) for old in wanted}
    _rename_columns(
        connection, table, {o: n for o, n in wanted.items() if folded(n) in moving or folded(n) not in here}
    )


def exchange_columns(connection: apsw.Connection, table: str, names: Mapping[str, str]) -> None:
    """Give the columns of a table that stay, ``names``, their new names; one that goes has a name of ours then."""
    gone = [name for name in columns_of(definition_of(connection, table)) if name not in names]
    taken = {folded(new) for old, new in names.items() if old != folded(new)}
    moves = {name: f"{ASIDE}_gone{n}" for n, name in enumerate(gone) if name in taken}
    _rename_columns(connection, table, moves | {old: new for old, new in names.items() if old != folded(new)})


def _rename_columns(connection: apsw.Connection, table: str, moves: Mapping[str, str]) -> None:
    """Rename columns, which may exchange their names."""
    connection.execute("PRAGMA legacy_alter_table = OFF")
    moving = {folded(old) for old in moves}
    aside = {old: f"{ASIDE}_{n}" if folded(new) in moving else new for n, (old, new) in enumerate(moves.items())}
    again = {name: moves[old] for old, name in aside.items() if name != moves[old]}
    for old, new in (*aside.items(), *again.items()):
        connection.execute(f"ALTER TABLE main.{quote(table)} RENAME COLUMN {quote(old)} TO {quote(new)}")


def bring_table(connection: apsw.Connection, name: str, target: str) -> list[str]:
    """Give a table the definition ``target``, after `rename_columns`; return sentences about what could not be kept.

    Raises apsw.Error, DefinitionError; the caller rolls back.
    """
    mine = definition_of(connection, name)
    if same_table(mine, target):
        return []
    if _by_alter(connection, name, mine, target):
        return []
    return _rebuild(connection, name, target)


def add_column(connection: apsw.Connection, table: str, column: ColumnText) -> None:
    """Add one column. Raises apsw.SQLError, DefinitionError."""
    if not is_one(column.text):
        raise DefinitionError(f"the declaration of column {column.name} is none that can be added")
    connection.execute(f"ALTER TABLE main.{quote(table)} ADD COLUMN {column.text}")


def add_columns(connection: apsw.Connection, table: str, columns: Sequence[ColumnText]) -> None:
    """Add the missing columns; a NOT NULL one without a default gets one.

    Raises apsw.SQLError, DefinitionError.
    """
    mine = columns_of(definition_of(connection, table))
    for column in columns:
        if folded(column.name) not in mine:
            _add_filled(connection, table, column)


def _add_filled(connection: apsw.Connection, table: str, column: ColumnText) -> None:
    try:
        add_column(connection, table, column)
    except apsw.SQLError as error:
        if "NOT NULL column with default value NULL" not in str(error):
            raise
        # the migration filled the column: the rows' own values arrive later
        declared = _TYPE_ENDS.split(column.text[len(column.name) :].upper())[0]
        filler = FILLERS[affinity_of(declared.strip(" )]"))]
        connection.execute(f"ALTER TABLE main.{quote(table)} ADD COLUMN {column.text} DEFAULT {filler}")


def _by_alter(connection: apsw.Connection, name: str, mine: str, target: str) -> bool:
    """Add and drop columns one by one, if that leads to ``target``; else leave the table as it is."""
    new = columns_of(target)
    dropped = [column for key, column in columns_of(mine).items() if key not in new]
    connection.execute("SAVEPOINT by_alter")
    try:
        for column in dropped:
            connection.execute(f"ALTER TABLE main.{quote(name)} DROP COLUMN {quote(column.name)}")
        for column in added(mine, target):
            add_column(connection, name, column)
        done = same_table(definition_of(connection, name), target)
    except (apsw.SQLError, apsw.ConstraintError, DefinitionError):
        done = False
    if not done:
        connection.execute("ROLLBACK TO by_alter")
    connection.execute("RELEASE by_alter")
    return done


def _rebuild(connection: apsw.Connection, name: str, target: str) -> list[str]:
    """Create the table again with the definition ``target``, and copy its rows (SQLite: lang_altertable, section 7)."""
    execute = connection.execute
    here = rows(
        connection,
        "SELECT type, name, sql FROM main.sqlite_schema WHERE type IN ('index', 'trigger')"
        " AND lower(tbl_name) = lower(?) AND sql IS NOT NULL",
        (name,),
    )
    before = _shape(connection, name)
    worked = {each for kind, each, sql in here if kind == "trigger" and why_not(connection, each, name, sql) is None}
    number = next((int(match[1]) for _, each, _ in here if (match := OURS.match(each))), None)
    counted = _sequence(connection, name)
    execute("PRAGMA legacy_alter_table = ON")  # what names the table means the new one, not the one set aside
    for kind, each, _ in here:
        execute(f"DROP {'INDEX' if kind == 'index' else 'TRIGGER'} main.{quote(each)}")
    execute(f"ALTER TABLE main.{quote(before.name)} RENAME TO {quote(ASIDE)}")
    make_one(connection, Definition("table", name, name, target))
    after = _shape(connection, name)
    known = known_pairs(before, after, {})
    kept = True
    try:
        placed = pour(connection, after, known, f"main.{quote(ASIDE)}", schema="main", verb="INSERT OR ABORT")
    except apsw.ConstraintError as error:
        if not (is_unique(error) or "NOT NULL constraint" in str(error)):
            raise
        # rows that this node has not sent displace others here, as they will everywhere: they are compared; a column
        # that must have a value now has its default, until the value arrives that its migration filled in
        placed = pour(connection, after, known, f"main.{quote(ASIDE)}", schema="main")
        kept = False
    if not placed and value(connection, f"SELECT 1 FROM main.{quote(ASIDE)} LIMIT 1"):
        raise DefinitionError("its key is a column that no row here has")
    execute(f"DROP TABLE main.{quote(ASIDE)}")
    if counted is not None and "AUTOINCREMENT" in target.upper():
        execute("DELETE FROM main.sqlite_sequence WHERE name = ?", (name,))
        execute("INSERT INTO main.sqlite_sequence(name, seq) VALUES (?, ?)", (name, counted))
    if number is not None and kept and _same_key(before, after, known):
        for sql in triggers(after, number).values():
            execute(sql)
    return _again(connection, name, [each for each in here if not is_private(each[1])], worked)


def _shape(connection: apsw.Connection, name: str) -> TableShape:
    shape, why = find_shape(connection, name)
    if shape is None:
        raise DefinitionError(why)
    return shape


def _same_key(before: TableShape, after: TableShape, known: Sequence[tuple[str, str]]) -> bool:
    """Return whether the log's keys still mean the same rows; otherwise the table is compared whole."""
    if (bool(before.rowid), before.integer_key) != (bool(after.rowid), after.integer_key):
        return False
    names = dict(known)
    old = [(names.get(c.name) if not c.pseudo else c.name, c.affinity, c.collation, c.pseudo) for c in before.keys]
    return old == [(c.name, c.affinity, c.collation, c.pseudo) for c in after.keys]


def _sequence(connection: apsw.Connection, name: str) -> int | None:
    if value(connection, "SELECT 1 FROM main.sqlite_schema WHERE name = 'sqlite_sequence'") is None:
        return None
    return value(connection, "SELECT seq FROM main.sqlite_sequence WHERE name = ?", (name,))  # type: ignore[no-any-return]


def _again(
    connection: apsw.Connection, table: str, here: Sequence[tuple[str, str, str]], worked: Collection[str]
) -> list[str]:
    """Create the indexes and triggers of a table again; return sentences about those that don't fit it.

    ``worked``: triggers that could run before: one that needs a column that went can't be made on other nodes.
    """
    said = []
    for kind, name, sql in sorted(here):
        connection.execute("SAVEPOINT again")
        try:
            why = why_not(connection, name, table, sql) if kind == "trigger" and name in worked else None
            if why is not None and why.startswith("no such column"):
                raise DefinitionError(why)
            connection.execute(_into_main(kind, sql))
        except (apsw.SQLError, apsw.ConstraintError, DefinitionError) as error:
            connection.execute("ROLLBACK TO again")
            said.append(f"{kind} {name} does not fit the new table {table}: {error}")
        connection.execute("RELEASE again")
    return said


def _into_main(kind: str, sql: str) -> str:
    """Return the text of an object of the application's own from its own schema: SQLite made it from that before."""
    if not sql.startswith(("CREATE INDEX ", "CREATE UNIQUE INDEX ") if kind == "index" else "CREATE TRIGGER "):
        raise DefinitionError(f"SQLite keeps a statement that makes no {kind}")
    return sql
