"""The change feed: transactions in the order of the streams, for a program beside this node.

Invariant: a transaction comes whole, once, and after this node has folded it; an aborted one never comes. No reader
delays another: each reads the streams with its own consumer, with backpressure.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from tempfile import SpooledTemporaryFile
from typing import IO

from harmonylite.changes.feed_position import FeedPlace, text_of_positions
from harmonylite.changes.reassembler import AtomicBatch, Fragment, Reassembler
from harmonylite.errors import PoisonError, PositionError
from harmonylite.model import Position, SqlValue, StreamMessage
from harmonylite.ports import ShardStream
from harmonylite.replication.lag import reached
from harmonylite.replication.row_history import Kind, checked, row_changes
from harmonylite.schema.names import folded
from harmonylite.status import NodeStatus

MOST_CHANGES = 1000
"""Rows in one entry; a larger transaction comes as several, and its last one says so."""


@dataclass(frozen=True, slots=True)
class FeedChange:
    """One row of a transaction. ``before``: the changed columns as its writer last saw them; ``after``: as it wrote.

    ``row``: all of it under ``columns``, as its writer had it then.
    """

    table: str
    kind: Kind
    key: Mapping[str, SqlValue]
    before: Mapping[str, SqlValue]
    after: Mapping[str, SqlValue]
    columns: Sequence[str]
    row: Sequence[SqlValue]


@dataclass(frozen=True, slots=True)
class FeedEntry:
    """A transaction, or a part of a large one. ``position``: where a reader continues that has processed everything up
    to here, "" within a transaction. ``skipped``: why a message was left out, for an entry without changes.

    ``at``: when the stream stored it, ``written``: when it was captured; seconds since the epoch.
    """

    position: str
    id: str = ""
    origin: str = ""
    at: float = 0.0
    written: float = 0.0
    changes: tuple[FeedChange, ...] = field(default=())
    skipped: str = ""


class Feed:
    """Reads the ``streams`` for one reader, from ``places`` on. ``table``: only changes of this one, "" = of all."""

    def __init__(
        self, streams: Sequence[ShardStream], status: NodeStatus, places: Mapping[int, Position], *, table: str = ""
    ) -> None:
        self._streams = streams
        self._status = status
        self._table = folded(table)
        self._positions = dict(places)
        self._reassembler = Reassembler(self._positions, spool=_spool)
        self._batches: asyncio.Queue[list[StreamMessage] | Exception] = asyncio.Queue(1)

    @property
    def position(self) -> str:
        """Where a reader continues that has processed every entry so far."""
        return text_of_positions(self._positions)

    def close(self) -> None:
        """Close a feed that is not read."""
        self._reassembler.close()

    async def entries(self) -> AsyncGenerator[FeedEntry, None]:
        """Yield without end. Close the iterator when done with it.

        :raises StreamGapError: the place is older than what the stream keeps. :raises StreamLostError: the stream is
            gone or another one. :raises StreamError: the streams can't be read.
        """
        readers = [asyncio.create_task(self._read(stream), name=f"feed {stream.shard}") for stream in self._streams]
        try:
            while True:
                messages = await self._batches.get()
                if isinstance(messages, Exception):
                    raise messages
                for message in messages:
                    try:
                        self._reassembler.add(message)
                    except PoisonError as error:
                        yield await self._left_out(message, error)
                while (batch := self._reassembler.take(least=True)) is not None:
                    with closing(batch):
                        await self._folded({shard: position.seq for shard, position in batch.positions.items()})
                        for entry in self._of_batch(batch):
                            yield entry
        finally:
            for reader in readers:
                reader.cancel()
            await asyncio.gather(*readers, return_exceptions=True)
            self._reassembler.close()

    async def _read(self, stream: ShardStream) -> None:
        batches = stream.read(self._reassembler.read_up_to(stream.shard) + 1)
        try:
            async for messages in batches:
                await self._batches.put(messages)
        except Exception as error:  # noqa: BLE001  # handed to the reader of the feed, whatever it is
            await self._batches.put(error)
        finally:
            close = getattr(batches, "aclose", None)
            if close is not None:
                await close()

    async def _left_out(self, message: StreamMessage, error: PoisonError) -> FeedEntry:
        """Skip a message that can't be read once this node has skipped it, too."""
        await self._folded({message.shard: message.seq})
        self._reassembler.skip(message.shard, message.seq)
        self._reassembler.add(message)
        return FeedEntry(self.position, skipped=error.message)

    async def _folded(self, targets: Mapping[int, int]) -> None:
        """Wait until this node's mirror is there."""
        while not reached(self._status, targets):
            await self._status.moved.wait()

    def _of_batch(self, batch: AtomicBatch) -> Iterator[FeedEntry]:
        after = self._positions | {
            shard: Position(shard, p.seq, p.resume, self._positions[shard].created, p.aborted)
            for shard, p in batch.positions.items()
        }
        for number, (fragment, changes) in enumerate(waiting := list(_by_change_set(batch.fragments)), start=1):
            entry: FeedEntry | None = None
            for part in self._parts(changes):
                if entry is not None:
                    yield entry
                entry = FeedEntry("", str(fragment.id), fragment.id.node, fragment.stored, fragment.time, part)
            if entry is not None:
                position = text_of_positions(after) if number == len(waiting) else ""
                yield FeedEntry(position, entry.id, entry.origin, entry.at, entry.written, entry.changes)
        self._positions = after

    def _parts(self, fragments: Sequence[Fragment]) -> Iterator[tuple[FeedChange, ...]]:
        found: list[FeedChange] = []
        for fragment in fragments:
            try:
                for change in changes_of(fragment):
                    if not self._table or folded(change.table) == self._table:
                        found.append(change)
                    if len(found) == MOST_CHANGES:
                        yield tuple(found)
                        found.clear()
            except PoisonError:  # this node has left the change set out as well
                return
        if found:
            yield tuple(found)


