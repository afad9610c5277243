"""The node: what runs beside one database. Composition only: start order, task group, stop order.

Invariant: what was started is stopped in the reverse order, whatever fails; a part's error brings the node down.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from harmonylite.backoff import Backoff, Retry
from harmonylite.config import Settings, notes
from harmonylite.db.overwritten import take_in
from harmonylite.db.replica import Replica
from harmonylite.db.sqlite.checkpointer import Checkpointer
from harmonylite.db.sqlite.clean_shutdown import note
from harmonylite.db.sqlite.thread import SqliteThread
from harmonylite.db.sqlite.watch import Watch
from harmonylite.errors import DatabaseDamagedError, DatabaseError, ReopenError, StreamError, leaves
from harmonylite.identity import acquire_lock, fingerprint, identify, make_folder
from harmonylite.jetstream.shard import JetStreamShard
from harmonylite.logs import LogTail
from harmonylite.nats.link import NatsLink
from harmonylite.nats.peers import NatsPeers
from harmonylite.node.claim import Claim, process_name
from harmonylite.node.control import Control, Parts
from harmonylite.node.feeds import Feeds
from harmonylite.node.history import History
from harmonylite.node.line import Line
from harmonylite.node.page import PageParts, listen
from harmonylite.node.presence import Presence
from harmonylite.node.region import RegionControl
from harmonylite.node.registry import ListedNode, Registry
from harmonylite.node.schemas import Schemas
from harmonylite.node.services import Services
from harmonylite.node.wait_log import WaitLog
from harmonylite.node.wiring import (
    equip,
    private_folder,
    replica_options,
    sender_settings,
    snapshot_signing,
)
from harmonylite.recovery.bootstrap import Bootstrap
from harmonylite.replication.engine import Engine, EngineHooks
from harmonylite.replication.verify import Verifier
from harmonylite.status import NodeStatus
from harmonylite.ticks import tick
from harmonylite.version import __version__
from harmonylite.web.control import ControlServer
from harmonylite.wire import ENVELOPE_BYTES

log = logging.getLogger(__name__)

DRAIN = 5.0
"""Seconds that a stop waits for what is committed to come into the order."""

LEFT = "rows not published yet: %(rows)d; they stay pending, and are published after the next start"

HELD_EVERY = 5.0
"""Seconds between counts of the rows that are held back."""
WAL_EVERY = 5.0
"""Seconds between two tries to put the database into WAL mode, where the first one failed."""
STATISTICS_EVERY = 600.0
"""Seconds between reads of ANALYZE's results; each reads a small table."""


Listen = Callable[[AsyncExitStack, Settings, NodeStatus, PageParts], Awaitable[str]]
"""Shows a node's page as long as the stack is open; returns where it is, "" = nowhere."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What a node has in common with those of other databases in its process. ``connected``: waits for the way to NATS,
    raises what it failed with.
    """

    connected: Callable[[], Awaitable[NatsLink]]
    listen: Listen


