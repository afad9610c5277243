"""The conflict journal: which values were overruled, by which node, and where in the order.

Invariant: the entries of a fold are part of the mirror and equal on every node. The entries of a join are about this
file's own rows: the transaction that overrules them writes them to the database, and they stay there when the mirror
is replaced.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import apsw

from harmonylite.changes.reassembler import Fragment
from harmonylite.db.sqlite.connection import rows, value
from harmonylite.db.sqlite.lossless import codec_of, decode, exact, marks
from harmonylite.db.tracking.tracked_table import TrackedTable
from harmonylite.db.tracking.triggers import OVERRULED
from harmonylite.errors import ForeignError
from harmonylite.foreign import Codec
from harmonylite.model import ChangeSetId, Conflict, SqlValue
from harmonylite.schema.shape import TableShape
from harmonylite.schema.sql import PRIVATE, quote
from harmonylite.wire import KIND_CHANGES, TableBlock, WireError, decode_block, decode_value, encode_value

log = logging.getLogger(__name__)

_CONFLICTS = quote(PRIVATE + "conflicts")
_RECENT = quote(PRIVATE + "recent")
JOURNAL = f"mirror.{_CONFLICTS}"
LOCAL = f"main.{quote(OVERRULED)}"
RECENT = f"mirror.{_RECENT}"
RECENT_ROWS = 2_000
RECENT_BYTES = 1_000_000
"""Of a change set with more rows, or more bytes on the wire, only the name is remembered."""
AUTHOR_WITHIN = 256
"""How many messages back a large change set may be to count as the writer of a value without a known one."""
AUTHOR_ROWS = 200_000
"""Rows of recent change sets that one change set searches for the writers of overruled values."""
MOST_DROPPED = 1_000
"""Rows of one part of a change set that are journaled if their table was dropped."""
RECENT_KEPT = 4_096
"""Messages of a shard for which change sets are remembered."""
RECENT_STEP = 64
"""Surplus messages that are deleted at once, as each deletion writes one page more."""

LAYOUT = {
    _CONFLICTS: "(id INTEGER PRIMARY KEY, tbl TEXT, key BLOB, col TEXT, kind TEXT, winning, overruled, winner TEXT,"
    " loser TEXT, shard INTEGER, seq INTEGER, at REAL)",
    _RECENT: "(shard INTEGER, seq INTEGER, node TEXT, blocks BLOB, nth INTEGER, PRIMARY KEY(shard, seq)) WITHOUT ROWID",
}


_NEWEST = f"ifnull((SELECT nth FROM {RECENT} WHERE shard = ?1 ORDER BY seq DESC LIMIT 1), 0)"
"""The number of a shard's newest change set. It counts through all epochs, while sequences may start at 1
again.
"""


BLOCKS = Codec("the blocks of a change set", list[tuple[bytes, bool]], packed=True, most=2**31)


def kept_blocks(blob: bytes) -> list[tuple[bytes, bool]]:
    """Return the blocks of a remembered change set, and whether each is compressed; [] if they were not kept."""
    try:
        return BLOCKS.decode(blob)
    except ForeignError:
        return []


@dataclass(frozen=True, slots=True)
class Overruled:
    """One column of a row: its index, the winner's value, and the loser's."""

    column: int
    winning: Any
    overruled: Any


def whole_row(shape: TableShape, row: Sequence[Any]) -> list[Overruled]:
    """Return a row that gave way to none: what is not of its key or, of a row that is all key, one column of that."""
    columns = [i for i in range(len(row)) if shape.columns[i].key < 0] or [0]
    return [Overruled(i, None, row[i]) for i in columns]


class Authors:
    """The last writer of a column of a row before the change set at ``seq`` of a shard, by the remembered change sets.

    Each of those is decoded at most once, newest first, and only as far back as the caller asks: after a failover or a
    long cut, overruled values were written long before. If a large change set, of which only the writer is remembered,
    may have written the row later than the found one, no node is named rather than the wrong one.
    """

    def __init__(self, connection: apsw.Connection, shard: int, seq: int) -> None:
        self._known: dict[tuple[str, tuple[Any, ...]], list[tuple[frozenset[str] | None, str]]] = {}
        self._large: set[str] = set()
        self._near: set[str] = set()
        self._within = seq - AUTHOR_WITHIN
        self._left = AUTHOR_ROWS
        self._connection = connection
        self._older = rows(
            connection, f"SELECT shard, seq FROM {RECENT} WHERE shard = ? AND seq < ? ORDER BY seq", (shard, seq)
        )

    def author(self, table: str, key: Sequence[Any], column: str) -> str:
        """Return the node of the newest change set that wrote a column of a row, "" when not known."""
        writes, seen = self._known.setdefault((table, tuple(key)), []), 0
        while True:
            for names, node in writes[seen:]:
                if names is None or column in names:
                    return node
            if not self._older or self._left <= 0:
                return next(iter(self._near)) if len(self._near) == 1 else ""
            seen = len(writes)
            self._read(*self._older.pop())

    def _read(self, shard: int, seq: int) -> None:
        sql = f"SELECT node, blocks FROM {RECENT} WHERE shard = ? AND seq = ?"
        ((node, blob),) = rows(self._connection, sql, (shard, seq))
        blocks = kept_blocks(blob)
        if not blocks:
            self._large.add(node)
            self._near |= {node} if seq > self._within else set()
        named = node if self._large <= {node} else ""
        for body, packed in blocks:
            try:
                for part in decode_block(body, packed=packed):
                    self._take(part, named)
            except WireError:
                continue

    def _take(self, part: TableBlock, node: str) -> None:
        """Record the rows of a part, and the columns that it wrote in them (None: all)."""
        written: list[tuple[Sequence[Any], frozenset[str] | None]] = [(row, None) for row in part.deletes]
        written += [(row, None) for row in part.inserts]
        for group in part.updates:
            names = frozenset(part.columns[i] for i in group.changed)
            written += [(row, names) for row in group.rows]
        self._left -= len(written)
        for row, columns in written:
            self._known.setdefault((part.table, tuple(row[: part.keys])), []).append((columns, node))


class ConflictJournal:
    """Writes and reads the conflict journal; every method runs in a transaction of the caller."""

    def __init__(self, connection: apsw.Connection, node: str) -> None:
        self._connection = connection
        self.node = node
        self.written = 0
        self._authors: Authors | None = None

    def begin(self) -> None:
        """Begin another change set, with a new search for earlier writers."""
        self._authors = None

    def remember(self, fragment: Fragment, count: int) -> None:
        """Remember a folded change set for a while, so that a later conflict can name an overruled value's writer."""
        blocks: list[tuple[bytes, bool]] = []
        if count <= RECENT_ROWS and fragment.size <= RECENT_BYTES:
            for offset, length, packed in fragment.blocks:
                fragment.spool.seek(offset)
                blocks.append((fragment.spool.read(length), packed))
        self._connection.execute(
            f"INSERT OR REPLACE INTO {RECENT} VALUES (?1, ?2, ?3, ?4, 1 + {_NEWEST})",
            (fragment.shard, fragment.seq, fragment.id.node, BLOCKS.encode(blocks)),
        )
        shard, last = fragment.shard, fragment.seq - RECENT_KEPT - 1
        oldest = value(self._connection, f"SELECT min(seq) FROM {RECENT} WHERE shard = ? AND seq >= 1", (shard,))
        if (
            oldest + RECENT_STEP <= last
        ):  # including the entries of an earlier epoch below all numbers, see `begin_epoch`
            self._connection.execute(f"DELETE FROM {RECENT} WHERE shard = ? AND seq <= ?", (shard, last))

    def write(
        self, fragment: Fragment, table: TrackedTable, row: Sequence[Any], kind: str, overruled: Sequence[Overruled]
    ) -> None:
        """Journal the columns of ``row`` that ``fragment`` overrules; equal on every node."""
        if not overruled:
            return
        key = row[: len(table.shape.keys)]
        if self._authors is None:
            self._authors = Authors(self._connection, fragment.shard, fragment.seq)
        for item in overruled:
            loser = self._authors.author(table.shape.name, key, table.shape.columns[item.column].name)
            self._insert(
                JOURNAL,
                table,
                key,
                item,
                (kind, fragment.id.node, loser, fragment.shard, fragment.seq, fragment.stored),
            )

    def write_dropped(self, fragment: Fragment, part: TableBlock) -> None:
        """Journal the rows of ``part``, whose table was dropped; equal on every node."""
        log.warning(
            "skip %(rows)d rows of table %(table)s in message %(seq)d of shard %(shard)d, written by "
            "node %(node)s: the table was dropped",
            {
                "rows": part.count,
                "table": part.table,
                "seq": fragment.seq,
                "shard": fragment.shard,
                "node": fragment.id.node,
            },
        )
        about = ("dropped", "", fragment.id.node, fragment.shard, fragment.seq, fragment.stored)
        for row in [*part.inserts, *(row for group in part.updates for row in group.rows)][:MOST_DROPPED]:
            key = encode_value(dict(zip(part.columns[: part.keys], row, strict=False)))
            for column, overruled in list(zip(part.columns, row, strict=False))[part.keys :]:
                self._write(JOURNAL, (part.table, key, column, None, overruled), about)

    def write_unsent(self, table: TrackedTable, unsent: Iterable[Sequence[Any]]) -> None:
        """Journal this node's own rows that no change set contained, of a table that another node dropped."""
        count = 0
        for count, row in enumerate(unsent, start=1):
            if count <= MOST_DROPPED:
                self.write_local(table, row, "dropped", whole_row(table.shape, row))
        if count:
            log.warning(
                "drop table %(table)s, as another node did, with %(rows)d rows that were written here and not sent;"
                " the conflict journal has them, up to %(most)d",
                {"table": table.shape.name, "rows": count, "most": MOST_DROPPED},
            )

    def write_local(self, table: TrackedTable, row: Sequence[Any], kind: str, overruled: Sequence[Overruled]) -> None:
        """Journal this node's own values that gave way before a change set contained them."""
        key = row[: len(table.shape.keys)]
        for item in overruled:
            self._insert(LOCAL, table, key, item, (kind, "", self.node, 0, 0, time.time()))

    def _insert(
        self,
        journal: str,
        table: TrackedTable,
        key: Sequence[Any],
        item: Overruled,
        about: tuple[str, str, str, int, int, float],
    ) -> None:
        names = {column.name: value for column, value in zip(table.shape.keys, key, strict=True)}
        column = table.shape.columns[item.column].name
        self._write(journal, (table.shape.name, encode_value(names), column, item.winning, item.overruled), about)

    def _write(
        self, journal: str, what: tuple[str, bytes, str, Any, Any], about: tuple[str, str, str, int, int, float]
    ) -> None:
        places, bound = marks([*what, *about])
        self._connection.execute(
            f"INSERT INTO {journal}(tbl, key, col, winning, overruled, kind, winner, loser, shard, seq, at)"
            f" VALUES ({places})",
            bound,
        )
        self.written += 1


