"""The newest entries of the change feed, read and written down once for all readers that keep up.

Invariant: a reader gets from here exactly what it would read for itself from its position on, for a position says
where a feed continues. One that falls behind what is kept is sent away, and reads for itself until it has caught up.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from harmonylite.replication.feed import Feed, FeedChange, FeedEntry
from harmonylite.wakeup import Wakeup
from harmonylite.web.values import ShownEntry, key_json, row_json

KEPT_BYTES = 8 * 1024 * 1024
"""Text of entries that is kept for readers that are a little slower; the newest entry is kept whatever its size."""


class FeedTail:
    """What `start` reads, for any number of readers. Entries are numbered from the start on."""

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None
        self._end = 0
        self._reset("")

    def _reset(self, position: str) -> None:
        self._kept: dict[int, tuple[ShownEntry, str]] = {}
        self._places: dict[str, int] = {}
        self._position = position
        self._first = self._end = self._end + 1  # anyone who still reads what was there before is sent away
        self._bytes = 0
        self._error: Exception | None = None
        self._news = Wakeup()

    @property
    def running(self) -> bool:
        """True while entries are read."""
        return self._task is not None and not self._task.done()

    def start(self, feed: Feed) -> None:
        """Read ``feed`` from now on."""
        assert not self.running
        self._reset(feed.position)
        self._task = asyncio.create_task(self._read(feed), name="feed for all readers")

    def stop(self) -> None:
        """End; anyone who reads is sent away."""
        if self._task is not None:
            self._task.cancel()

    def join(self, position: str) -> int | None:
        """Return the number of the entry that a reader at ``position`` continues with, None where it is not known."""
        if not self.running or not position:
            return None
        return self._end if position == self._position else self._places.get(position)

    async def follow(self, number: int, beat: float) -> AsyncGenerator[ShownEntry | None, None]:
        """Yield the entries from ``number`` on, None after each ``beat`` seconds without one; ends when the reader has
        fallen behind, or nothing is read any more. Raises what reading ended with.
        """
        while number >= self._first:
            if number < self._end:
                yield self._kept[number][0]
                number += 1
            elif self.running:
                try:
                    async with asyncio.timeout(beat):
                        await self._news.wait()
                except TimeoutError:
                    yield None
            elif self._error is not None:
                raise self._error
            else:
                return

    async def _read(self, feed: Feed) -> None:
        try:
            async with aclosing(feed.entries()) as entries:
                async for entry in entries:
                    self._add(ShownEntry(entry_json(entry)), entry.position)
        except Exception as error:  # noqa: BLE001  # raised to each reader, whatever it is
            self._error = error
        finally:
            # after the task has ended, or a reader would look while it still runs
            asyncio.get_running_loop().call_soon(self._news.notify)

    def _add(self, entry: ShownEntry, position: str) -> None:
        """Keep ``entry``, after which a reader is at ``position``; "": more of the same transaction follows."""
        if self._position:
            self._places[self._position] = self._end
        self._kept[self._end] = entry, self._position
        self._position = position
        self._end += 1
        self._bytes += len(entry.line)
        while self._bytes > KEPT_BYTES and self._first < self._end - 1:
            gone, before = self._kept.pop(self._first)
            self._places.pop(before, None)
            self._bytes -= len(gone.line)
            self._first += 1
        self._news.notify()


def entry_json(entry: FeedEntry) -> dict[str, Any]:
    """Return an entry as a reader gets it."""
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
