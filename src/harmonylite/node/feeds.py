"""The feed's requests to a running node: live changes, the current position, waiting for a position.

Invariant: a slow or vanished reader delays nothing in the node; when the node stops, all readers end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from harmonylite.backoff import Backoff
from harmonylite.changes.feed_position import FeedPlace, parse_position, tag, text_of_positions
from harmonylite.db.sqlite.thread import SqliteThread
from harmonylite.errors import NotFoundError, NotRunningError, PositionError, StreamError, WaitTimeoutError
from harmonylite.model import Position
from harmonylite.node.control import Parts
from harmonylite.node.feed_tail import FeedTail, entry_json
from harmonylite.replication.engine import Engine
from harmonylite.replication.feed import Feed, FeedEntry, check_places, starting_at
from harmonylite.replication.lag import reached
from harmonylite.schema.names import advice, find
from harmonylite.status import NodeStatus
from harmonylite.web.values import ShownEntry

MOST_READERS = 100
"""Readers of changes at once; each has a consumer for each shard."""
BEAT_SECONDS = 5.0
"""A reader gets its position at least this often."""
RETRY_SECONDS = 0.5
"""Seconds between tries to ask the streams, where they can't be reached."""


@dataclass(slots=True)
class FeedReader:
    """One reader of changes. ``position``: of all that it got; ``parts``: entries that it got of a transaction of which
    more follows; ``feed``: what it reads for itself, None: made when it is needed; ``newest``: it began at the end.
    """

    position: str
    table: str
    feed: Feed | None
    newest: bool
    parts: int = 0