def keep_entries(connection: apsw.Connection, after: Mapping[int, int]) -> None:
    """Copy the mirror's entries after the sequences ``after`` into the database, before another mirror replaces it.

    A repeated call copies nothing twice. Runs in a transaction of the caller.
    """
    names = "tbl, key, col, kind, winning, overruled, winner, loser, shard, seq, at"
    for shard, seq in after.items():
        connection.execute(
            f"INSERT INTO {LOCAL}({names}) SELECT {names} FROM {JOURNAL} AS j WHERE shard = ? AND seq > ?"
            f" AND NOT EXISTS (SELECT 1 FROM {LOCAL} AS l WHERE l.shard = j.shard AND l.seq = j.seq AND l.at = j.at"
            " AND l.tbl = j.tbl AND l.key = j.key AND l.col = j.col)",
            (shard, seq),
        )


def remembered_nodes(connection: apsw.Connection) -> set[str]:
    """Return the nodes whose change sets the mirror remembers."""
    return {node for (node,) in rows(connection, f"SELECT DISTINCT node FROM {RECENT}")}


def recent_nodes(connection: apsw.Connection, ends: Mapping[int, int]) -> frozenset[str]:
    """Return the writers of change sets that the mirror folded after the sequences ``ends``, by shard."""
    sql = f"SELECT DISTINCT node FROM {RECENT} WHERE shard = ? AND seq > ?"
    return frozenset(node for at in ends.items() for (node,) in rows(connection, sql, at))


