"""The stream's schema in the mirror, and what names of tables and columns meant before they changed.

Invariant: it changes with a schema section, in one transaction, and with nothing else: mirrors that have been through
the same sections hold the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import apsw

from harmonylite.db.mirror.state import history_of
from harmonylite.db.sqlite.connection import rows, value
from harmonylite.db.tracking.captured_schema import known_of, packed, unpacked
from harmonylite.model import ChangeSetId
from harmonylite.schema.catalog import Catalog, fold, tables_of
from harmonylite.schema.section import Known, SchemaChange
from harmonylite.schema.sql import PRIVATE, quote

CATALOG = quote(PRIVATE + "catalog")
ENDED = quote(PRIVATE + "ended")
"""What a name meant until a place in the order: a table's identity, or, in the table ``tbl``, a column's."""
MEANT = quote(PRIVATE + "meant")
"""What the writer of a change set with a section means by the names that this speaks of."""
MEANT_KEPT = 256
"""So many names are kept: the rows of a section's change set come right behind it."""


LAYOUT = {
    CATALOG: "(type, name, tbl, sql, id TEXT, columns BLOB)",
    ENDED: "(tbl TEXT, name TEXT, shard INTEGER, seq INTEGER, history TEXT, id TEXT,"
    " PRIMARY KEY(tbl, name, shard, seq, history)) WITHOUT ROWID",
    MEANT: "(number INTEGER PRIMARY KEY, change TEXT, name TEXT, id TEXT, columns BLOB)",
}


def read_catalog(connection: apsw.Connection, schema: str = "mirror") -> Catalog:
    """Return the stream's schema as a mirror knows it."""
    listed = f"SELECT type, name, tbl, sql, id, columns FROM {schema}.{CATALOG}"
    found = (known_of(*row[:4], 0, *row[4:]) for row in rows(connection, listed))
    return {known.key: known for known in found}


def write_catalog(connection: apsw.Connection, catalog: Iterable[Known]) -> None:
    """Let the mirror know the stream's schema; the transaction writes the mirror."""
    connection.execute(f"DELETE FROM mirror.{CATALOG}")
    connection.executemany(
        f"INSERT INTO mirror.{CATALOG} VALUES (?, ?, ?, ?, ?, ?)",
        [(k.kind, k.name, k.table, k.sql, k.id, packed(k.columns)) for k in catalog],
    )


def has_catalog(connection: apsw.Connection, schema: str = "mirror") -> bool:
    """Return whether a mirror knows the stream's schema."""
    there = f"SELECT 1 FROM {schema}.sqlite_schema WHERE name = ?"
    if value(connection, there, (PRIVATE + "catalog",)) is None:
        return False
    return value(connection, f"SELECT 1 FROM {schema}.{CATALOG} LIMIT 1") is not None


def fold_section(
    connection: apsw.Connection,
    changes: Sequence[SchemaChange],
    change_set: ChangeSetId,
    at: Mapping[int, int],
    base: Mapping[int, int],
) -> None:
    """Fold a section, at ``at`` in the order by shard, whose writer knew the order up to ``base``."""
    before = read_catalog(connection)
    shard = min(at, default=0)
    seq = base.get(shard)

    def table(name: str) -> str:
        return table_meant(connection, name, shard, seq)

    def column(of: str, name: str) -> str:
        return column_meant(connection, of, name, shard, seq)

    def had(id_: str) -> bool:
        return seq is not None and _existed(connection, id_, before, shard, seq)

    done = fold(before, changes, str(change_set), table, column, had)
    _end(connection, before, done.catalog, at)
    if done.catalog != before:
        write_catalog(connection, done.catalog.values())
    for name, (id_, columns) in done.meant.items():
        connection.execute(
            f"INSERT INTO mirror.{MEANT}(change, name, id, columns) VALUES (?, ?, ?, ?)",
            (str(change_set), name, id_, packed(columns.items())),
        )
    connection.execute(
        f"DELETE FROM mirror.{MEANT} WHERE number <= (SELECT max(number) FROM mirror.{MEANT}) - {MEANT_KEPT}"
    )


