"""The log and its capture triggers, in the application's file.

Invariant: the triggers append keys to the log and do nothing else; they skip inserts above the watermark
(`harmonylite.db.tracking.watermarks`). They use nothing that an old or hardened SQLite lacks, and name only key and
unique columns, so that other columns can be added, dropped and renamed.
"""

from __future__ import annotations

from collections.abc import Sequence
from re import compile as pattern

import apsw

from harmonylite.db.sqlite.connection import rows
from harmonylite.schema.names import folded
from harmonylite.schema.shape import Column, TableShape
from harmonylite.schema.sql import OURS_GLOB, PRIVATE, quote

LOG = f"{PRIVATE}log"
STATE = f"{PRIVATE}state"
POSITION = f"{PRIVATE}position"
HELD = f"{PRIVATE}held"
BASE = f"{PRIVATE}base"
OVERRULED = f"{PRIVATE}overruled"
WATERMARK = f"{PRIVATE}watermark"
"""The table in which an earlier version had the watermarks."""
STATUS = f"{PRIVATE}status"
WAITING = f"{PRIVATE}waiting"


def log_columns(width: int) -> list[str]:
    """Return the names of the log's key columns."""
    return [f"k{i}" for i in range(width)]


def private_tables(width: int) -> dict[str, str]:
    """Return the definitions of our tables in the application's file, for keys of up to ``width`` columns.

    ``log``: id, table id, key; or, where the table id is negative, a range of rowids: above k0, up to k1. ``state``:
    names and values of this file's own facts. ``position``: how far each shard is merged; and, under the negative table
    id, that table's watermark: ``seq``, up to which rowid inserts are logged one by one, and the key of the row there.
    Both move with each merge, so they are on one page. ``held``: rows of the mirror that are held back, by table id and
    key. ``base``: what the local writer last saw of pending rows that others changed, see
    `harmonylite.db.capture.merge_base`. ``overruled``: this file's own values that gave way when it joined, see
    `harmonylite.db.mirror.conflict_journal`. ``waiting``: schema changes of other nodes that are not applied here yet.
    """
    keys = ", ".join(log_columns(width))
    tables = {
        LOG: f"(id INTEGER PRIMARY KEY, t, {keys})",
        STATE: "(name TEXT PRIMARY KEY, value) WITHOUT ROWID",
        POSITION: "(shard INTEGER PRIMARY KEY, seq INTEGER NOT NULL, resume INTEGER NOT NULL, created TEXT NOT NULL,"
        f" aborted BLOB, newest BLOB, {keys})",
        HELD: f"(t, {keys})",
        BASE: "(t INTEGER, key BLOB, row BLOB, PRIMARY KEY(t, key)) WITHOUT ROWID",
        OVERRULED: "(id INTEGER PRIMARY KEY, tbl TEXT, key BLOB, col TEXT, kind TEXT, winning, overruled, winner TEXT,"
        " loser TEXT, shard INTEGER, seq INTEGER, at REAL)",
        WAITING: "(id INTEGER PRIMARY KEY, node TEXT, why TEXT, change BLOB)",
    }
    return {quote(name): definition for name, definition in tables.items()}


def status_view() -> str:
    """Return the statement that creates our one view, which shows applications the position of the rows that they read.

    ``position``: in the form of `harmonylite wait -position`. It moves with the rows of other nodes, in their
    transaction, so a transaction that reads both has the rows of exactly that position. Commits of the application
    don't move it: each would need another commit.
    """
    listed = f"SELECT shard || ':' || seq AS place FROM {quote(POSITION)} WHERE shard >= 0 ORDER BY shard"
    return (
        f"CREATE VIEW IF NOT EXISTS main.{quote(STATUS)}(position) AS SELECT group_concat(place, ',') FROM ({listed})"
    )


def trigger_name(table_id: int, event: str) -> str:
    """Return the name of one capture trigger; the table's id is in it, so a rename keeps it."""
    return f"{PRIVATE}t{table_id}_{event}"