def recent_ends(connection: apsw.Connection, mirror: str) -> dict[int, int]:
    """Return how many change sets of each shard the mirror attached as ``mirror`` has ever folded."""
    recent = RECENT.replace("mirror.", f"{mirror}.", 1)
    return dict(rows(connection, f"SELECT shard, max(nth) FROM {recent} GROUP BY shard"))


def recent_of(connection: apsw.Connection, node: str, after: Mapping[int, int] | None = None) -> list[Fragment]:
    """Return the change sets of one node that the mirror folded and ``base`` did not, if it remembers their rows.

    ``base`` is an earlier state of the same mirror, possibly of an earlier epoch; otherwise ``after`` has the
    `recent_ends` of such a mirror.
    """
    after = recent_ends(connection, "base") if after is None else after
    sql = f"SELECT shard, seq, blocks, nth FROM {RECENT} WHERE node = ? ORDER BY nth"
    return [
        _fragment(node, shard, seq, blob)
        for shard, seq, blob, nth in rows(connection, sql, (node,))
        if nth > after.get(shard, 0)
    ]


def recent_behind(connection: apsw.Connection, node: str, seqs: Mapping[int, int], most: int = -1) -> list[Fragment]:
    """Return the change sets of one node that the mirror folded after ``seqs``, by shard, newest first.

    ``most``: the most of each shard; -1: all. A large one has no blocks.
    """
    sql = f"SELECT shard, seq, blocks FROM {RECENT} WHERE node = ? AND shard = ? AND seq > ? ORDER BY seq DESC LIMIT ?"
    at = ((node, shard, seq, most) for shard, seq in seqs.items())
    return [_fragment(node, *found) for bound in at for found in rows(connection, sql, bound)]