def _by_change_set(fragments: Sequence[Fragment]) -> Iterator[tuple[Fragment, list[Fragment]]]:
    """Yield the last fragment of each change set in a batch, and all of them."""
    found: dict[object, list[Fragment]] = {}
    for fragment in fragments:
        if fragment.has_rows:
            found.setdefault(fragment.id, []).append(fragment)
    for some in found.values():
        yield some[-1], some


def changes_of(fragment: Fragment) -> Iterator[FeedChange]:
    """Yield the rows that ``fragment`` changes. Raises PoisonError for a fragment that no node can have applied."""
    for part in checked(fragment):
        keys = range(part.keys)
        for kind, row, before, after in row_changes(fragment, part):
            key = {part.columns[i]: row[i] for i in keys}
            yield FeedChange(part.table, kind, key, before, after, part.columns, row)


async def starting_at(streams: Sequence[ShardStream]) -> dict[int, Position]:
    """Return the oldest place that can be read whole. Raises StreamError, and PositionError where there is none."""
    infos = [await stream.info() for stream in streams]
    late = next((info for info in infos if info.first > 1), None)
    if len(infos) > 1 and late is not None:
        error = f"the streams begin with parts of transactions (shard {late.shard} at {late.first})"
        raise PositionError(error, advice="read from a position that a node said, or from now")
    return {info.shard: Position(info.shard, info.first - 1, info.first, info.created) for info in infos}


async def check_places(streams: Sequence[ShardStream], places: Mapping[int, FeedPlace]) -> dict[int, Position]:
    """Return ``places`` as positions in ``streams``. Raises PositionError where they are not there, StreamError."""
    found = {}
    for stream in streams:
        info, place = await stream.info(), places[stream.shard]
        if not place.fits(info):
            error = f"position {place.shard}:{place.seq} belongs to a stream that is gone"
            raise PositionError(error, advice="read the tables as they are, and continue from now")
        if place.seq > info.last:
            raise PositionError(f"position {place.shard}:{place.seq} is not there yet; the stream ends at {info.last}")
        if place.resume < info.first:
            error = f"position {place.shard}:{place.seq} is gone; the stream begins at {info.first}"
            raise PositionError(error, advice="read the tables as they are, and continue from now")
        position = place.position
        found[stream.shard] = Position(position.shard, position.seq, position.resume, info.created, position.aborted)
    return found


def _spool(most: int) -> IO[bytes]:
    return SpooledTemporaryFile(max_size=most)
