"""The node: what runs beside one database. Composition only: start order, task group, stop order.

Invariant: what was started is stopped, in the reverse order, whatever fails; a part that dies brings the node down with
its own error.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any

import msgspec

from harmonylite import __version__
from harmonylite.config import Settings, notes
from harmonylite.config import secrets as known_secrets
from harmonylite.db.replica import Replica
from harmonylite.db.snapshot import save_copy
from harmonylite.db.thread import SqliteThread
from harmonylite.db.watch import Watch
from harmonylite.errors import HarmonyLiteError, NotRunningError, SnapshotError, StreamError, StreamGapError
from harmonylite.identity import acquire_lock, identify, make_folder
from harmonylite.jetstream import (
    EmbeddedServer,
    JetStreamObjects,
    JetStreamShard,
    NatsLink,
    NatsPeers,
    ensure_streams,
)
from harmonylite.logs import configure
from harmonylite.model import Conflict
from harmonylite.replication.engine import Engine
from harmonylite.replication.verifying import Verifier
from harmonylite.snapshots.joining import Joiner
from harmonylite.snapshots.keeper import Keeper, keep_saving
from harmonylite.status import NodeStatus
from harmonylite.web.control import ControlServer
from harmonylite.web.sites import http_servers
from harmonylite.wire import ENVELOPE_BYTES
from harmonylite.wiring import (
    embedded_settings,
    health_site,
    link_settings,
    metrics_site,
    private_folder,
    replica_options,
    stream_settings,
)

log = logging.getLogger(__name__)

DRAIN = 5.0
"""Seconds that a stop waits for what is committed to come into the order."""
ASK_AT_ONCE = 0.4
"""Seconds that every node has for an answer about itself."""
ASK = 3.0
"""Seconds that nodes have which are known and did not answer at once."""


class Node:
    """One node. `run` it once; `stop` ends it. Implements `harmonylite.web.actions.Actions`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.status_object = NodeStatus(version=__version__, db_path=str(settings.db_path))
        self._stopping = asyncio.Event()
        self._thread = SqliteThread()
        self._engine: Engine | None = None
        self._verifier: Verifier | None = None
        self._keeper: Keeper | None = None
        self._replica: Replica | None = None
        self._peers: NatsPeers | None = None
        self._link: NatsLink | None = None
        self._server: EmbeddedServer | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._watch = Watch(settings.db_path)

    def stop(self) -> None:
        """Drain and end; the second call cuts."""
        if self._stopping.is_set():
            raise SystemExit(1)
        self.status_object.stopping = True
        self._stopping.set()

    def renew(self) -> None:
        """Read certificates and credentials from their files again, as SIGHUP asks; what fails is logged."""
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.create_task(self._renew(), name="renew the connection to NATS")

    async def _renew(self) -> None:
        try:
            if self._server is not None:
                await self._server.reload()
            if self._link is not None:
                await self._link.renew()
            log.info("certificates and credentials for NATS are read again")
        except (HarmonyLiteError, OSError) as error:
            log.error("certificates and credentials for NATS stay as they were: %s", error)

    async def run(self) -> None:
        """Run until `stop`. Raises HarmonyLiteError when a part can't go on."""
        settings, status = self._settings, self.status_object
        folder = make_folder(private_folder(settings))
        async with AsyncExitStack() as stack:
            stack.enter_context(acquire_lock(folder))
            identity = identify(settings.db_path, settings.node_id)
            if identity.note:
                log.warning("%s", identity.note)
            for note in notes(settings):
                log.warning("%s", note)
            status.node_id = identity.node_id
            stack.push_async_callback(self._thread.aclose)
            for server in http_servers(status, health=health_site(settings), metrics=metrics_site(settings)):
                await stack.enter_async_context(server)
            await stack.enter_async_context(ControlServer(self, folder))
            log.info("node %s, database %s, version %s", identity.node_id, settings.db_path, __version__)
            work = asyncio.create_task(self._work(identity.node_id), name="node")
            stopped = asyncio.create_task(self._stopping.wait(), name="stop")
            try:
                await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
                if self._stopping.is_set() and not work.done():
                    await self._drain()
                    work.cancel()
                with suppress(asyncio.CancelledError):
                    await work
            finally:
                stopped.cancel()
                work.cancel()

    async def _work(self, node: str) -> None:
        """Everything that needs the database and NATS, in the order in which they need one another."""
        settings, status, thread = self._settings, self.status_object, self._thread
        session = f"{time.time_ns():x}-{secrets.token_hex(4)}"
        options = replica_options(settings, node, session)
        joiner = Joiner(options, thread, status, ask=self._ask_for_snapshot)
        async with AsyncExitStack() as stack:
            self._replica = await joiner.open()
            stack.push_async_callback(self._close_replica)
            self._tell_tables()
            link = await self._connect(stack, node)
            streams = stream_settings(settings)
            for warning in await ensure_streams(link, streams, status.part("streams")):
                log.warning("%s", warning)
            shards = [
                JetStreamShard(link, streams, shard, node, part=status.part(f"shard {shard}"))
                for shard in range(streams.shards)
            ]
            objects = JetStreamObjects(link, streams)
            self._peers = NatsPeers(link, streams.subject_prefix)
            self._keeper = Keeper(
                objects, options.folder, node, status, keep=settings.snapshot.keep,
                copy=lambda target: save_copy(options.mirror, target),
            )  # fmt: skip
            keeper = self._keeper
            replica = self._replica = await joiner.join(self._replica, keeper)
            self._tell_tables()

            async def recover(gap: StreamGapError) -> None:
                await joiner.recover(replica, keeper, {gap.shard: gap.first})

            await stack.enter_async_context(self._watch.open())
            engine = self._engine = Engine(
                replica, thread, self._watch, shards, status,
                publish=settings.publish, polling=settings.polling_interval / 1000 or 0.5,
                tidying=settings.cleanup_interval / 1000,
                message_bytes=_Remembered(lambda: shards[0].max_message - ENVELOPE_BYTES),
                checkpoint=lambda change_set, at: self._checkpoint(change_set, at), recover=recover,
            )  # fmt: skip
            self._verifier = Verifier(replica, thread, engine.publisher, self._peers, status)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._verifier.serve(), name="answer about digests")
                group.create_task(self._peers.serve("who", self._who), name="answer about this node")
                group.create_task(self._peers.serve("snapshot", self._snapshot_please), name="answer with snapshots")
                group.create_task(engine.run(), name="engine")
                group.create_task(link.lost(), name="nats")
                group.create_task(self._watch_held(), name="held rows")
                if settings.snapshot.enable:
                    saving = keep_saving(
                        keeper, status, max_entries=streams.max_entries, interval=settings.snapshot.interval / 1000,
                        turn=lambda: random.uniform(0.0, 3.0),
                    )  # fmt: skip
                    group.create_task(saving, name="snapshots")
                if settings.sleep_timeout:
                    group.create_task(self._sleep_when_idle(settings.sleep_timeout / 1000), name="sleep")

    async def _connect(self, stack: AsyncExitStack, node: str) -> NatsLink:
        settings, status = self._settings, self.status_object
        if settings.nats.urls:
            link = NatsLink(link_settings(settings, node), status)
        else:
            server = await stack.enter_async_context(EmbeddedServer(embedded_settings(settings, node), status))
            base = link_settings(settings, node)
            link = NatsLink(server.link_settings(base), status, urls=server.urls)
            self._server = server
        self._link = link
        return await stack.enter_async_context(link)

    def _checkpoint(self, change_set: Any, at: dict[int, int]) -> None:
        if self._verifier is not None:
            self._verifier.taken(change_set, at)

    def _tell_tables(self) -> None:
        replica, status = self._replica, self.status_object
        status.db_connected = status.cdc_installed = replica is not None
        if replica is not None:
            status.tables = tuple(sorted(replica.tables))
            status.warnings = dict(replica.warnings)
            for warning in status.warnings.values():
                log.warning("%s", warning)

    async def _close_replica(self) -> None:
        if self._replica is not None:
            await self._thread.run(self._replica.close)
        self.status_object.db_connected = False

    async def _watch_held(self) -> None:
        """Keep the number of held rows in the status."""
        while True:
            await asyncio.sleep(5.0)
            if self._replica is not None:
                self.status_object.held_rows = await self._thread.run(self._replica.held_rows)

    async def _sleep_when_idle(self, seconds: float) -> None:
        """End the node once nothing has changed for ``seconds``: everything published, a snapshot saved."""
        status = self.status_object
        last, since = (-1, -1), time.monotonic()
        while not self._stopping.is_set():
            await asyncio.sleep(min(1.0, seconds / 4))
            now = (status.counters.published_change_sets, status.counters.folded_change_sets)
            if now != last or status.pending_rows or not status.caught_up:
                last, since = now, time.monotonic()
            elif time.monotonic() - since >= seconds:
                log.info("nothing has changed for %.0f s: going to sleep", seconds)
                if self._settings.snapshot.enable and self._keeper is not None:
                    with suppress(SnapshotError, StreamError):
                        await self._keeper.save()
                self._stopping.set()

    async def _drain(self) -> None:
        """Publish what is committed, if NATS is there, and see it come into the order."""
        if self._engine is None or not self.status_object.caught_up or not self.status_object.nats_connected:
            return
        try:
            async with asyncio.timeout(DRAIN):
                await self._engine.sender.idle()
        except TimeoutError:
            log.warning("%d rows are not published yet; they stay pending", self.status_object.pending_rows)

    # questions of other nodes -----------------------------------------------------------------------------------

    async def _who(self, _question: bytes) -> bytes:
        return msgspec.json.encode(self.status_object.report())

    async def _snapshot_please(self, _question: bytes) -> bytes | None:
        if self._keeper is None or not self.status_object.caught_up:
            return None
        with suppress(SnapshotError, StreamError):
            saved = await self._keeper.save()
            return saved.name.encode() if saved is not None else None
        return None

    async def _ask_for_snapshot(self) -> bool:
        if self._peers is None:
            return False
        with suppress(StreamError):
            return bool(await self._peers.ask("snapshot", b"", seconds=ASK * 5, expect=1))
        return False

    # questions of a person (harmonylite.web.actions) ------------------------------------------------------------

    async def status(self) -> dict[str, Any]:
        """Return this node's report."""
        return self.status_object.report()

    async def cluster(self) -> Sequence[dict[str, Any]]:
        """Return the reports of all nodes that answer, and the names of those that don't."""
        if self._peers is None:
            return [self.status_object.report()]
        known = await self._known()
        # first whoever answers at once, also those that are not known yet; then those that are known and slow
        found = _reports(await self._peers.ask("who", b"", seconds=ASK_AT_ONCE))
        if known - found.keys():
            found |= _reports(
                await self._peers.ask(
                    "who", b"", seconds=ASK, enough=lambda answers: known <= _reports(answers).keys() | found.keys()
                )
            )
        found[self.status_object.node_id] = self.status_object.report()
        for node in known - set(found):
            found[node] = {"node_id": node, "status": "unknown"}
        return [found[node] for node in sorted(found)]

    async def _known(self) -> set[str]:
        replica = self._running()
        return await self._thread.run(replica.nodes) | {self.status_object.node_id}

    def _running(self) -> Replica:
        if self._replica is None or self._engine is None:
            reasons = "; ".join(self.status_object.waits) or "it is starting"
            raise NotRunningError(f"the node can't do that yet: {reasons}")
        return self._replica

    async def conflicts(self, table: str | None, limit: int) -> Sequence[Conflict]:
        """Return the newest conflicts."""
        replica = self._running()
        return await self._thread.run(lambda: replica.conflicts(table=table, limit=limit))

    async def verify(self, repair: bool, seconds: float) -> dict[str, Any]:
        """Compare database, mirror and nodes."""
        self._running()
        if self._verifier is None or self._peers is None:
            raise NotRunningError("the node is not connected to the others yet")
        answering = await self.cluster()
        known = {str(report["node_id"]) for report in answering}
        if self._engine is not None and self.status_object.caught_up:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds / 3):
                    await self._engine.sender.idle()
        return await self._verifier.verify(repair=repair, seconds=seconds, known=known)

    async def save_snapshot(self) -> dict[str, Any]:
        """Save a snapshot now."""
        self._running()
        if self._keeper is None:
            raise NotRunningError("the node is not connected to the store yet")
        saved = await self._keeper.save()
        if saved is None:
            raise SnapshotError("another node saved a newer snapshot meanwhile")
        return {"name": saved.name, "bytes": saved.bytes, "positions": saved.positions}

    async def skip(self, shard: int, seq: int) -> dict[str, Any]:
        """Leave a message out on this node."""
        replica = self._running()
        if self._engine is None:
            raise NotRunningError("the node is not replicating yet")
        await self._thread.run(replica.skip, shard, seq)
        self._engine.receiver.skip(shard, seq)
        log.warning("message %d of shard %d is left out on this node, as was asked", seq, shard)
        return {"shard": shard, "seq": seq}