def triggers(shape: TableShape, table_id: int) -> dict[str, str]:
    """Return name and SQL of each capture trigger of one table.

    ``AFTER`` triggers log the key, an update that changes the key logs both. ``BEFORE`` ones log the rows that
    ``OR REPLACE`` would displace through a further unique index: SQLite fires no delete trigger for those.
    """
    real = [c for c in shape.keys if not c.pseudo]
    made = {
        "insert": _trigger(
            "AFTER INSERT", shape, [_append(shape, table_id, "NEW")], when=_up_to_watermark(shape, table_id)
        ),
        "delete": _trigger("AFTER DELETE", shape, [_append(shape, table_id, "OLD")]),
        "update": _trigger("AFTER UPDATE", shape, [_append(shape, table_id, "NEW")]),
    }
    changed = _key_changed(shape, real)
    made["rekey"] = _trigger("AFTER UPDATE", shape, [_append(shape, table_id, "OLD")], when=changed)
    for number, columns in enumerate(shape.unique):
        body = [_displaced(shape, table_id, columns)]
        made[f"replace{number}"] = _trigger("BEFORE INSERT", shape, body)
        some = " OR ".join(f"NEW.{quote(c)} IS NOT OLD.{quote(c)}" for c in columns)
        made[f"reupdate{number}"] = _trigger(
            f"BEFORE UPDATE OF {', '.join(map(quote, columns))}", shape, body, when=some
        )
    return {
        trigger_name(table_id, event): sql.format(quote(trigger_name(table_id, event))) for event, sql in made.items()
    }


def _up_to_watermark(shape: TableShape, table_id: int) -> str:
    """Return the condition that a new row is not above the watermark."""
    if not shape.rowid:
        return ""
    watermark = f"SELECT seq FROM {quote(POSITION)} WHERE shard = {-table_id}"
    return f"ifnull(NEW.{quote(shape.rowid)} <= ({watermark}), 1)"


def _key_changed(shape: TableShape, real: Sequence[Column]) -> str:
    terms = [f"OLD.{quote(c.name)} IS NOT NEW.{quote(c.name)} COLLATE BINARY" for c in real]
    if shape.rowid:
        terms.append(f"OLD.{quote(shape.rowid)} IS NOT NEW.{quote(shape.rowid)}")
    return " OR ".join(terms)


def _escape(sql: str) -> str:
    return sql.replace("{", "{{").replace("}", "}}")


def _trigger(event: str, shape: TableShape, body: Sequence[str], *, when: str = "") -> str:
    """Return a trigger's SQL with ``{}`` where its name goes."""
    head = f"ON {quote(shape.name)}" + (f" WHEN {when}" if when else "")
    return "CREATE TRIGGER {} " + _escape(f"{event} {head} BEGIN {' '.join(body)} END")


def _append(shape: TableShape, table_id: int, row: str) -> str:
    names = ", ".join(log_columns(len(shape.keys)))
    return f"INSERT INTO {quote(LOG)}(t, {names}) VALUES ({table_id}, {shape.read_key(row)});"


def _displaced(shape: TableShape, table_id: int, columns: Sequence[str]) -> str:
    """Return the statement that logs the rows of other keys with the new row's unique values."""
    names = ", ".join(log_columns(len(shape.keys)))
    clash = " AND ".join(f"d.{quote(c)} = NEW.{quote(c)}" for c in columns)
    return (
        f"INSERT INTO {quote(LOG)}(t, {names}) SELECT {table_id}, {shape.read_key('d')} "
        f"FROM {quote(shape.name)} AS d WHERE {clash};"
    )


OURS = pattern(r"__harmonylite__t(\d+)_\w+\Z")
"""The name of a trigger of ours, with its table's number in the log."""


def trigger_tables(connection: apsw.Connection, schema: str = "main") -> dict[int, str]:
    """Return the tables of an attached database that carry our triggers, by their number in its log."""
    found = rows(connection, f"SELECT name, tbl_name FROM {schema}.sqlite_schema WHERE type = 'trigger'")
    return {int(match[1]): table for name, table in found if (match := OURS.match(name))}


_IGNORES = pattern(r"(?i)\braise\s*\(\s*ignore\b")


def silenced_tables(connection: apsw.Connection) -> set[str]:
    """Return the folded names of tables with a trigger that says RAISE(IGNORE) and is newer than one of ours.

    SQLite runs the newest trigger first. One that ignores keeps the older ones from running, and an AFTER trigger keeps
    the row all the same (findings/sqlite-early-return-skips-other-triggers.sh).
    """
    theirs = "SELECT sql FROM main.sqlite_schema WHERE type = 'trigger' AND name NOT GLOB ?"
    if not any(_IGNORES.search(sql) for (sql,) in rows(connection, theirs, (OURS_GLOB,))):
        return set()
    with_ours, found = set[str](), set[str]()
    query = "SELECT name, tbl_name, sql FROM main.sqlite_schema WHERE type = 'trigger' ORDER BY rowid"
    for name, table, sql in rows(connection, query):
        if OURS.match(name):
            with_ours.add(folded(table))
        elif folded(table) in with_ours and _IGNORES.search(sql):
            found.add(folded(table))
    return found
