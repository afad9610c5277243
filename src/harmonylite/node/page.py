"""What the page shows besides the status, put together from the parts of a node that can be asked.

Invariant: what is unavailable is named with its reason, and the rest is shown; the store and NATS are asked at most
once in `FRESH` seconds, whatever the number of open pages.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import socket
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from harmonylite.changes.feed_position import text_of_positions
from harmonylite.config import Settings
from harmonylite.db.page_reads import count_rows, held_by_table, search_journal
from harmonylite.db.put_back import KINDS, put_back
from harmonylite.db.replica import Replica
from harmonylite.db.sqlite.real_digits import digits_of
from harmonylite.db.sqlite.thread import SqliteThread
from harmonylite.errors import HarmonyLiteError, NotFoundError, NotRunningError
from harmonylite.logs import LogTail
from harmonylite.model import Conflict, Position
from harmonylite.node.control import Control
from harmonylite.node.feeds import Feeds
from harmonylite.node.history import History
from harmonylite.node.wiring import health_endpoint, metrics_endpoint, page_address, page_guard
from harmonylite.schema.names import advice, find
from harmonylite.status import NodeStatus
from harmonylite.web.endpoints import HEALTH_KEY, http_servers
from harmonylite.web.last_hour import LastHour
from harmonylite.web.page_source import PageSource
from harmonylite.web.values import conflict_json, shown, shown_row

log = logging.getLogger(__name__)

FRESH = 5.0
"""Seconds for which an answer counts."""
STORE_FRESH = 60.0
"""Seconds for which the store's list of snapshots counts."""
ASK_SECONDS = 8.0
"""How long one part has for its answer."""
EARLIER = 30
"""Messages of each shard before now that the tail of changes begins with."""
VERIFY_SECONDS = 30.0
"""How long a comparison that was asked for from the page may take."""


@dataclass(frozen=True, slots=True)
class PageParts:
    """What answers for a page."""

    thread: SqliteThread
    control: Control
    past: History
    feeds: Feeds
    tail: LogTail


async def listen(stack: AsyncExitStack, settings: Settings, status: NodeStatus, parts: PageParts) -> str:
    """Serve health, page and metrics, as far as they are enabled; return where the page is, "" = nowhere."""
    source, page = page_source(settings, status, parts), ""
    health, metrics = health_endpoint(settings), metrics_endpoint(settings)
    for server in http_servers(status, health=health, metrics=metrics, source=source):
        await stack.enter_async_context(server)
        log.info("%(setting)s: listening at %(url)s", {"setting": server.key, "url": server.url})
        if server.key == HEALTH_KEY and settings.health_check.detailed:
            page, status.page = server.url, page_address(settings, server, socket.gethostname()[:255])
            taking = asyncio.create_task(source.hour.run(), name="last hour")
            stack.callback(taking.cancel)
    return page


def page_source(
    settings: Settings, status: NodeStatus, parts: PageParts, databases: Callable[[], Sequence[Any]] = tuple
) -> PageSource:
    """Return what a database's page asks. ``databases``: lists those of the process, none where it is the only one."""
    actions = NodePage(status, parts, settings.snapshot.interval / 1000)
    return PageSource(actions, LastHour(status), page_guard(settings), settings.name, databases)