def _reports(answers: Sequence[bytes]) -> dict[str, dict[str, Any]]:
    """Return what other nodes say of themselves, by node."""
    return {str(report["node_id"]): report for report in map(msgspec.json.decode, answers)}


class _Remembered:
    """What NATS allows, as it last said: an outage is no reason not to capture."""

    def __init__(self, ask: Callable[[], int]) -> None:
        self._ask = ask
        self._known = ask()

    def __call__(self) -> int:
        with suppress(StreamError):
            self._known = self._ask()
        return self._known


async def run(settings: Settings) -> int:
    """Run a node until a signal ends it; return the exit code. The first signal drains, the second cuts."""
    configure(settings.logging, known_secrets=known_secrets(settings))
    node = Node(settings)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, node.stop)
    loop.add_signal_handler(signal.SIGHUP, node.renew)
    failed: list[HarmonyLiteError] = []
    try:
        await node.run()
    except* HarmonyLiteError as group:
        failed.append(_first(group))
    for error in failed:
        log.error("%s", error)
    return failed[0].exit_code if failed else 0


def _first(group: BaseExceptionGroup[HarmonyLiteError]) -> HarmonyLiteError:
    """Return the first single error of a group of groups."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if not isinstance(error, HarmonyLiteError):
        raise error
    return error