def _fragment(node: str, shard: int, seq: int, blob: bytes) -> Fragment:
    spool, blocks = BytesIO(), []
    for body, packed in kept_blocks(blob):
        blocks.append((spool.tell(), len(body), packed))
        spool.write(body)
    return Fragment(ChangeSetId(node, "", seq), KIND_CHANGES, shard, seq, seq, (shard,), 0.0, {}, blocks, spool)


def _key_of(blob: bytes) -> dict[str, SqlValue]:
    """Return the key of an entry, by column; {} for an entry without one."""
    try:
        found = decode_value(blob)
    except WireError:
        return {}
    return found if isinstance(found, dict) else {}


def read_journal(
    connection: apsw.Connection,
    *,
    table: str | None = None,
    limit: int = 100,
    newest: int | None = None,
    fits: Callable[[Conflict], bool] = lambda _: True,
) -> list[Conflict]:
    """Return the conflicts for which ``fits`` is true, newest first, of one table or of all.

    ``newest``: how many entries to search, None: as many as are wanted.
    """
    where, bound = ("WHERE tbl = ?1 COLLATE NOCASE", [table]) if table is not None else ("WHERE ?1 IS NULL", [None])
    listed = ", ".join(["tbl", "key", "col", "kind", "winner", "loser", "shard", "seq", "at"])
    codec = codec_of(connection)
    reads = f"SELECT {listed}, {exact(['winning', 'overruled'])}, id"
    found = connection.execute(
        f"{reads} FROM {JOURNAL} {where} UNION ALL {reads} FROM {LOCAL} {where} ORDER BY at DESC, id DESC LIMIT ?2",
        [*bound, limit if newest is None else newest],
    )
    conflicts: list[Conflict] = []
    for *row, _ in found:
        if len(conflicts) == limit:
            break
        tbl, key, col, kind, winner, loser, shard, seq, at, winning, overruled = decode(tuple(row), 9, codec)
        conflict = Conflict(tbl, _key_of(key), col, kind, winning, overruled, winner, loser, shard, seq, at)
        if fits(conflict):
            conflicts.append(conflict)
    return conflicts