class NodePage:
    """Implements `harmonylite.web.page_source.PageActions`.

    ``interval``: seconds after which a snapshot is saved for its age, 0 = never.
    """

    def __init__(self, status: NodeStatus, parts: PageParts, interval: float) -> None:
        self._status = status
        self._thread = parts.thread
        self._control = parts.control
        self._past = parts.past
        self._feeds = parts.feeds
        self._tail = parts.tail
        self._interval = interval
        self._asking: dict[str, asyncio.Task[Any]] = {}
        self._known: dict[str, tuple[float, Any]] = {}

    async def details(self) -> dict[str, Any]:
        """Return nodes, tables, snapshots and the last comparison; what is not known is in ``errors``."""
        sections: dict[str, tuple[Callable[[], Awaitable[Any]], float]] = {
            "nodes": (self._control.nodes, FRESH),
            "tables": (self._tables, FRESH),
            "snapshots": (self._snapshots, STORE_FRESH),
        }
        found = await asyncio.gather(*(self._fresh(name, *how) for name, how in sections.items()))
        answers = dict(zip(sections, found, strict=True))
        errors = {name: str(error) for name, error in answers.items() if isinstance(error, Exception)}
        at, said = self._status.verified
        rest = {"verified": {"at": at, "said": said}, "errors": errors}
        return {name: answer for name, answer in answers.items() if name not in errors} | rest

    async def _fresh(self, name: str, ask: Callable[[], Awaitable[Any]], seconds: float) -> Any:
        """Return a fresh answer, or the error; who asks at the same time waits for the same one."""
        at, known = self._known.get(name, (0.0, None))
        if at and time.monotonic() - at < (FRESH if isinstance(known, Exception) else seconds):
            return known
        if name not in self._asking:
            task = self._asking[name] = asyncio.create_task(self._answer(name, ask), name=f"page: {name}")
            task.add_done_callback(lambda _: self._asking.pop(name, None))
        return await asyncio.shield(self._asking[name])

    async def _answer(self, name: str, ask: Callable[[], Awaitable[Any]]) -> Any:
        answer: Any
        try:
            async with asyncio.timeout(ASK_SECONDS):
                answer = await ask()
        except HarmonyLiteError as error:
            answer = error
        except TimeoutError:
            answer = NotRunningError(f"no answer within {ASK_SECONDS:.0f} s")
        self._known[name] = (time.monotonic(), answer)
        return answer

    def _replica(self) -> Replica:
        if self._control.parts.replica is None:
            raise NotRunningError("the database is not open yet")
        return self._control.parts.replica

    async def _tables(self) -> list[dict[str, Any]]:
        replica = self._replica()

        def waiting() -> dict[str, tuple[int, int]]:
            held = held_by_table(replica.connection, replica.tables.values())
            return {name: (table.logged, held.get(name, 0)) for name, table in replica.tables.items()}

        by_table = await self._thread.run(waiting)
        counted = await asyncio.to_thread(count_rows, replica.options, sorted(by_table))
        return [
            {
                "name": name,
                "rows": counted[name][0],
                "exact": counted[name][1],
                "pending": pending,
                "held": held,
                "warning": self._status.warnings.get(name, ""),
            }
            for name, (pending, held) in sorted(by_table.items())
        ]

    async def _snapshots(self) -> dict[str, Any]:
        listed = list(await self._past.snapshots())
        newest = max((float(each["at"]) for each in listed), default=0.0)
        due = newest + self._interval if newest and self._interval else 0.0
        return {"listed": listed[:5], "count": len(listed), "next": due}

    async def conflicts(self, table: str, words: str, limit: int) -> Sequence[dict[str, Any]]:
        """Return the newest conflicts that have all ``words``; raises NotFoundError for a table that is not known."""
        replica = self._replica()
        found = await asyncio.to_thread(search_journal, replica.options, table=table or None, words=words, limit=limit)
        if table and not found and find(table, replica.tables) is None:
            raise NotFoundError(f"there is no replicated table {table}", advice=advice(table, replica.tables))
        return [_shown_conflict(conflict) for conflict in found]

    async def changes(self) -> AsyncGenerator[dict[str, Any], None]:
        """Return the last changes, and those that come."""
        replica = self._replica()

        def earlier() -> str:
            places = replica.positions()
            return text_of_positions(
                {
                    shard: Position(shard, max(seq, self._status.shard(shard).first - 1), max(seq, 0) + 1)
                    for shard, seq in ((shard, max(0, place.seq - EARLIER)) for shard, place in places.items())
                }
            )

        start = await self._thread.run(earlier)
        try:
            feed = await self._feeds.feed(start, "")
        except HarmonyLiteError:
            feed = await self._feeds.feed("now", "")
        return self._feeds.follow(feed)

    def log(self) -> Sequence[dict[str, str]]:
        """Return the last lines of the log."""
        return self._tail.lines()

    async def put_back(self, conflict: str) -> dict[str, Any]:
        """Write the value that was overruled; raises NotFoundError, ChangedSinceError, DatabaseError."""
        replica = self._replica()
        listed = await asyncio.to_thread(search_journal, replica.options, table=None, words="", limit=10_000)
        found = next((each for each in listed if conflict_id(each) == conflict), None)
        if found is None:
            raise NotFoundError("the conflict is not in the journal any more", advice="load the page again")
        digits = await self._thread.run(lambda: digits_of(replica.connection))
        await asyncio.to_thread(put_back, replica.options, found, digits)
        return {
            "table": found.table,
            "column": found.column,
            "value": shown_row({"": conflict_json(found)["overruled"]}),
        }

    async def save_snapshot(self) -> dict[str, Any]:
        """Save a snapshot now."""
        saved = await self._control.save_snapshot()
        self._known.pop("snapshots", None)
        return saved

    async def verify(self) -> dict[str, Any]:
        """Compare database, mirror and nodes now."""
        found = await self._control.verify(False, VERIFY_SECONDS, frozenset())
        return {"agree": found["agree"], "said": self._status.verified[1]}


def conflict_id(conflict: Conflict) -> str:
    """Return what names an entry of the journal among all others."""
    named = (
        conflict.table,
        sorted(conflict_json(conflict)["key"].items()),
        conflict.column,
        conflict.shard,
        conflict.seq,
    )
    return hashlib.blake2b(repr((*named, conflict.at)).encode(), digest_size=12).hexdigest()


def _shown_conflict(conflict: Conflict) -> dict[str, Any]:
    entry = conflict_json(conflict)
    return {
        "id": conflict_id(conflict),
        "table": conflict.table,
        "key": shown_row(entry["key"]),
        "column": conflict.column,
        "kind": conflict.kind,
        "winning": list(shown(entry["winning"])),
        "overruled": list(shown(entry["overruled"])),
        "winner": conflict.winner,
        "loser": conflict.loser,
        "position": f"{conflict.shard}:{conflict.seq}" if conflict.seq else "",
        "at": conflict.at,
        "can_put_back": conflict.kind in KINDS,
    }
