"""Writers on a real NATS that publish as nodes do, over a mirror that only says at which position it is."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path

from harmonylite.changes.epochs import Lineage
from harmonylite.changes.reassembler import Reassembler
from harmonylite.db.capture.capture import Outgoing
from harmonylite.errors import SnapshotError
from harmonylite.jetstream.object_store import JetStreamObjects
from harmonylite.jetstream.settings import StreamSettings
from harmonylite.jetstream.shard import JetStreamShard
from harmonylite.model import ChangeSetId, Position
from harmonylite.nats.link import NatsLink
from harmonylite.nats.peers import NatsPeers
from harmonylite.ports import Progress
from harmonylite.replication.publisher import Publisher
from harmonylite.replication.throttle import Throttle
from harmonylite.snapshots.lease import Lease
from harmonylite.snapshots.repository import RepositorySettings, SnapshotRepository
from harmonylite.snapshots.scheduler import SnapshotScheduler
from harmonylite.status import NodeStatus
from tests.parts.fix_nats import eventually, quick


class Objects(JetStreamObjects):
    """The real object store; ``away``: uploads fail as if it could not be reached."""

    away = False

    async def put(self, name: str, source: Path, progress: Progress | None = None) -> None:
        if self.away:
            raise SnapshotError("the store is away")
        await super().put(name, source, progress)


class Writer:
    """What of a node publishes, reads, and saves snapshots."""

    def __init__(self, link: NatsLink, settings: StreamSettings, folder: Path, name: str, *, gated: bool) -> None:
        self.name = name
        self.status = NodeStatus(node_id=name)
        self.status.caught_up = True
        self.settings = settings
        self.shards = [JetStreamShard(link, settings, shard, name) for shard in range(settings.shards)]
        self.reassembler = Reassembler({shard: Position(shard) for shard in range(settings.shards)})
        self.objects = Objects(link, settings)
        self.repository = SnapshotRepository(
            self.objects, self.objects, RepositorySettings(folder, name, "c", 3), self.status, copy=self._copy
        )
        self.lease = Lease(self.objects, name, "s", seconds=30.0)
        peers = NatsPeers(link, settings.subject_prefix)
        self.scheduler = SnapshotScheduler(
            self.repository, self.lease, peers, self.status, interval=0.0, history=lambda: "", past=lambda: ()
        )
        self.throttle = Throttle(self.status, name, lambda: self.reassembler, self.scheduler if gated else None)
        self.publisher = Publisher(self.shards, name, "s", self.status, self.throttle)
        self.folded: list[ChangeSetId] = []
        self.voided: list[ChangeSetId] = []
        self._count = 0
        self._arrived = asyncio.Condition()

    def _copy(self, target: Path, *, beginning: object = None) -> Lineage:
        # what `_take_in` sets at once and the event loop may change while a thread reads it
        positions = self._positions
        target.write_bytes(b"a mirror")
        return Lineage("", positions)

    async def run(self) -> None:
        """Read and save, without end."""
        await self.publisher.open()
        self._take()
        for stream in self.shards:
            info = await stream.info()
            self.status.shard(stream.shard).most = info.most
        async with asyncio.TaskGroup() as group:
            group.create_task(self.scheduler.run())
            group.create_task(self.scheduler.serve())
            for stream in self.shards:
                group.create_task(self._read(stream))

    async def _read(self, stream: JetStreamShard) -> None:
        async for messages in stream.read(1):
            for message in messages:
                self.reassembler.add(message)
            self._take()
            async with self._arrived:
                self._arrived.notify_all()

    def _take(self) -> None:
        while (batch := self.reassembler.take()) is not None:
            self.folded += [fragment.id for fragment in batch.fragments]
            self.voided += batch.voided
        self._positions = {shard.shard: self.reassembler.position(shard.shard) for shard in self.shards}
        for shard, position in self._positions.items():
            state = self.status.shard(shard)
            state.position, state.resume, state.last = position.seq, position.resume, self.reassembler.read_up_to(shard)

    def change_set(self, counts: dict[int, int]) -> Outgoing:
        """Return a change set of so many messages by shard."""
        self._count += 1
        spool, parts = BytesIO(), {}
        for shard, count in counts.items():
            parts[shard] = [(spool.tell() + 100 * i, 100, i < count - 1, False) for i in range(count)]
            spool.write(os.urandom(100 * count))
        return Outgoing(ChangeSetId(self.name, "s", self._count), 0, time.time(), {}, spool, rows=1, parts=parts)

    async def write(self, *counts: dict[int, int]) -> None:
        """Publish change sets, each once the one before came back in the order."""
        for each in counts:
            out = self.change_set(each)
            await self.publisher.publish(out)
            await self.sees(out.id)

    async def sees(self, change_set: ChangeSetId) -> None:
        """Return once ``change_set`` came back."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: change_set in self.folded or change_set in self.voided)


@asynccontextmanager
async def writers(
    url: str, settings: StreamSettings, folder: Path, *names: str, gated: bool = True
) -> AsyncIterator[list[Writer]]:
    """Give running writers, each with a link of its own; the first holds the lease, and saved the first snapshot."""
    async with asyncio.TaskGroup() as group:
        links = [NatsLink(quick(url), NodeStatus()) for _ in names]
        for link in links:
            await link.__aenter__()
        found = [Writer(link, settings, folder, name, gated=gated) for link, name in zip(links, names, strict=True)]
        found[0]._take()
        await found[0].lease.renew()
        await found[0].repository.save()
        tasks = [group.create_task(writer.run()) for writer in found]
        try:
            await eventually(lambda: all(w.status.shard(s.shard).most for w in found for s in w.shards))
            yield found
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            for link in links:
                await link.__aexit__(None, None, None)
