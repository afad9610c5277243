"""The stream's schema in the mirror, and what names of tables and columns meant before they changed.

Invariant: it changes with a schema section, in one transaction, and with nothing else: mirrors that have been through
the same sections hold the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import apsw

from harmonylite.db.mirror.state import get_state, history_of, set_state
from harmonylite.db.sqlite.connection import rows, value
from harmonylite.db.sqlite.listing import write_list
from harmonylite.db.tracking.captured_schema import known_of, packed, unpacked
from harmonylite.model import ChangeSetId
from harmonylite.schema.catalog import Catalog, fold, tables_of
from harmonylite.schema.names import folded
from harmonylite.schema.section import Known, SchemaChange
from harmonylite.schema.sql import PRIVATE, quote
from harmonylite.wire import decode_value, encode_value

CATALOG = quote(PRIVATE + "catalog")
ENDED = quote(PRIVATE + "ended")
"""What a name meant until a place in the order: a table's identity, or, in the table ``tbl``, a column's."""
ENDS = "ended"
"""The fact of the mirror that holds the newest places in it, by shard: it grows with each change of a name."""
MEANT = quote(PRIVATE + "meant")
"""What the writer of a change set with a section means by the names that this speaks of."""
MEANT_KEPT = 256
"""So many names are kept behind the rows of their change sets: a database that was put back may read them again."""


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
    listed = [(k.kind, k.name, k.table, k.sql, k.id, packed(k.columns)) for k in catalog]
    write_list(connection, f"mirror.{CATALOG}", ("type", "name", "tbl", "sql", "id", "columns"), listed)


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
    names = NamesMeant(connection, before)
    shard = min(at, default=0)
    seq = base.get(shard)

    def table(name: str) -> str:
        return names.table(name, shard, seq)

    def column(of: str, name: str) -> str:
        return names.column(of, name, shard, seq)

    def had(id_: str) -> bool:
        return seq is not None and names.had(id_, shard, seq)

    done = fold(before, changes, str(change_set), table, column, had)
    _end(connection, before, done.catalog, at)
    if done.catalog != before:
        write_catalog(connection, done.catalog.values())
    for name, (id_, columns) in done.meant.items():
        connection.execute(
            f"INSERT INTO mirror.{MEANT}(change, name, id, columns) VALUES (?, ?, ?, ?)",
            (str(change_set), name, id_, packed(columns.items())),
        )


def forget_meant(connection: apsw.Connection) -> None:
    """Forget what writers meant by names in sections of long ago; the rows of all their change sets are here."""
    oldest = f"(SELECT max(number) FROM mirror.{MEANT}) - {MEANT_KEPT}"
    connection.execute(f"DELETE FROM mirror.{MEANT} WHERE number <= {oldest}")


def _end(connection: apsw.Connection, before: Catalog, after: Catalog, at: Mapping[int, int]) -> None:
    """Write down what names meant that mean something else, or nothing, from now on."""
    changed = {key for key in before.keys() | after.keys() if before.get(key) is not after.get(key)}
    was, now = ({key[1]: c[key].id for key in changed if key in c and c[key].kind == "table"} for c in (before, after))
    ended = [("", name, was.get(name, "")) for name in was.keys() | now.keys() if was.get(name) != now.get(name)]
    later = tables_of(after[key] for key in changed if key in after)
    for id_, table in tables_of(before[key] for key in changed if key in before).items():
        if id_ in later:
            old, new = dict(table.columns), dict(later[id_].columns)
            ended += [(id_, n, old.get(n, "")) for n in old.keys() | new.keys() if old.get(n) != new.get(n)]
    if not ended:
        return
    history, ends = history_of(connection, "mirror"), newest_end(connection)
    connection.executemany(
        f"INSERT OR REPLACE INTO mirror.{ENDED} VALUES (?, ?, ?, ?, ?, ?)",
        [(of, name, shard, seq, history, id_) for of, name, id_ in sorted(ended) for shard, seq in at.items()],
    )
    ends |= {shard: max(seq, ends.get(shard, seq)) for shard, seq in at.items()}
    set_state(connection, "mirror", ENDS, encode_value([history, [list(end) for end in sorted(ends.items())]]))


@dataclass
class NamesMeant:
    """What names mean, and meant, in the stream. ``catalog``: its schema now."""

    connection: apsw.Connection
    catalog: Catalog

    @cached_property
    def tables(self) -> dict[str, Known]:
        """The stream's tables, by identity."""
        return tables_of(self.catalog.values())

    def table(self, name: str, shard: int, seq: int | None) -> str:
        """Return the identity of the table that was called ``name`` (folded) at ``seq`` of ``shard``, None: now.

        Where none was, the one that was called so last: its writer may not have been through all changes. "" for none.
        """
        there = self.catalog.get(("table", name))
        return self._meant("", name, shard, seq, there.id if there is not None and there.kind == "table" else "")

    def column(self, table: str, name: str, shard: int, seq: int | None) -> str:
        """Return the identity of the column that was called ``name`` (folded) in a table; as `table`."""
        there = self.tables.get(table)
        return self._meant(table, name, shard, seq, "" if there is None else dict(there.columns).get(name, ""))

    def had(self, id_: str, shard: int, seq: int) -> bool:
        """Return whether the stream had a table at ``seq`` of ``shard``, under whatever name."""
        listed = f"SELECT DISTINCT name FROM mirror.{ENDED} WHERE tbl = '' AND id = ?"
        called = {name for (name,) in rows(self.connection, listed, (id_,))}
        if id_ in self.tables:
            called.add(folded(self.tables[id_].name))
        for name in called:
            then = self._ended("", name, shard, "seq > ? ORDER BY seq LIMIT 1", seq)
            there = self.catalog.get(("table", name))
            if then == id_ or (then is None and there is not None and there.id == id_):
                return True
        return False

    def _meant(self, of: str, name: str, shard: int, seq: int | None, now: str) -> str:
        found = None if seq is None else self._ended(of, name, shard, "seq > ? ORDER BY seq LIMIT 1", seq)
        if found is None:
            found = now
        if not found:
            upto, last = ("TRUE", ()) if seq is None else ("seq <= ?", (seq,))
            found = self._ended(of, name, shard, f"id <> '' AND {upto} ORDER BY seq DESC LIMIT 1", *last)
        return found or ""

    def _ended(self, of: str, name: str, shard: int, which: str, *given: int) -> str | None:
        sql = f"SELECT id FROM mirror.{ENDED} WHERE tbl = ? AND name = ? AND shard = ? AND history = ? AND {which}"
        found = value(self.connection, sql, (of, name, shard, history_of(self.connection, "mirror"), *given))
        return None if found is None else str(found)


def writer_meant(connection: apsw.Connection, change_set: ChangeSetId) -> dict[str, tuple[str, dict[str, str]]]:
    """Return what the writer of a change set with a section means by the names that this speaks of."""
    found = rows(connection, f"SELECT name, id, columns FROM mirror.{MEANT} WHERE change = ?", (str(change_set),))
    return {name: (id_, dict(unpacked(columns))) for name, id_, columns in found}


def newest_end(connection: apsw.Connection) -> dict[int, int]:
    """Return, by shard, where in the order the last name changed its meaning."""
    named, blob = history_of(connection, "mirror"), get_state(connection, "mirror", ENDS)
    if blob is None:  # an earlier version wrote the names
        sql = f"SELECT shard, max(seq) FROM mirror.{ENDED} WHERE history = ? GROUP BY shard"
        return dict(rows(connection, sql, (named,)))
    history, ends = decode_value(blob)
    return dict(ends) if history == named else {}
