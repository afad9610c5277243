"""The change feed on NATS: each changed row as an event, on a subject of the user's choice (`[feed]`).

Invariant: an event counts as published once a stream has acknowledged it, and the position that a successor continues
from moves only then. So each event comes at least once, with a message id that is the same from every node. One
node publishes at a time, the holder of a lease; two at once, while a frozen one has not noticed, only repeat events.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from harmonylite.backoff import Backoff
from harmonylite.errors import HarmonyLiteError, NotAcknowledgedError, PositionError, StreamError
from harmonylite.foreign import Text
from harmonylite.jetstream.api import answer
from harmonylite.jetstream.streams import ensure_feed_stream
from harmonylite.nats.link import NatsLink
from harmonylite.node.feeds import Feeds
from harmonylite.replication.feed import FeedChange, FeedEntry
from harmonylite.snapshots.lease import Lease
from harmonylite.snapshots.repository import PointerStore
from harmonylite.status import NodeStatus
from harmonylite.version import __version__
from harmonylite.web.values import key_json, row_json
from harmonylite.wire import token

log = logging.getLogger(__name__)

PART = "feed"
LEASE = "feed-lease"
POSITION = "feed-position"
"""The pointer that keeps up to where events are published."""
LEASE_SECONDS = 10.0
SAVE_EVERY = 1.0
"""Seconds between two times that the position is kept: as much is published again after a crash."""
AT_ONCE = 64
"""Events of one transaction that wait for their acknowledgement at the same time."""
PUBLISH_SECONDS = 5.0
GOODBYE_SECONDS = 2.0
HEADROOM = 4096
"""Bytes of a message that are left for its headers."""
OPS = {"insert": "c", "update": "u", "delete": "d"}

CODEC = Text("the position of the feed", r"\d{1,4}:\d{1,19}[\w:/@,+%.-]{0,60000}", most=64 * 1024)


@dataclass(frozen=True, slots=True)
class FeedTarget:
    """``subject``: the first part of the events' subjects; ``stream``: that must take them, "" = whichever does;
    ``most``: events that it keeps when it is made here, 0 = all.
    """

    subject: str
    stream: str = ""
    most: int = 0


class FeedPublisher:
    """Publishes what ``feeds`` says to ``target``, while this node has the ``lease``."""

    def __init__(
        self,
        target: FeedTarget,
        feeds: Feeds,
        link: NatsLink,
        pointers: PointerStore,
        lease: Lease,
        status: NodeStatus,
    ) -> None:
        self._target = target
        self._feeds = feeds
        self._link = link
        self._pointers = pointers
        self._lease = lease
        self._status = status
        self._part = status.part(PART)
        self._done = ""
        self._kept = ""
        self._revision = 0
        self._backoff = Backoff(first=0.2, most=10.0, calm=30.0)

    async def run(self) -> None:
        """Publish whenever it is this node's turn, without end."""
        while True:
            pause = self._lease.pause
            try:
                if await self._lease.renew():
                    await self._take_turn()
                else:
                    self._part.ok()
            except HarmonyLiteError as error:
                self._part.waiting(str(error), error)
                pause = self._backoff.failed(time.monotonic())
            await asyncio.sleep(pause)

    async def _take_turn(self) -> None:
        """Publish until the lease is lost. Raises HarmonyLiteError."""
        try:
            found = await self._pointers.pointer(POSITION)
            self._revision = found[1] if found is not None else 0
            self._done = self._kept = CODEC.decode(found[0]) if found is not None else ""
            keeping = asyncio.create_task(self._keep(), name="feed: keep the lease")
            publishing = asyncio.create_task(self._publish(), name="feed: publish")
            try:
                await asyncio.wait({keeping, publishing}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                tasks = (keeping, publishing)
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
            for task in tasks:
                if not task.cancelled():
                    task.result()
        finally:
            with suppress(StreamError, TimeoutError):
                async with asyncio.timeout(GOODBYE_SECONDS):
                    if await self._save():
                        await self._lease.release()

    async def _keep(self) -> None:
        """Keep lease and position; returns when another node has the turn. Raises StreamError."""
        renewed = time.monotonic()
        while True:
            await asyncio.sleep(SAVE_EVERY)
            if not await self._save():
                return
            if time.monotonic() - renewed >= self._lease.pause:
                renewed = time.monotonic()
                if not await self._lease.renew():
                    return

    async def _save(self) -> bool:
        """Keep the position; False when another node kept one since."""
        done = self._done
        if done == self._kept:
            return True
        if not await self._pointers.set_pointer(POSITION, CODEC.encode(done), revision=self._revision):
            return False
        found = await self._pointers.pointer(POSITION)
        if found is None or CODEC.decode(found[0]) != done:
            return False
        self._revision, self._kept = found[1], done
        return True

    async def _publish(self) -> None:
        """Publish from the kept position on. Raises HarmonyLiteError."""
        target = self._target
        if target.stream:
            await ensure_feed_stream(self._link, target.stream, target.subject, target.most)
        try:
            feed = await self._feeds.open(self._done or "now")
        except PositionError as error:
            await self._report_gap(error)
            feed = await self._feeds.open("now")
        self._done = self._done or feed.position
        self._part.ok()
        async with aclosing(feed.entries()) as entries:
            async for entry in entries:
                if not self._lease.held:
                    return
                await self._deliver(entry)
                self._done = entry.position or self._done

    async def _report_gap(self, error: PositionError) -> None:
        """Say on the subject itself that events are missing: a silent gap is worse than a late event."""
        log.error(
            "lost events on %(subject)s, which continues from now: %(error)s",
            {"subject": self._target.subject, "error": error.message},
        )
        about = {"prefix": "gap", "content": error.message}
        event = {"op": "m", "message": about, "source": self._source(self._done, ""), "ts_ms": _ms(time.time())}
        await self._send(self._target.subject, f"gap {self._done}"[:200], event)
        self._done = ""

    async def _deliver(self, entry: FeedEntry) -> None:
        """Return once every event of ``entry`` is acknowledged. Raises StreamError; then all of it comes again."""
        waiting = list(self.events(entry))
        for start in range(0, len(waiting), AT_ONCE):
            async with asyncio.TaskGroup() as group:
                for subject, name, event in waiting[start : start + AT_ONCE]:
                    group.create_task(self._persist(subject, name, event), name="feed: one event")

    async def _persist(self, subject: str, name: str, event: Mapping[str, Any]) -> None:
        """Publish one event until it is acknowledged: an error of one must not make others come again."""
        backoff = Backoff(first=0.05, most=5.0)
        while True:
            try:
                await self._send(subject, name, event)
            except StreamError as error:
                self._part.waiting(self._explained(subject, error), error if not self._link.connected else None)
                await asyncio.sleep(backoff.failed(time.monotonic()))
            else:
                self._part.ok()
                self._status.counters.feed_events += 1
                return

    def _explained(self, subject: str, error: StreamError) -> str:
        if isinstance(error, NotAcknowledgedError) or not self._link.connected or "no answer on" not in error.message:
            return error.message
        return f"no stream takes {subject}; make one that has the subject {self._target.subject}.>, or set feed.stream"

    async def _send(self, subject: str, name: str, event: Mapping[str, Any]) -> None:
        headers = {"Nats-Msg-Id": name}
        if self._target.stream:
            headers["Nats-Expected-Stream"] = self._target.stream
        payload = _packed(event)
        if (size := len(payload)) > self._link.max_payload - HEADROOM:
            payload = _packed({**event, "before": None, "after": None, "oversized": size})
        found = await self._link.now().request(subject, payload, seconds=PUBLISH_SECONDS, headers=headers)
        answer(found, f"publish on {subject}")

    def events(self, entry: FeedEntry) -> Sequence[tuple[str, str, dict[str, Any]]]:
        """Return subject, message id and body of each row that ``entry`` changes."""
        made = []
        for change in entry.changes:
            key = key_json(change.key)
            event = {
                "op": OPS[change.kind],
                "key": key,
                **_sides(change, key),
                "source": self._source(entry.position, change.table) | {"node": entry.origin, "txId": entry.id},
                "ts_ms": _ms(entry.at),
            }
            event["source"]["ts_ms"] = _ms(entry.written)
            made.append((f"{self._target.subject}.{token(change.table)}", _name(entry.id, change, key), event))
        return made

    def _source(self, position: str, table: str) -> dict[str, Any]:
        return {
            "connector": "harmonylite",
            "version": __version__,
            "name": self._target.subject,
            "db": self._status.db_path.rpartition("/")[2],
            "table": table,
            "position": position or None,
        }


def _sides(change: FeedChange, key: Mapping[str, Any]) -> dict[str, Any]:
    """Return the whole row before and after, null where there is none."""
    claims = change.key.keys() - key.keys()  # the rowid beside a whole key is no column of the table
    row = {name: value for name, value in zip(change.columns, change.row, strict=True) if name not in claims}
    before = None if change.kind == "insert" else row_json(row | dict(change.before))
    return {"before": before, "after": None if change.kind == "delete" else row_json(row)}


def _name(entry: str, change: FeedChange, key: Mapping[str, Any]) -> str:
    """Return the message id: the same from every node, whatever it publishes in one go."""
    digest = blake2b(json.dumps([change.table, change.kind, key]).encode(), digest_size=12).hexdigest()
    return f"{entry}/{digest}"


def _packed(event: Mapping[str, Any]) -> bytes:
    return json.dumps(event, separators=(",", ":")).encode()


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
