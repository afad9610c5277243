"""Capture: read the pending rows in one read transaction and encode them as one change set.

Invariant: what is captured is the state of whole transactions, found by comparing the database with the mirror, and
with the change sets in flight laid over that; the log only says where to look.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from tempfile import SpooledTemporaryFile
from typing import IO, Any

import apsw

from harmonylite.changes.sharding import home_of, shard_of
from harmonylite.db.capture import merge_base
from harmonylite.db.capture.laying import expect, laid_over, mirrored
from harmonylite.db.sqlite.connection import value
from harmonylite.db.sqlite.lossless import codec_of, decode, exact, step
from harmonylite.db.tracking.tracked_table import TrackedTable
from harmonylite.db.tracking.triggers import HELD
from harmonylite.model import ChangeSetId
from harmonylite.schema.section import SchemaChange, encode
from harmonylite.schema.shape import any_differs, differs
from harmonylite.schema.sql import quote
from harmonylite.wire import (
    BLOCK_BYTES,
    KIND_ADDITIONS,
    KIND_CHANGES,
    KIND_SCHEMA,
    VERSION,
    Envelope,
    TableBlock,
    Updates,
    cut,
    decode_block,
    encode_block,
    encode_envelope,
    encode_tables,
)

Record = tuple[Any, ...]
SPOOL_BYTES = 8_000_000
"""A change set above this many bytes waits for its publication in a temporary file."""
MASK_BITS = 62


@dataclass
class Outgoing:
    """A captured change set, ready to be published. ``log_id``: the log id that it was read at; ``rows``: how many;
    ``section``: what it changes in the schema; ``history``: the one of the mirror that it was compared with;
    ``current``: as in an `Envelope`.

    ``parts``: per shard, offset, length, whether more of the block follows, and compression of each message's body.
    ``message_bytes``: the most that such a body may hold. ``tables``: those with rows here, and whether some are new.
    """

    id: ChangeSetId
    log_id: int
    time: float
    base: dict[int, int]
    spool: IO[bytes]
    rows: int = 0
    section: list[SchemaChange] = field(default_factory=list)
    parts: dict[int, list[tuple[int, int, bool, bool]]] = field(default_factory=dict)
    history: str = ""
    current: bool = False
    message_bytes: int = 0
    tables: dict[str, bool] = field(default_factory=dict)

    @property
    def kind(self) -> int:
        """The kind of its messages; a program that reads additions alone reads as many as it can."""
        if not self.section:
            return KIND_CHANGES
        return KIND_ADDITIONS if all(change.is_plain for change in self.section) else KIND_SCHEMA

    def payload(self, shard: int, index: int) -> bytes:
        """Return the payload of one message for one shard."""
        offset, length, more, packed = self.parts[shard][index]
        self.spool.seek(offset)
        return encode_envelope(
            Envelope(
                VERSION,
                self.kind,
                self.id.node,
                self.id.session,
                self.id.number,
                index,
                more,
                index == len(self.parts[shard]) - 1,
                sorted(self.parts),
                self.time,
                self.base,
                packed,
                self.spool.read(length),
                self.history,
                self.current,
            )
        )

    def payloads(self, shard: int) -> Iterator[bytes]:
        """Yield the payload of each message for one shard."""
        for index in range(len(self.parts[shard])):
            yield self.payload(shard, index)

    def decoded(self) -> Iterator[TableBlock]:
        """Yield what its blocks hold, in their order."""
        for parts in self.parts.values():
            body = b""
            for offset, length, more, packed in parts:
                self.spool.seek(offset)
                body += self.spool.read(length)
                if not more:
                    yield from decode_block(body, packed=packed)
                    body = b""

    def close(self) -> None:
        """Release the blocks' storage."""
        self.spool.close()