class NodeRuntime:
    """One node. `run` it once; `stop` ends it. ``tail``: the last lines of the log, for the page; ``status``: to be
    shown in; ``shared``: None for the only node of its process.
    """

    def __init__(
        self,
        settings: Settings,
        tail: LogTail | None = None,
        *,
        status: NodeStatus | None = None,
        shared: Shared | None = None,
    ) -> None:
        self._settings = settings
        self._tail = tail or LogTail()
        self._shared = shared
        self.status_object = status or NodeStatus(version=__version__, db_path=str(settings.db_path))
        self._stopping = asyncio.Event()
        self._thread = SqliteThread()
        self._parts = Parts()
        self._control = Control(self.status_object, self._thread, self._parts)
        self._past = History(self._thread, self._parts)
        self._feeds = Feeds(self.status_object, self._thread, self._parts)
        self._schemas = Schemas(self.status_object, self._thread, self._parts, self._control)
        self._services: Services | None = None
        self._bootstrap: Bootstrap | None = None
        self._line: Line | None = None
        self._claim: Claim | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._checkpointer = Checkpointer(settings.db_path, enabled=settings.checkpointer, others=self._parts.in_use)
        self._watch = Watch(settings.db_path, on_event=self._checkpointer.wake)

    def stop(self) -> None:
        """Drain and end."""
        self.status_object.stopping = True
        self._feeds.close()
        self._stopping.set()

    def renew(self) -> None:
        """Read certificates and credentials from their files again, as SIGHUP asks; what fails is logged."""
        if self._line is not None and (self._renewing is None or self._renewing.done()):
            self._renewing = asyncio.create_task(self._line.renew(), name="renew the connection to NATS")

    async def run(self) -> None:
        """Run until `stop`. Raises HarmonyLiteError when a part can't continue."""
        settings, status = self._settings, self.status_object
        snapshot_signing(settings.snapshot)  # a key that is none is refused before anything starts
        folder = make_folder(private_folder(settings))
        async with AsyncExitStack() as stack:
            stack.enter_context(acquire_lock(folder))
            identity = identify(settings.db_path, settings.node_id)
            if identity.note:
                log.warning("%s", identity.note)
            for said in notes(settings):
                log.warning("%s", said)
            status.node_id = identity.node_id
            stack.push_async_callback(self._thread.aclose)
            asked = PageParts(self._thread, self._control, self._past, self._feeds, self._tail)
            page = await (listen if self._shared is None else self._shared.listen)(stack, settings, status, asked)
            control = ControlServer(
                self._control, folder, self._past, self._feeds, self._schemas, status.part("control")
            )
            await stack.enter_async_context(control)
            log.info(
                "starting node %(node)s, database %(database)s, version %(version)s",
                {"node": identity.node_id, "database": settings.db_path, "version": __version__},
            )
            work = asyncio.create_task(self._work(identity.node_id), name="node")
            stopped = asyncio.create_task(self._stopping.wait(), name="stop")
            narrator = asyncio.create_task(WaitLog(status, page).run(), name="wait log")
            try:
                await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
                if self._stopping.is_set() and not work.done():
                    await self._drain()
                    work.cancel()
                with suppress(asyncio.CancelledError):
                    await work
            finally:
                for task in (stopped, narrator, work):
                    task.cancel()
                # what work opened it closes, on a thread and a link that are only ended after it
                await asyncio.wait({work})
            await asyncio.to_thread(self._rest)

    def _rest(self) -> None:
        """Record the state of the files that this node checked and closed."""
        bootstrap, replica = self._bootstrap, self._parts.replica
        if bootstrap is None or replica is None:
            return
        options = replica.options
        checked = {options.database, options.mirror} - set(bootstrap.unchecked)
        with suppress(OSError):
            note(options.folder, checked)

    async def _work(self, node: str) -> None:
        """Run everything that needs the database and NATS, in the order of dependencies."""
        settings, status, thread = self._settings, self.status_object, self._thread
        process = process_name()
        sessions = (f"{process}.{number}" for number in count(1))
        equip(settings)
        options = replica_options(settings, node, next(sessions))
        line = Line(settings, node, process, status) if self._shared is None else None
        bootstrap = self._bootstrap = Bootstrap(
            options, thread, status, request_snapshot=self._control.requests.request_snapshot
        )
        async with AsyncExitStack() as stack:
            self._parts.replica = await bootstrap.open()
            stack.push_async_callback(self._close_replica)
            self._report_tables()
            link = await self._connect(stack, line)
            regional = self._parts.regional = RegionControl(settings, link, status)
            streams = regional.streams
            await regional.ensure()
            shards = regional.shards(node)
            peers = self._parts.peers = NatsPeers(link, streams.subject_prefix, node, status.counters)
            self._claim = await stack.enter_async_context(Claim(peers, node, process, settings.db_path, __version__))
            presence = self._parts.presence = Presence(peers, status, options.session)
            await stack.enter_async_context(presence)
            services = Services(settings, options, thread, status, self._control, regional, peers, shards)
            self._services = services
            self._parts.repository, self._parts.lease = services.repository, services.lease
            self._past.replaying = services.replaying
            self._schemas.streams = shards
            await stack.enter_async_context(self._watch.open())
            reopen = Retry(log, "replication with the files as opened", Backoff(0.1, 30.0, calm=60.0), logging.ERROR)
            while True:
                again: list[BaseException] = []
                try:
                    await self._replicate(bootstrap, services, peers, shards, link, regional)
                except* ReopenError as group:
                    again = leaves(group)
                if not again or self._stopping.is_set():  # a group that ends in errors swallows the stop's cancellation
                    return
                await self._close_replica()
                self._parts.replica = self._parts.engine = self._parts.verifier = None
                await asyncio.sleep(reopen.failed("; ".join(map(str, again)), time.monotonic()))
                # Change sets are counted again from here on, and none may be called like an earlier one.
                options = replace(options, session=next(sessions))
                suspects = [error.file for error in again if isinstance(error, DatabaseDamagedError)]
                bootstrap = self._bootstrap = Bootstrap(
                    options, thread, status, suspects=suspects, request_snapshot=self._control.requests.request_snapshot
                )
                self._parts.replica = await bootstrap.open()
                self._report_tables()

    async def _replicate(
        self,
        bootstrap: Bootstrap,
        services: Services,
        peers: NatsPeers,
        shards: Sequence[JetStreamShard],
        link: NatsLink,
        regional: RegionControl,
    ) -> None:
        """Join and replicate, without end. Raises ReopenError when the files have to be opened again."""
        settings, status, thread = self._settings, self.status_object, self._thread
        replica = self._parts.replica = await bootstrap.join(
            self._parts.replica, services.repository, services.recovery, shards
        )
        self._report_tables()
        status.joined = True
        message_bytes = _Remembered(lambda: shards[0].max_message - ENVELOPE_BYTES)
        hooks = EngineHooks(message_bytes, self._checkpoint, services.recovery, services.covering, lambda: link.count)
        engine = Engine(replica, thread, self._watch, shards, status, sender_settings(settings), hooks)
        verifier = Verifier(replica, thread, engine.publisher, peers, status, sent=engine.sender.idle)
        self._parts.engine, self._parts.verifier = engine, verifier
        async with self._checkpointer.running(), asyncio.TaskGroup() as group:
            group.create_task(verifier.serve(), name="answer about digests")
            group.create_task(peers.serve("who", bytes, self._control.who), name="answer about this node")
            group.create_task(engine.run(), name="engine")
            group.create_task(link.lost(), name="nats")
            if self._claim is not None:
                group.create_task(self._claim.ended(), name="node id")
            if self._parts.presence is not None:
                group.create_task(self._parts.presence.ended(), name="presence")
                group.create_task(self._list_nodes(peers, regional), name="list of nodes")
            group.create_task(
                regional.watch(peers, lambda: services.positions(replica), services.recovery.turn), name="regions"
            )
            group.create_task(
                regional.raise_replicas(objects=settings.snapshot_bucket, replicas=settings.snapshot.nats.replicas),
                name="replicas",
            )
            group.create_task(self._watch_held_back(replica), name="held rows")
            group.create_task(self._schemas.run(), name="schema")
            if not replica.wal.reached:
                group.create_task(self._into_wal(replica), name="WAL mode")
            group.create_task(self._watch_statistics(replica), name="statistics")
            services.start(group, replica, bootstrap.unchecked)
            if settings.sleep_timeout:
                group.create_task(self._sleep_when_idle(settings.sleep_timeout / 1000), name="sleep")

    async def _connect(self, stack: AsyncExitStack, line: Line | None) -> NatsLink:
        """Return the connection to NATS; ``line``: this node's own, None = the one that it shares."""
        self._line = line
        if line is not None:
            return (await stack.enter_async_context(line)).link
        assert self._shared is not None
        return await self._shared.connected()

    async def _list_nodes(self, peers: NatsPeers, regional: RegionControl) -> None:
        """Keep this node on the cluster's list, and those that it knows among the peers."""
        status, control, presence = self.status_object, self._control, self._parts.presence
        assert presence is not None
        entry = ListedNode(fingerprint(self._settings.db_path), socket.gethostname()[:255], status.version)
        registry = Registry(regional.objects(), peers, status.node_id, entry, presence.forget)
        self._parts.registry = registry

        async def expect() -> None:
            presence.expect(await control.known())

        await registry.run(control.alive, expect)

    def _checkpoint(self, change_set: Any, at: dict[int, int]) -> None:
        if self._parts.verifier is not None:
            self._parts.verifier.taken(change_set, at)

    def _report_tables(self) -> None:
        replica, status = self._parts.replica, self.status_object
        status.db_connected = status.cdc_installed = replica is not None
        if replica is not None:
            status.tables = tuple(sorted(replica.tables))
            before, status.warnings = status.warnings, dict(replica.warnings)
            for topic, warning in status.warnings.items():
                if before.get(topic) != warning:  # tables are reported once opened, once joined, and after a migration
                    log.warning("%s", warning)

    async def _close_replica(self) -> None:
        if (replica := self._parts.replica) is not None:
            with suppress(DatabaseError):
                await self._thread.run(take_in, replica)
                await self._thread.run(replica.note)
            await self._thread.always(replica.close)
        self.status_object.db_connected = self.status_object.cdc_installed = False

    async def _watch_held_back(self, replica: Replica) -> None:
        """Keep the number of held rows in the status."""

        def count_held() -> bool:
            with suppress(DatabaseError):
                self.status_object.held_rows = replica.held_rows()
            return False

        await self._thread.until(count_held, HELD_EVERY)

    async def _into_wal(self, replica: Replica) -> None:
        """Put the database into WAL mode once no other connection is in the way."""
        while not await self._thread.run(lambda: replica.wal.enter(replica.connection)):  # noqa: ASYNC110 - no event says it
            await asyncio.sleep(WAL_EVERY)
        self.status_object.warnings = dict(replica.warnings)
        log.info("switched the database to WAL mode")

    async def _watch_statistics(self, replica: Replica) -> None:
        """Use ANALYZE's results about growing tables, and warn if they are long out of date."""
        while True:
            before = replica.statistics.warnings
            with suppress(DatabaseError):
                await self._thread.run(lambda: replica.statistics.renew(replica.connection, replica.tables.values()))
            if replica.statistics.warnings != before:
                self._report_tables()
            await asyncio.sleep(STATISTICS_EVERY)

    async def _sleep_when_idle(self, seconds: float) -> None:
        """End the node once nothing has changed for ``seconds``: everything published, a snapshot saved."""
        status = self.status_object
        last, since = (-1, -1), time.monotonic()
        while not self._stopping.is_set():
            await tick(min(1.0, seconds / 4))
            now = (status.counters.published_change_sets, status.counters.folded_change_sets)
            if now != last or status.pending_rows or not status.caught_up:
                last, since = now, time.monotonic()
            elif time.monotonic() - since >= seconds:
                log.info("stopping: no change for %(seconds).0f s (sleep_timeout)", {"seconds": seconds})
                if self._services is not None:
                    await self._services.asleep()
                self._stopping.set()

    async def _drain(self) -> None:
        """Publish what is committed, if NATS is there, and see it come into the order."""
        status = self.status_object
        reached = status.caught_up and status.nats_connected and status.region.get("reachable", True)
        if self._parts.engine is None or not reached:
            if status.pending_rows:
                log.warning(LEFT, {"rows": status.pending_rows})
            return
        try:
            async with asyncio.timeout(DRAIN):
                await self._parts.engine.sender.idle()
        except TimeoutError:
            log.warning(LEFT, {"rows": status.pending_rows})


class _Remembered:
    """The largest message that NATS allows, as last known: an outage is no reason not to capture."""

    def __init__(self, ask: Callable[[], int]) -> None:
        self._ask = ask
        self._known = ask()

    def __call__(self) -> int:
        with suppress(StreamError):
            self._known = self._ask()
        return self._known
