"""Facts of a database file besides its tables: numbers in its header, used keys, and ANALYZE's results.

A mirror stores those of its database, so that a file made from a snapshot is the same to its application. Otherwise an
application that migrates by ``user_version`` would create its tables a second time.

Invariant: the stored facts are untrusted data; only numbers in their range reach a pragma.
"""

from __future__ import annotations

import apsw

from harmonylite.db.sqlite.connection import rows, value
from harmonylite.db.sqlite.real_digits import NEWER, OLDER, digits_of
from harmonylite.db.tracking import layout
from harmonylite.schema.section import PRAGMAS
from harmonylite.schema.sql import PRIVATE, is_private, quote

HEADER = dict.fromkeys(PRAGMAS, (-(2**31), 2**31 - 1))
"""Numbers that the application may set, and their ranges (SQLite: fileformat2, section 1.3)."""
LAYOUT = {"page_size": (512, 65536), "auto_vacuum": (0, 2)}
"""Settings that must precede the first table."""
_DIGITS = "real_digits"
_FACTS = quote(PRIVATE + "file")
_ANALYZED = quote(PRIVATE + "analyzed")
_MOST_ANALYZED = 100_000


def header(connection: apsw.Connection) -> tuple[int, ...]:
    """Return the numbers in the database's header that its application may set."""
    return tuple(int(value(connection, f"PRAGMA main.{name}")) for name in HEADER)


def remember_file(connection: apsw.Connection) -> None:
    """Store the facts of the database file in the mirror, within a transaction, if they changed."""
    own = {_FACTS: "(name TEXT PRIMARY KEY, value) WITHOUT ROWID", _ANALYZED: "(tbl, idx, stat)"}
    layout.make(connection, "mirror", own)
    now = {name: int(value(connection, f"PRAGMA main.{name}")) for name in (*HEADER, *LAYOUT)}
    now[_DIGITS] = digits_of(connection)
    if dict(rows(connection, f"SELECT name, value FROM mirror.{_FACTS}")) != now:
        connection.executemany(f"INSERT OR REPLACE INTO mirror.{_FACTS} VALUES (?, ?)", now.items())
    _raise_sequences(connection, "main", "mirror")
    found = _analyzed(connection)
    # a database that is being built from this mirror has no statistics yet
    if found and rows(connection, f"SELECT tbl, idx, stat FROM mirror.{_ANALYZED}") != found:
        connection.execute(f"DELETE FROM mirror.{_ANALYZED}")
        connection.executemany(f"INSERT INTO mirror.{_ANALYZED} VALUES (?, ?, ?)", found)


def _analyzed(connection: apsw.Connection) -> list[tuple[object, ...]]:
    if value(connection, "SELECT 1 FROM main.sqlite_schema WHERE name = 'sqlite_stat1'") is None:
        return []
    listed = "SELECT tbl, idx, stat FROM main.sqlite_stat1 ORDER BY tbl, idx"
    return [row for row in rows(connection, f"{listed} LIMIT {_MOST_ANALYZED}") if not is_private(str(row[0]))]


def lay_out(connection: apsw.Connection, snapshot: apsw.Connection, page_size: int | None = None) -> None:
    """Give an empty database file the layout and the header stored in ``snapshot``, outside a transaction.

    ``page_size``: in bytes; None: the stored one.
    """
    known = remembered_facts(snapshot, "main") | ({"page_size": page_size} if page_size else {})
    for name in (*LAYOUT, *HEADER):
        if name in known:
            connection.execute(f"PRAGMA main.{name} = {known[name]}")


def remembered_facts(connection: apsw.Connection, schema: str) -> dict[str, int]:
    """Return the numbers of header and layout that a mirror stores of its database, if they are in their ranges."""
    if not _has(connection, schema, PRIVATE + "file"):
        return {}
    known = dict(rows(connection, f"SELECT name, value FROM {schema}.{_FACTS}"))
    return {
        name: known[name]
        for name, (least, most) in (LAYOUT | HEADER).items()
        if isinstance(known.get(name), int) and least <= known[name] <= most
    }


def remembered_digits(connection: apsw.Connection, schema: str) -> int:
    """Return how many digits a mirror's database uses for reals as text, 0 if that is unknown."""
    known = None
    if _has(connection, schema, PRIVATE + "file"):
        known = value(connection, f"SELECT value FROM {schema}.{_FACTS} WHERE name = ?", (_DIGITS,))
    return known if known in (OLDER, NEWER) else 0


def finish(connection: apsw.Connection) -> None:
    """Restore facts besides the rows in a database that was filled from its mirror, within a transaction.

    AUTOINCREMENT then gives out no key twice, and SQLite's planner has the results of ANALYZE.
    """
    _raise_sequences(connection, "mirror", "main")
    if not _has(connection, "mirror", PRIVATE + "analyzed") or _has(connection, "main", "sqlite_stat1"):
        return
    found = rows(connection, f"SELECT tbl, idx, stat FROM mirror.{_ANALYZED} LIMIT {_MOST_ANALYZED}")
    if found:
        connection.execute("ANALYZE main.sqlite_schema")  # makes the tables and looks at no row
        connection.execute("DROP TABLE IF EXISTS main.sqlite_stat4")
        connection.executemany("INSERT INTO main.sqlite_stat1 VALUES (?, ?, ?)", found)


def _raise_sequences(connection: apsw.Connection, source: str, target: str) -> None:
    """Keep each table of ``target`` from giving out a key that ``source`` has given out."""
    if not (_has(connection, source, "sqlite_sequence") and _has(connection, target, "sqlite_sequence")):
        return
    known = dict(rows(connection, f"SELECT name, seq FROM {target}.sqlite_sequence"))
    for name, number in rows(connection, f"SELECT name, seq FROM {source}.sqlite_sequence"):
        if not isinstance(number, int) or number <= int(known.get(name) or 0) or not _has(connection, target, name):
            continue
        if name in known:
            connection.execute(f"UPDATE {target}.sqlite_sequence SET seq = ? WHERE name = ?", (number, name))
        else:
            connection.execute(f"INSERT INTO {target}.sqlite_sequence VALUES (?, ?)", (name, number))


def _has(connection: apsw.Connection, schema: str, table: str) -> bool:
    sql = f"SELECT 1 FROM {schema}.sqlite_schema WHERE type = 'table' AND name = ?"
    return value(connection, sql, (table,)) is not None