class _Writer:
    """Gathers encoded rows per shard into blocks, and blocks into an `Outgoing`'s spool."""

    def __init__(self, out: Outgoing, *, compress: bool, message_bytes: int) -> None:
        self._out = out
        self._compress = compress
        self._most = message_bytes
        self._tables: dict[int, list[bytes]] = {}
        self._sizes: dict[int, int] = {}

    def add(self, shard: int, tables: TableBlock) -> int:
        encoded = encode_tables(tables)
        self._tables.setdefault(shard, []).append(encoded)
        self._sizes[shard] = self._sizes.get(shard, 0) + len(encoded)
        if self._sizes[shard] >= BLOCK_BYTES:
            self.flush(shard)
        self._out.rows += tables.count
        self._out.tables[tables.table] = bool(tables.inserts) or self._out.tables.get(tables.table, False)
        return len(encoded)

    def flush(self, shard: int) -> None:
        body, packed = encode_block(self._tables.pop(shard), compress=self._compress)
        self._sizes[shard] = 0
        for piece, more in cut(body, self._most):
            offset = self._out.spool.seek(0, 2)
            self._out.spool.write(piece)
            self._out.parts.setdefault(shard, []).append((offset, len(piece), more, packed))

    def finish(self) -> None:
        for shard in list(self._tables):
            self.flush(shard)