def _end(connection: apsw.Connection, before: Catalog, after: Catalog, at: Mapping[int, int]) -> None:
    """Write down what names meant that mean something else, or nothing, from now on."""
    now = {k[1]: known.id for k, known in after.items() if known.kind == "table"}
    ended: list[tuple[str, str, str]] = []
    was = {k[1]: known.id for k, known in before.items() if known.kind == "table"}
    ended += [("", name, was.get(name, "")) for name in was.keys() | now.keys() if was.get(name) != now.get(name)]
    later = tables_of(after.values())
    for id_, table in tables_of(before.values()).items():
        new = dict(later[id_].columns) if id_ in later else {}
        old = dict(table.columns)
        if id_ in later:
            ended += [(id_, n, old.get(n, "")) for n in old.keys() | new.keys() if old.get(n) != new.get(n)]
    named = history_of(connection, "mirror")
    connection.executemany(
        f"INSERT OR REPLACE INTO mirror.{ENDED} VALUES (?, ?, ?, ?, ?, ?)",
        [(of, name, shard, seq, named, id_) for of, name, id_ in sorted(ended) for shard, seq in at.items()],
    )


def _existed(connection: apsw.Connection, id_: str, now: Catalog, shard: int, seq: int) -> bool:
    """Return whether the stream had a table at ``seq`` of ``shard``, under whatever name."""
    called = rows(connection, f"SELECT DISTINCT name FROM mirror.{ENDED} WHERE tbl = '' AND id = ?", (id_,))
    sql = f"SELECT id FROM mirror.{ENDED} WHERE tbl = '' AND name = ? AND shard = ? AND history = ? AND seq > ?"
    for name in {*(name for (name,) in called), *(key[1] for key, known in now.items() if known.id == id_)}:
        about = (name, shard, history_of(connection, "mirror"), seq)
        then = value(connection, f"{sql} ORDER BY seq LIMIT 1", about)
        there = now.get(("table", name))
        if then == id_ or (then is None and there is not None and there.id == id_):
            return True
    return False


def table_meant(connection: apsw.Connection, name: str, shard: int, seq: int | None) -> str:
    """Return the identity of the table that was called ``name`` (folded) at ``seq`` of ``shard``, None: now.

    Where none was, the one that was called so last: its writer may not have been through all changes. "" for none.
    """
    sql = f"SELECT id FROM mirror.{CATALOG} WHERE type = 'table' AND lower(name) = lower(?)"
    return _meant(connection, "", name, shard, seq, lambda: str(value(connection, sql, (name,)) or ""))


def column_meant(connection: apsw.Connection, table: str, name: str, shard: int, seq: int | None) -> str:
    """Return the identity of the column that was called ``name`` (folded) in a table; as `table_meant`."""

    def now() -> str:
        found = value(connection, f"SELECT columns FROM mirror.{CATALOG} WHERE id = ?", (table,))
        return dict(unpacked(found)).get(name, "")

    return _meant(connection, table, name, shard, seq, now)


def _meant(connection: apsw.Connection, of: str, name: str, shard: int, seq: int | None, now: Callable[[], str]) -> str:
    named = history_of(connection, "mirror")
    where = f"FROM mirror.{ENDED} WHERE tbl = ? AND name = ? AND shard = ? AND history = ?"
    about = (of, name, shard, named)
    found = None
    if seq is not None:
        found = value(connection, f"SELECT id {where} AND seq > ? ORDER BY seq LIMIT 1", (*about, seq))
    if found is None:
        found = now()
    if found:
        return str(found)
    last = "ORDER BY seq DESC LIMIT 1"
    if seq is None:
        return str(value(connection, f"SELECT id {where} AND id <> '' {last}", about) or "")
    return str(value(connection, f"SELECT id {where} AND id <> '' AND seq <= ? {last}", (*about, seq)) or "")


def writer_meant(connection: apsw.Connection, change_set: ChangeSetId) -> dict[str, tuple[str, dict[str, str]]]:
    """Return what the writer of a change set with a section means by the names that this speaks of."""
    found = rows(connection, f"SELECT name, id, columns FROM mirror.{MEANT} WHERE change = ?", (str(change_set),))
    return {name: (id_, dict(unpacked(columns))) for name, id_, columns in found}


def newest_end(connection: apsw.Connection) -> dict[int, int]:
    """Return, by shard, where in the order the last name changed its meaning."""
    sql = f"SELECT shard, max(seq) FROM mirror.{ENDED} WHERE history = ? GROUP BY shard"
    return dict(rows(connection, sql, (history_of(connection, "mirror"),)))
