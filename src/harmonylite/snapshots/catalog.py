"""The snapshots in the store: each with a description beside it, and old ones removed.

Invariant: a snapshot that has no description is not found, so one that is being stored or removed never is. Nothing is
removed that a pointer names, or that another node may be about to have named.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Sequence
from pathlib import Path

from harmonylite.db.sqlite.file_access import make_private
from harmonylite.errors import ObjectMissingError, SnapshotDamagedError, SnapshotError
from harmonylite.ports import Store
from harmonylite.snapshots.archive import fetch
from harmonylite.snapshots.manifest import (
    CODEC,
    DESCRIPTION,
    PREFIX,
    Snapshot,
    decode,
    encode,
    read_description,
    saved_at,
    usable,
)

log = logging.getLogger(__name__)

LEFT_OVER = 3600.0
"""Seconds that an upload which was never named is older than the oldest kept snapshot before it is removed."""


class Catalog:
    """The snapshots of one cluster in ``store``. ``folder``: where files may lie for a moment; ``cluster``: whose they
    are (the streams' prefix), those of others that share the store are left alone.
    """

    def __init__(self, store: Store, folder: Path, cluster: str) -> None:
        self._store = store
        self._folder = folder
        self._cluster = cluster
        self._known: dict[str, Snapshot] = {}

    @property
    def place(self) -> str:
        """Where the snapshots are kept, in words for a person."""
        return self._store.place

    async def listed(self) -> list[Snapshot]:
        """Return all snapshots of this cluster, the newest first; raises SnapshotError."""
        names = usable(await self._store.names())
        # the description of one that was not named yet may say otherwise by now
        self._known = {n: known for n, known in self._known.items() if n in names and known.named is not False}
        for name in names:
            if name not in self._known:
                try:
                    self._known[name] = await self.description(name)
                except SnapshotError as error:
                    log.info("ignoring a snapshot, perhaps it was just removed: %(error)s", {"error": error})
        found = [self._known[name] for name in names if name in self._known]
        return [snapshot for snapshot in found if snapshot.cluster in ("", self._cluster)]

    async def description(self, name: str) -> Snapshot:
        """Return what the store says of snapshot ``name``; raises ObjectMissingError and its kin."""
        file = self._folder / f"description-{secrets.token_hex(4)}"
        try:
            await fetch(self._store, name + DESCRIPTION, file, CODEC.most)
            data = await asyncio.to_thread(read_description, file)
        finally:
            file.unlink(missing_ok=True)
        found = decode(data, f"the description of snapshot {name}")
        if found.name != name:
            raise SnapshotDamagedError(f"the description of snapshot {name} is that of another one")
        return found

    async def has(self, name: str) -> bool:
        """Return whether the store has snapshot ``name``; raises SnapshotError when it can't be asked."""
        try:
            await self.description(name)
        except (ObjectMissingError, SnapshotDamagedError):
            return False
        return True

    async def describe(self, snapshot: Snapshot) -> None:
        """Store the description of ``snapshot``, in place of an earlier one; raises SnapshotError."""
        note = self._folder / f"{snapshot.name}-{secrets.token_hex(4)}{DESCRIPTION}"
        try:
            make_private(note)
            await asyncio.to_thread(note.write_bytes, encode(snapshot))
            await self._store.put(snapshot.name + DESCRIPTION, note)
        except OSError as error:
            raise SnapshotError(f"a description can't be made in {self._folder}: {error}") from error
        finally:
            note.unlink(missing_ok=True)

    async def remove(self, name: str) -> None:
        """Delete a snapshot, its description first; raises SnapshotError."""
        await self._store.delete(name + DESCRIPTION)
        await self._store.delete(name)

    async def prune(self, newest: Snapshot, dropped: Sequence[str]) -> None:
        """Remove what the pointer dropped when it named ``newest``, and old uploads that no pointer named.

        Nothing else: what the store lists and the pointer does not may be about to be named by another node.
        """
        try:
            names = await self._store.names()
            mine = {snapshot.name for snapshot in await self.listed()}
            kept = {newest.name, *newest.older}
            unfinished = {n for n in names if n.startswith(PREFIX) and not n.endswith(DESCRIPTION)} - set(usable(names))
            late = min(map(saved_at, kept)) - LEFT_OVER
            old = {name for name in mine | unfinished if saved_at(name) < late}
            for name in sorted((old | set(dropped)) - kept):
                await self.remove(name)
        except SnapshotError as error:
            log.warning("keeping old snapshots for now: %(error)s", {"error": error})
