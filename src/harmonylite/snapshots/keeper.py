"""Save, find and fetch snapshots in the NATS object store.

Invariant: an object is whole before the pointer names it, and the pointer only ever moves forward: whoever compares
and sets it last has the newest positions.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from harmonylite.errors import DatabaseError, SnapshotError, StreamError
from harmonylite.model import Position
from harmonylite.replication.ports import Objects
from harmonylite.snapshots.archive import pack, unpack
from harmonylite.status import NodeStatus

log = logging.getLogger(__name__)

POINTER = "newest"
LEAST_KEPT = 2
"""Snapshots that stay in any case: the newest, and one before it for whoever is reading that now."""


class Snapshot(msgspec.Struct, frozen=True):
    """One saved snapshot. ``positions``: shard to last folded sequence; ``resume``: where to read on from;
    ``created``: per shard the stream that they belong to; ``sha256``: of the uncompressed file; ``at``: seconds.
    """

    name: str
    node: str
    positions: dict[int, int]
    resume: dict[int, int]
    created: dict[int, str]
    sha256: str
    bytes: int
    at: float
    older: list[str] = []


class Keeper:
    """Keeps the snapshots of one cluster. ``keep``: how many stay in the store (0 = all).

    ``copy`` writes the mirror into a new file and returns its positions.
    """

    def __init__(
        self, objects: Objects, folder: Path, node: str, status: NodeStatus, *,
        keep: int, copy: Callable[[Path], dict[int, Position]],
    ) -> None:  # fmt: skip
        self._objects = objects
        self._folder = folder
        self._node = node
        self._status = status
        self._keep = keep
        self._copy = copy
        self._saving = asyncio.Lock()

    async def newest(self) -> Snapshot | None:
        """Return the newest snapshot, None when there is none; raises StreamError."""
        return (await self._pointer())[0]

    async def _pointer(self) -> tuple[Snapshot | None, int]:
        found = await self._objects.pointer(POINTER)
        if found is None:
            return None, 0
        try:
            return msgspec.json.decode(found[0], type=Snapshot), found[1]
        except msgspec.DecodeError as error:
            raise SnapshotError(f"the pointer to the newest snapshot can't be read: {error}") from error

    async def save(self, *, first: bool = False) -> Snapshot | None:
        """Save the mirror as it is now; ``first``: only if there is no snapshot at all (None: somebody was faster).

        Raises SnapshotError, StreamError; the newest snapshot stays what it was.
        """
        async with self._saving:
            name = f"snapshot-{time.time_ns():020d}-{secrets.token_hex(3)}"
            plain, packed = self._folder / f"{name}.db", self._folder / f"{name}.db.zst"
            try:
                positions = await asyncio.to_thread(self._copy, plain)
                digest = await asyncio.to_thread(pack, plain, packed)
                snapshot = Snapshot(
                    name, self._node,
                    {s: p.seq for s, p in positions.items()},
                    {s: p.resume for s, p in positions.items()},
                    {s: p.created for s, p in positions.items()},
                    digest, packed.stat().st_size, time.time(),
                )  # fmt: skip
                await self._objects.put(name, packed)
            finally:
                plain.unlink(missing_ok=True)
                packed.unlink(missing_ok=True)
            return await self._name_newest(snapshot, first=first)

    async def _name_newest(self, snapshot: Snapshot, *, first: bool) -> Snapshot | None:
        while True:
            known, revision = await self._pointer()
            behind = known is not None and any(
                seq < known.positions.get(shard, 0) for shard, seq in snapshot.positions.items()
            )
            if known is not None and (first or behind):
                await self._objects.delete(snapshot.name)
                return None if first else known
            older = [*known.older, known.name] if known is not None else []
            keep = max(self._keep, LEAST_KEPT) - 1 if self._keep else len(older)
            named = msgspec.structs.replace(snapshot, older=older[len(older) - keep :] if keep < len(older) else older)
            if await self._objects.set_pointer(POINTER, msgspec.json.encode(named), revision=revision):
                break
        for name in older[: len(older) - keep] if keep < len(older) else []:
            await self._objects.delete(name)
        self._status.counters.snapshots_saved += 1
        log.info("snapshot %s saved: %d bytes, positions %s", snapshot.name, snapshot.bytes, snapshot.positions)
        return named

    async def fetch(self) -> tuple[Snapshot, Path] | None:
        """Fetch the newest snapshot into a file of the private folder, digest checked; None when there is none."""
        while True:
            snapshot = await self.newest()
            if snapshot is None:
                return None
            packed, plain = self._folder / "incoming.zst", self._folder / "incoming.db"
            try:
                await self._objects.get(snapshot.name, packed)
                await asyncio.to_thread(unpack, packed, plain, snapshot.sha256)
            except SnapshotError:
                again = await self.newest()
                if again is None or again.name == snapshot.name:
                    raise
                continue  # it was replaced by a newer one and pruned while we read
            finally:
                packed.unlink(missing_ok=True)
            self._status.counters.snapshots_restored += 1
            return snapshot, plain


async def keep_saving(
    keeper: Keeper, status: NodeStatus, *, max_entries: int, interval: float, turn: Callable[[], float]
) -> None:
    """Save a snapshot before the streams forget, and every ``interval`` seconds (0 = never for its age), without end.

    ``turn``: seconds by which this node lets others go first.
    """
    while True:
        await asyncio.sleep(2.0)
        try:
            newest = await keeper.newest()
            if _due(newest, status, max_entries, interval):
                await asyncio.sleep(turn())
                newest = await keeper.newest()
                if _due(newest, status, max_entries, interval):
                    await keeper.save()
            status.part("snapshots").ok()
        except (DatabaseError, SnapshotError, StreamError, OSError) as error:
            status.part("snapshots").waiting(f"no snapshot could be saved: {error}")


def _due(newest: Snapshot | None, status: NodeStatus, max_entries: int, interval: float) -> bool:
    if newest is None:
        return status.caught_up
    ahead = max((s.position - newest.positions.get(s.shard, 0) for s in status.shards.values()), default=0)
    if ahead <= 0:
        return False
    return ahead * 3 >= max_entries or (interval > 0 and time.time() - newest.at >= interval)