class Capture:
    """Reads pending rows. ``shards``: number of streams; ``most``: rows that are read in one step."""

    def __init__(self, connection: apsw.Connection, *, shards: int, compress: bool, most: int) -> None:
        self._connection = connection
        self._shards = shards
        self._compress = compress
        self._chunk = most
        self._codec = codec_of(connection)

    def read(
        self, tables: Iterable[TrackedTable], out: Outgoing, *, message_bytes: int, over: Sequence[Outgoing] = ()
    ) -> None:
        """Write what is pending in ``tables`` into ``out``; the caller holds the read transaction.

        ``over``: change sets in flight, the oldest first: what they hold is not pending. Deletes of all tables come
        first: receivers fold block by block. Then come rows that others refer to by numbers that the fold may change.
        """
        out.message_bytes = message_bytes
        writer = _Writer(out, compress=self._compress, message_bytes=message_bytes)
        for shard in range(self._shards) if out.section else ():
            writer.add(shard, encode(out.section))
        writer.finish()  # a block of its own
        out.rows = 0
        busy = sorted((table for table in tables if table.logged), key=lambda table: (table.shape.rank, table.id))
        flown = {table.shape.name: table for table in busy if any(table.shape.name in each.tables for each in over)}
        known = {table.id: table.shape.name in flown or self._any_in_mirror(table) for table in busy}
        based = merge_base.any_there(self._connection)
        seen = {t.id: merge_base.seen_of(self._connection, t) for t in busy} if based else {}
        out.current = not based and not over
        if flown:
            expect(self._connection, flown, (part for each in over for part in each.decoded()))
            merge_base.lay_on(seen, flown, (part for each in over if seen for part in each.decoded()))
        for table in busy:
            if known[table.id]:
                sql = self._deletes(table, flown=table.shape.name in flown)
                self._copy(table, sql, writer, _as_deletes(table, seen.get(table.id, {})), 0)
        for table in busy:
            laid = table.shape.name in flown
            if known[table.id]:
                masks = -(-len(table.shape.compared) // MASK_BITS)
                sql = self._updates(table, flown=laid)
                self._copy(table, sql, writer, _as_updates(table, seen.get(table.id, {})), masks)
            self._copy(table, self._inserts(table, known[table.id], flown=laid), writer, _as_inserts, 0)
        writer.finish()

    def _any_in_mirror(self, table: TrackedTable) -> bool:
        """Return whether some row may be in the mirror already; asked for where they may all be new."""
        if table.logged < 100 and not table.images:
            return True
        both = f"{table.scratch('logged')} AS x CROSS JOIN {table.mirror} AS m ON {table.shape.same('m', 'x')}"
        return value(self._connection, f"SELECT 1 FROM {both} LIMIT 1") is not None

    def _not_held(self, table: TrackedTable) -> str:
        terms = " AND ".join(f"h.k{i} IS x.k{i}" for i in range(len(table.shape.keys)))
        return f"NOT EXISTS (SELECT 1 FROM main.{quote(HELD)} AS h WHERE h.t = {table.id} AND {terms})"

    def _deletes(self, table: TrackedTable, *, flown: bool) -> str:
        return table.once(lambda: self._deletes_sql(table, flown), "capture's deletes", table.exact, flown)

    def _deletes_sql(self, table: TrackedTable, flown: bool) -> str:
        shape, other = table.shape, laid_over(table) if flown else mirrored(table)
        return (
            f"SELECT {self._values(table, other.reads)} FROM {table.scratch('logged')} AS x"
            f" CROSS JOIN {other.source} AS m ON {other.same}"
            f" WHERE NOT EXISTS (SELECT 1 FROM {table.main} AS d WHERE {shape.same('d', 'x')})"
            f" AND {self._not_held(table)}"
        )

    def _inserts(self, table: TrackedTable, known: bool, *, flown: bool) -> str:
        return table.once(
            lambda: self._inserts_sql(table, known, flown), "capture's inserts", table.exact, known, flown
        )

    def _inserts_sql(self, table: TrackedTable, known: bool, flown: bool) -> str:
        shape, other = table.shape, laid_over(table) if flown else mirrored(table)
        absent = f" WHERE NOT EXISTS (SELECT 1 FROM {other.source} AS m WHERE {other.same})" if known else ""
        return (
            f"SELECT {self._values(table, self._here(table))} FROM {table.scratch('logged')} AS x"
            f" CROSS JOIN {table.main} AS d ON {shape.same('d', 'x')}{absent}"
        )

    def _updates(self, table: TrackedTable, *, flown: bool) -> str:
        return table.once(lambda: self._updates_sql(table, flown), "capture's updates", table.exact, flown)

    def _updates_sql(self, table: TrackedTable, flown: bool) -> str:
        shape, other = table.shape, laid_over(table) if flown else mirrored(table)
        here = self._here(table)
        tests = [differs(shape.columns[i], here[i], other.reads[i]) for i in shape.compared]
        masks = [
            " | ".join(f"(({test}) << {bit})" for bit, test in enumerate(tests[start : start + MASK_BITS]))
            for start in range(0, len(tests), MASK_BITS)
        ]
        any_test = any_differs((shape.columns[i], here[i], other.reads[i]) for i in shape.compared)
        listed = ", ".join([*masks, self._values(table, [*here, *other.reads])])
        return (
            f"SELECT {listed} FROM {table.scratch('logged')} AS x"
            f" CROSS JOIN {table.main} AS d ON {shape.same('d', 'x')}"
            f" CROSS JOIN {other.source} AS m ON {other.same} WHERE {any_test}"
        )

    @staticmethod
    def _here(table: TrackedTable) -> list[str]:
        return [table.shape.read(column, "d") for column in table.shape.columns]

    @staticmethod
    def _values(table: TrackedTable, listed: Sequence[str]) -> str:
        """Return the columns to select; for a table with text that isn't UTF-8, as `exact` reads them."""
        return exact(listed) if table.exact else ", ".join(listed)

    def _copy(
        self,
        table: TrackedTable,
        sql: str,
        writer: _Writer,
        shaped: Callable[[TableBlock, list[Record]], None],
        offset: int,
    ) -> None:
        """Write what ``sql`` finds: records of ``offset`` masks, then values."""
        shape = table.shape
        cursor = self._connection.execute(sql)
        found: Iterator[Record] = iter(cursor)
        if table.exact:
            found = (decode(row, offset, self._codec) for row in found)
        keys = len(shape.keys)
        names = list(shape.names)
        size = min(32, self._chunk)
        try:
            while chunk := step(found, size):
                most = 0
                for shard, part in self._split(table, chunk, offset, keys):
                    block = TableBlock(shape.name, names, keys)
                    shaped(block, part)
                    if block.count:
                        most = max(most, writer.add(shard, block))
                size = min(self._chunk, size * 2) if most < 100_000 else max(1, size // 2) if most > 400_000 else size
        except UnicodeDecodeError as error:
            table.exact = True
            raise NotUtf8Error(shape.name) from error
        finally:
            cursor.close(True)

    def _split(
        self, table: TrackedTable, chunk: list[Record], offset: int, keys: int
    ) -> Iterable[tuple[int, list[Record]]]:
        if self._shards == 1:
            return [(0, chunk)]
        if table.shape.pinned:
            return [(home_of(table.shape, self._shards), chunk)]
        parts: dict[int, list[Record]] = {}
        for row in chunk:
            key = row[offset : offset + keys]
            parts.setdefault(shard_of(table.shape.name, key, self._shards), []).append(row)
        return parts.items()


class NotUtf8Error(Exception):
    """A table holds text that is not UTF-8: capture must start again and read it byte by byte from now on."""


def _as_deletes(table: TrackedTable, seen: merge_base.Seen) -> Callable[[TableBlock, list[Record]], None]:
    """Return what turns the mirror's rows into deletes: whole rows as the local writer last saw them."""
    keys = len(table.shape.keys)

    def shaped(block: TableBlock, part: list[Record]) -> None:
        block.deletes = part  # type: ignore[assignment]  # tuples encode as lists
        if seen:
            block.deletes = [last_seen(row) for row in part]

    def last_seen(row: Record) -> list[Any]:
        """Return what the writer saw; where that was no row (it deletes its own), a key without values."""
        base = seen.get(merge_base.key_of(table, row[:keys]), list(row))
        return [*row[:keys], *[None] * (len(row) - keys)] if base is None else base

    return shaped


def _as_inserts(block: TableBlock, part: list[Record]) -> None:
    block.inserts = part  # type: ignore[assignment]  # tuples encode as lists


def _as_updates(table: TrackedTable, seen: merge_base.Seen) -> Callable[[TableBlock, list[Record]], None]:
    """Return what groups update records (masks, new row, old row) by their changed columns.

    The old values are what the local writer last saw; a row that it never saw there is an insert.
    """
    compared = table.shape.compared
    masks = -(-len(compared) // MASK_BITS)
    width = len(table.shape.columns)
    keys = len(table.shape.keys)
    end = masks + width

    def last_seen(row: Record) -> Record | None:
        """Return the record with what the writer saw in the old row's place; None where it saw no row."""
        base = seen.get(merge_base.key_of(table, row[masks : masks + keys]), row[end:])
        return None if base is None else (*row[:end], *base)

    def shaped(block: TableBlock, part: list[Record]) -> None:
        groups: dict[Record, list[Record]] = {}
        if seen:
            known = [(row, last_seen(row)) for row in part]
            block.inserts += [list(row[masks:end]) for row, record in known if record is None]
            part = [record for _, record in known if record is not None]
        for row in part:
            groups.setdefault(row[:masks], []).append(row)
        for mask, members in groups.items():
            changed = list(compared) if table.by_row else _indices(mask, compared)
            old = _columns(end + i for i in changed)
            # tuples encode as lists
            block.updates.append(Updates(changed, [row[masks:end] for row in members], [old(row) for row in members]))  # type: ignore[misc]

    return shaped


def _columns(places: Iterable[int]) -> Callable[[Record], Record]:
    """Return what takes the values at ``places`` out of a record, in C where it can."""
    listed = list(places)
    if len(listed) == 1:
        (only,) = listed
        return lambda row: (row[only],)
    return itemgetter(*listed) if listed else lambda _: ()


def _indices(mask: Record, compared: Sequence[int]) -> list[int]:
    """Return the columns whose bits are set in a row of masks."""
    return [column for place, column in enumerate(compared) if mask[place // MASK_BITS] >> (place % MASK_BITS) & 1]


def new_outgoing(change_set: ChangeSetId, log_id: int, time: float, base: dict[int, int], history: str) -> Outgoing:
    """Return an empty change set whose blocks wait in memory, or on disk once they are many."""
    return Outgoing(change_set, log_id, time, base, SpooledTemporaryFile(max_size=SPOOL_BYTES), history=history)
