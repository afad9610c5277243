"""What applications ask a running node: changes as they pass, where the order is now, and to wait for a place in it.

Invariant: a reader that is slow, or gone, holds up nothing of the node; when the node stops, all readers end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from harmonylite.backoff import Backoff
from harmonylite.changes.feed_position import FeedPlace, parse_position, tag, text_of_positions
from harmonylite.db.sqlite.thread import SqliteThread
from harmonylite.errors import NotFoundError, NotRunningError, PositionError, StreamError, WaitTimeoutError
from harmonylite.model import Position
from harmonylite.node.control import Parts
from harmonylite.replication.engine import Engine
from harmonylite.replication.feed import Feed, FeedChange, FeedEntry, check_places, starting_at
from harmonylite.replication.lag import reached
from harmonylite.schema.names import advice, find
from harmonylite.status import NodeStatus
from harmonylite.web.values import key_json, row_json

MOST_READERS = 100
"""Readers of changes at once; each has a consumer for each shard."""
BEAT_SECONDS = 5.0
"""A reader gets its position at least this often."""
RETRY_SECONDS = 0.5
"""Seconds between tries to ask the streams, where they can't be reached."""


class Feeds:
    """Implements `harmonylite.web.feed_routes.FeedActions`."""

    def __init__(self, status: NodeStatus, thread: SqliteThread, parts: Parts) -> None:
        self._status = status
        self._thread = thread
        self._parts = parts
        self._readers: set[asyncio.Task[None]] = set()

    def close(self) -> None:
        """End all readers."""
        for task in self._readers:
            task.cancel()

    def _engine(self) -> Engine:
        if self._parts.engine is None or self._status.stopping:
            raise NotRunningError(f"the node can't do that yet: {'; '.join(self._status.waits) or 'it is starting'}")
        return self._parts.engine

    async def feed(self, start: str, table: str) -> Feed:
        """Return the feed from ``start`` on: "now", "start" or a position; ``table``: of this one only, "" = of all.

        Raises NotRunningError, ConfigError, PositionError, StreamError; NotFoundError for a table that is not here.
        """
        streams, replica = self._engine().streams, self._parts.replica
        if replica is None:
            raise NotRunningError("the database is not open yet")
        if len(self._readers) >= MOST_READERS:
            raise NotRunningError(f"{MOST_READERS} readers of changes are there already")
        if table and find(table, replica.tables) is None:
            raise NotFoundError(f"there is no replicated table {table}", advice=advice(table, replica.tables))
        if start == "now":
            places: Mapping[int, Position] = await self._thread.run(replica.positions)
        elif start == "start":
            places = await starting_at(streams)
        else:
            places = await check_places(streams, parse_position(start, (stream.shard for stream in streams)))
        return Feed(streams, self._status, places, table=table)

    async def follow(self, feed: Feed) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the entries of ``feed``, and after `BEAT_SECONDS` without one where it is, until the node stops."""
        yield _entry_json(FeedEntry(feed.position))
        # A task of its own closes the streams' readers: that of a reader that is gone is cancelled at each await.
        passed: asyncio.Queue[FeedEntry | Exception | None] = asyncio.Queue(1)
        task = asyncio.create_task(_pass_on(feed, passed), name="feed")
        self._readers.add(task)
        task.add_done_callback(self._readers.discard)
        try:
            while not self._status.stopping:
                try:
                    async with asyncio.timeout(BEAT_SECONDS):
                        entry = await passed.get()
                except TimeoutError:
                    if passed.empty():  # else the feed may be past what was not passed on yet
                        yield _entry_json(FeedEntry(feed.position))
                    continue
                if entry is None:
                    return
                if isinstance(entry, Exception):
                    raise entry
                yield _entry_json(entry)
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


def _entry_json(entry: FeedEntry) -> dict[str, Any]:
    made: dict[str, Any] = {"position": entry.position or None}
    if entry.skipped:
        made["skipped"] = entry.skipped
    if entry.changes:
        made |= {"id": entry.id, "origin": entry.origin, "at": entry.at, "written": entry.written}
    made["changes"] = [_change_json(change) for change in entry.changes]
    return made


def _change_json(change: FeedChange) -> dict[str, Any]:
    key = key_json(change.key)
    claims = change.key.keys() - key.keys()  # the rowid beside a whole key is no column of the table
    before, after = (
        row_json({name: value for name, value in side.items() if name not in claims})
        for side in (change.before, change.after)
    )
    return {"table": change.table, "kind": change.kind, "key": key, "before": before, "after": after}