class Feeds:
    """Implements `harmonylite.web.feed_routes.FeedActions`."""

    def __init__(self, status: NodeStatus, thread: SqliteThread, parts: Parts) -> None:
        self._status = status
        self._thread = thread
        self._parts = parts
        self._readers: set[int] = set()
        self._alone: set[asyncio.Task[None]] = set()
        self._tail = FeedTail()

    def close(self) -> None:
        """End all readers."""
        self._tail.stop()
        for task in self._alone:
            task.cancel()

    def _engine(self) -> Engine:
        if self._parts.engine is None or self._status.stopping:
            raise NotRunningError(f"the node can't do that yet: {'; '.join(self._status.waits) or 'it is starting'}")
        return self._parts.engine

    async def feed(self, start: str, table: str) -> FeedReader:
        """Return a reader from ``start`` on; arguments and errors as for `open`."""
        if len(self._readers) >= MOST_READERS:
            raise NotRunningError(f"{MOST_READERS} readers of changes are there already")
        feed = await self.open(start, table)
        return FeedReader(feed.position, table, feed, newest=start == "now")

    async def open(self, start: str, table: str = "") -> Feed:
        """Return the feed from ``start`` on: "now", "start" or a position; ``table``: of this one only, "" = of all.

        Raises NotRunningError, ConfigError, PositionError, StreamError; NotFoundError for a table that is not here.
        """
        streams, replica = self._engine().streams, self._parts.replica
        if replica is None:
            raise NotRunningError("the database is not open yet")
        if table and find(table, replica.tables) is None:
            raise NotFoundError(f"there is no replicated table {table}", advice=advice(table, replica.tables))
        if start == "now":
            places: Mapping[int, Position] = await self._thread.run(replica.positions)
        elif start == "start":
            places = await starting_at(streams)
        else:
            places = await check_places(streams, parse_position(start, (stream.shard for stream in streams)))
        return Feed(streams, self._status, places, table=table)

    async def follow(self, reader: FeedReader) -> AsyncGenerator[ShownEntry, None]:
        """Yield the entries for ``reader``, and after `BEAT_SECONDS` without one where it is, until the node stops."""
        self._readers.add(id(reader))
        try:
            yield _position_only(reader.position)
            while not self._status.stopping:
                if reader.newest and not reader.table and reader.feed is not None and not self._tail.running:
                    self._tail.start(reader.feed)
                    reader.feed = None
                number = self._shared(reader)
                entries = self._from_own_feed(reader) if number is None else self._from_tail(reader, number)
                async with aclosing(entries):
                    async for entry in entries:
                        yield entry
        finally:
            self._readers.discard(id(reader))
            if not self._readers:
                self._tail.stop()

    def _shared(self, reader: FeedReader) -> int | None:
        """Return which entry of the tail comes next for ``reader``, None where it has to read for itself."""
        return None if reader.table or reader.parts else self._tail.join(reader.position)

    async def _from_tail(self, reader: FeedReader, number: int) -> AsyncGenerator[ShownEntry, None]:
        """Yield what is read for all, until ``reader`` has fallen behind."""
        await self._let_go(reader)
        async with aclosing(self._tail.follow(number, BEAT_SECONDS)) as entries:
            async for entry in entries:
                yield _position_only(reader.position) if entry is None else _taken(reader, entry)

    async def _can_share(self, reader: FeedReader) -> bool:
        """Return whether ``reader``, who waits at the end, can go over to what is read for all, and begin that."""
        if not reader.table and not self._tail.running:
            feed = await self.open(reader.position)
            if not self._tail.running:
                self._tail.start(feed)
        return self._shared(reader) is not None

    async def _let_go(self, reader: FeedReader) -> None:
        feed, reader.feed = reader.feed, None
        if feed is not None:
            feed.close()

    async def _from_own_feed(self, reader: FeedReader) -> AsyncGenerator[ShownEntry, None]:
        """Yield what ``reader`` reads for itself, until it can share what is read for all, or the node stops."""
        feed, reader.feed = reader.feed or await self.open(reader.position, reader.table), None
        known, reader.parts = reader.parts, 0  # of a transaction that is read from its beginning again
        # A task of its own closes the streams' readers: that of a reader that is gone is cancelled at each await.
        passed: asyncio.Queue[FeedEntry | Exception | None] = asyncio.Queue(1)
        task = asyncio.create_task(_pass_on(feed, passed), name="feed")
        self._alone.add(task)
        task.add_done_callback(self._alone.discard)
        try:
            while not self._status.stopping:
                try:
                    async with asyncio.timeout(BEAT_SECONDS):
                        entry = await passed.get()
                except TimeoutError:
                    if passed.empty():  # else the feed may be past what was not passed on yet
                        reader.position = feed.position
                        yield _position_only(reader.position)
                        if await self._can_share(reader):
                            return
                    continue
                if entry is None:
                    return
                if isinstance(entry, Exception):
                    raise entry
                if self._shared(reader) is not None:
                    return  # the entry comes from there
                found = _taken(reader, ShownEntry(entry_json(entry)))
                known -= 1
                if known < 0:
                    yield found
        finally:
            task.cancel()

    async def position(self, seconds: float) -> dict[str, Any]:
        """Return the position at which everything is in the order that was committed here before.

        Raises WaitTimeoutError, NotRunningError.
        """
        engine, replica = self._engine(), self._parts.replica
        if replica is None:
            raise NotRunningError("the database is not open yet")
        try:
            async with asyncio.timeout(seconds):
                while not self._status.caught_up:
                    await self._status.moved.wait()
                await engine.sender.idle()
        except TimeoutError:
            why = "; ".join(self._status.waits) or f"{self._status.pending_rows} rows are pending"
            raise WaitTimeoutError(f"what was committed here is not in the order after {seconds:g} s: {why}") from None
        return {"position": text_of_positions(await self._thread.run(replica.positions))}

    async def wait(self, position: str, seconds: float) -> dict[str, Any]:
        """Return once this node has folded, and merged into the database, all up to ``position``; "": up to where the
        streams end now. Raises WaitTimeoutError, ConfigError, PositionError, NotRunningError.
        """
        engine, replica = self._engine(), self._parts.replica
        if replica is None:
            raise NotRunningError("the database is not open yet")
        targets: dict[int, int] = {}
        try:
            async with asyncio.timeout(seconds):
                targets = await self._targets(engine, position)
                while not (self._status.caught_up and reached(self._status, targets)):
                    await self._status.moved.wait()
        except TimeoutError:
            behind = [f"{s}:{self._status.shard(s).position} of {seq}" for s, seq in sorted(targets.items())]
            why = "; ".join([", ".join(behind) or "the streams did not answer", *self._status.waits])
            raise WaitTimeoutError(f"the node is not there after {seconds:g} s: {why}") from None
        return {"position": text_of_positions(await self._thread.run(replica.positions))}

    async def _targets(self, engine: Engine, text: str) -> dict[int, int]:
        backoff = Backoff(first=RETRY_SECONDS, most=2.0)
        while True:
            try:
                if not text:
                    return {stream.shard: await stream.end() for stream in engine.streams}
                places = parse_position(text, (stream.shard for stream in engine.streams))
                await self._check(engine, places)
            except StreamError:
                await asyncio.sleep(backoff.failed(time.monotonic()))
            else:
                return {shard: place.seq for shard, place in places.items()}

    async def _check(self, engine: Engine, places: Mapping[int, FeedPlace]) -> None:
        """Raise PositionError for places in other streams than this node's; StreamError."""
        assert self._parts.replica is not None
        known = await self._thread.run(self._parts.replica.positions)
        for stream in engine.streams:
            place = places[stream.shard]
            if place.tag and place.tag != tag(known[stream.shard].created) and not place.fits(await stream.info()):
                error = f"position {place.shard}:{place.seq} belongs to another stream than this node's"
                raise PositionError(error, advice="ask for the position again")


async def _pass_on(feed: Feed, passed: asyncio.Queue[FeedEntry | Exception | None]) -> None:
    """Put what ``feed`` yields into ``passed``, one at a time; why it ended comes last, None when it was cancelled."""
    try:
        async with aclosing(feed.entries()) as entries:
            async for entry in entries:
                await passed.put(entry)
    except asyncio.CancelledError:
        while not passed.empty():
            passed.get_nowait()
        passed.put_nowait(None)
    except Exception as error:  # noqa: BLE001  # raised to the reader, whatever it is
        await passed.put(error)


def _position_only(position: str) -> ShownEntry:
    return ShownEntry(entry_json(FeedEntry(position)))


def _taken(reader: FeedReader, entry: ShownEntry) -> ShownEntry:
    """Take note that ``reader`` has ``entry``; return it."""
    reader.parts = 0 if entry["position"] else reader.parts + 1
    reader.position = entry["position"] or reader.position
    return entry
