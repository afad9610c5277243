"""Save, find, fetch and prune snapshots in a store; NATS's pointer names the newest.

Invariant: a snapshot and its description are whole before the pointer names it, and the pointer only ever moves
forward: anyone who compares and sets it last has the newest positions, or began a new history because no snapshot
fitted the streams any more. No node starts from a snapshot that the pointer never named: several nodes may upload a
first one at once, and only one of them is the cluster's beginning. A damaged or refused snapshot is skipped, visibly,
for the next older one. No file leaves this module without a check (`harmonylite.db.untrusted_snapshot`).
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec

from harmonylite.changes.epochs import Lineage
from harmonylite.changes.failover import mark_of
from harmonylite.db.sqlite.deadline import Deadline
from harmonylite.errors import (
    DatabaseError,
    ObjectMissingError,
    SnapshotDamagedError,
    SnapshotError,
    SnapshotRefusedError,
    SnapshotRoomError,
    StreamError,
)
from harmonylite.model import StreamInfo
from harmonylite.ports import Progress, Store
from harmonylite.snapshots.archive import fetch, must_fit, pack, unpack_checked
from harmonylite.snapshots.catalog import Catalog
from harmonylite.snapshots.manifest import PREFIX, Packed, Snapshot, decode, describe, encode, fits, is_behind
from harmonylite.status import NodeStatus

if TYPE_CHECKING:
    from harmonylite.snapshots.signing import Signing

log = logging.getLogger(__name__)

POINTER = "newest"
LEAST_KEPT = 2
"""Snapshots that stay in any case: the newest, and one before it for anyone who is reading that now."""
TRIES = 3
"""How often a failing fetch is retried before another snapshot is tried."""
LINE_EVERY = 10.0
"""Seconds between lines of the log on how far a snapshot is."""

Wanted = Callable[[Snapshot], bool]


class PointerStore(Protocol):
    """Small named values with compare-and-set; see `harmonylite.ports.Objects`."""

    async def pointer(self, key: str) -> tuple[bytes, int] | None:
        """Return value and revision of a pointer, None when it is not there."""

    async def set_pointer(self, key: str, value: bytes, *, revision: int) -> bool:
        """Set a pointer if its revision is still ``revision`` (0 = it must not exist). False: someone was first."""


class FetchedCopy(Protocol):
    """Writes the mirror into a new file, where asked as the beginning of a new history; may run on any thread."""

    def __call__(self, target: Path, *, beginning: Callable[[Lineage], Lineage] | None = None) -> Lineage:
        """Return the copy's lineage; raises DatabaseError."""


@dataclass(frozen=True, slots=True)
class RepositorySettings:
    """``folder``: for files in transfer. ``keep``: how many snapshots stay in the store (0 = all).

    ``cluster``: the streams' prefix; snapshots of others that share the store are left alone.
    """

    folder: Path
    node: str
    cluster: str
    keep: int


class SnapshotRepository:
    """Keeps the snapshots of one cluster. ``signing``: None where this node signs nothing and asks for no signature."""

    def __init__(
        self,
        store: Store,
        pointers: PointerStore,
        settings: RepositorySettings,
        status: NodeStatus,
        *,
        copy: FetchedCopy,
        signing: Signing | None = None,
    ) -> None:
        self._store = store
        self.catalog = Catalog(store, settings.folder, settings.cluster)
        self._pointers = pointers
        self._folder = settings.folder
        self._node = settings.node
        self._cluster = settings.cluster
        self._status = status
        self._keep = settings.keep
        self._copy = copy
        self._signing = signing
        self._saving = asyncio.Lock()
        self._fetching = asyncio.Lock()
        self.damaged: set[str] = set()
        """Snapshots that this node found unusable: damaged, or not in the store; a new one must be saved soon."""
        self.missing: set[str] = set()
        """Those of them that this node's store does not have."""
        self._failures: dict[str, int] = {}
        self._unread = 0
        self.unnamed = False
        """True when no pointer that can be read named the newest snapshot when it was looked for last."""
        self._refused: dict[str, SnapshotRefusedError] = {}

    # finding ---------------------------------------------------------------------------------------------------

    async def newest(self) -> Snapshot | None:
        """Return the newest snapshot, None when there is none; raises StreamError, SnapshotError."""
        return (await self.pointed())[0]

    async def pointed(self) -> tuple[Snapshot | None, int]:
        """Return what the pointer names, and its revision; without a pointer the newest that one ever named, and 0.

        A pointer that can't be read counts as none, and its revision is what the next one has to replace.
        """
        found = await self._pointers.pointer(POINTER)
        revision = 0
        if found is not None:
            revision = found[1]
            try:
                pointed = decode(found[0], "the pointer to the newest snapshot")
            except SnapshotDamagedError as error:
                if revision != self._unread:
                    log.warning(
                        "ignoring a pointer, which counts as absent until a snapshot is saved: %(error)s",
                        {"error": error.message},
                    )
                self._unread = revision
            else:
                self.unnamed = not revision  # that of a store from before there were regions
                return pointed, revision
        self.unnamed = True
        named = (snapshot for snapshot in await self.catalog.listed() if snapshot.named is not False)
        return next(named, None), revision

    # saving ----------------------------------------------------------------------------------------------------

    async def save(self, *, first: bool = False, copy: FetchedCopy | None = None) -> Snapshot | None:
        """Save the mirror as it is now; ``first``: only if there is no snapshot at all (None: another node was faster).

        ``copy``: what to save instead of the mirror.
        Raises SnapshotError, StreamError, DatabaseError; the newest snapshot stays what it was.
        """
        async with self._saving:
            return await self._name_newest(*await self._upload(None, copy), first=first)

    async def begin(
        self,
        streams: Sequence[StreamInfo],
        beginning: Callable[[Lineage], Lineage],
        *,
        past: Container[str] = (),
        copy: FetchedCopy | None = None,
    ) -> Snapshot | None:
        """Save the mirror as the beginning of a new history; None: some snapshot fits the streams by now.

        ``past``: the histories before the mirror's own, whose snapshots are no use: a NATS that was set back names them
        again, and its streams fit them. ``copy``: what to save instead of the mirror.
        """
        async with self._saving:
            known, revision = await self.pointed()
            useful = known is not None and known.history not in past and known.name not in self.damaged
            if known is not None and useful and fits(known, streams):
                return None
            snapshot, _ = await self._upload(beginning, copy)
            named = self._signed(msgspec.structs.replace(snapshot, named=True))
            if await self._pointers.set_pointer(POINTER, encode(named), revision=revision):
                await self._saved(named)
                return named
            await self.catalog.remove(snapshot.name)
            return None

    async def _upload(
        self, beginning: Callable[[Lineage], Lineage] | None, copy: FetchedCopy | None = None
    ) -> tuple[Snapshot, Container[str]]:
        """Store a snapshot and its description; return it, and the histories before its own."""
        name = f"{PREFIX}{time.time_ns():020d}-{secrets.token_hex(3)}"
        plain, packed = self._folder / f"{name}.db", self._folder / f"{name}.db.zst"
        try:
            lineage = await asyncio.to_thread(copy or self._copy, plain, beginning=beginning)
            if mark_of(lineage):
                raise SnapshotError("this node's region failed over; snapshots are saved in the primary region")
            size = plain.stat().st_size
            digest = await asyncio.to_thread(pack, plain, packed)
            plain.unlink(missing_ok=True)
            snapshot = describe(
                name,
                self._node,
                self._cluster,
                lineage,
                Packed(digest, packed.stat().st_size, size),
                at=time.time(),
                begins=beginning is not None,
            )
            snapshot = self._signed(snapshot)
            await self._store.put(name, packed, self._progress(f"saving {name}"))
            await self.catalog.describe(snapshot)
        except OSError as error:
            raise SnapshotError(f"a snapshot can't be made in {self._folder}: {error}") from error
        finally:
            self._status.progress = None
            for file in (plain, packed):
                file.unlink(missing_ok=True)
        return snapshot, lineage.past

    def _signed(self, snapshot: Snapshot) -> Snapshot:
        return self._signing.signed(snapshot) if self._signing is not None else snapshot

    def _progress(self, doing: str) -> Progress:
        last = time.monotonic()

        def moved(done: int, total: int) -> None:
            nonlocal last
            self._status.progress = (doing, done, total)
            if time.monotonic() - last >= LINE_EVERY:
                last = time.monotonic()
                log.info("%(doing)s: %(done)d of %(total)d bytes", {"doing": doing, "done": done, "total": total})

        return moved

    async def _name_newest(self, snapshot: Snapshot, past: Container[str], *, first: bool) -> Snapshot | None:
        while True:
            known, revision = await self.pointed()
            other = known is not None and known.history != snapshot.history and known.history not in past
            if known is not None and (first or other or is_behind(snapshot, known)):
                await self.catalog.remove(snapshot.name)
                if other and not first:
                    raise SnapshotError("the cluster has started a new epoch; this node resyncs first")
                return None if first else known
            older = [*known.older, known.name] if known is not None else []
            keep = max(self._keep, LEAST_KEPT) - 1 if self._keep else len(older)
            dropped = older[: max(0, len(older) - keep)]
            named = self._signed(msgspec.structs.replace(snapshot, older=older[len(dropped) :], named=True))
            if await self._pointers.set_pointer(POINTER, encode(named), revision=revision):
                break
        await self._saved(named)
        if self._keep:
            await self.catalog.prune(named, dropped)
        return named

    async def _saved(self, snapshot: Snapshot) -> None:
        """Take note that the pointer names ``snapshot``, in the store as well."""
        self.damaged.clear()
        self.missing.clear()
        self._status.counters.snapshots_saved += 1
        log.info(
            "saved snapshot %(snapshot)s: %(bytes)d bytes, positions %(positions)s",
            {"snapshot": snapshot.name, "bytes": snapshot.bytes, "positions": snapshot.positions},
        )
        try:
            await self.catalog.describe(snapshot)
        except SnapshotError as error:  # the pointer says so; only a cluster that loses its pointers would miss it
            log.warning(
                "can't name snapshot %(snapshot)s the newest yet: %(error)s",
                {"snapshot": snapshot.name, "error": error},
            )

    # fetching --------------------------------------------------------------------------------------------------

    async def candidates(self, wanted: Wanted | None = None) -> list[Snapshot]:
        """Return the snapshots to try, the best first: what the pointer names, then the newest that it named before."""
        pointed = await self.newest()
        try:
            others = await self.catalog.listed()
        except SnapshotError as error:
            if pointed is None:
                raise
            log.warning("can't list the store: %(error)s", {"error": error})
            others = []
        found = [pointed] if pointed is not None else []
        older = pointed.older if pointed is not None else []
        others = [s for s in others if s.named is not False or s.name in older]
        found += [snapshot for snapshot in others if pointed is None or snapshot.name != pointed.name]
        return [snapshot for snapshot in found if wanted is None or wanted(snapshot)]

    async def fetch(self, wanted: Wanted | None = None) -> tuple[Snapshot, Path] | None:
        """Fetch the best snapshot that is ``wanted`` into a file of the private folder, digest checked.

        None when there is none to try. Raises SnapshotDamagedError or ObjectMissingError when none of them is any use,
        SnapshotError when the store is out of reach: then retry the same one.
        """
        async with self._fetching:
            failed: SnapshotError | None = None
            unread: list[str] = []
            for snapshot in await self.candidates(wanted):
                try:
                    if snapshot.name in self._refused:  # what it holds does not change
                        raise self._refused[snapshot.name]
                    file = await self.fetch_one(snapshot)
                except (SnapshotDamagedError, ObjectMissingError) as error:
                    failed = failed or error
                    self.pass_over(snapshot, error)
                except SnapshotRoomError as error:
                    failed = failed or error
                    self._status.part("snapshots").waiting(f"{error}; an older one is tried")
                except SnapshotError as error:
                    failed = error
                    self._failures[snapshot.name] = self._failures.get(snapshot.name, 0) + 1
                    if self._failures[snapshot.name] < TRIES:
                        self._status.part("snapshots").waiting(f"{error}; it is tried again", error)
                        raise
                    unread.append(snapshot.name)
                else:
                    # the store is there after all: what can't be read of it for so long is no use
                    self.damaged |= set(unread)
                    self._failures.clear()
                    if not self.damaged:
                        self._status.part("snapshots").ok()
                    return snapshot, file
            if failed is not None:
                raise failed
            return None

    def pass_over(self, snapshot: Snapshot, error: SnapshotError) -> None:
        """Take note that ``snapshot`` is unusable; a refused one is not fetched again."""
        if isinstance(error, SnapshotRefusedError):
            self._refused[snapshot.name] = error
        if snapshot.name not in self.damaged:  # later on others may know more about the cause, and have said so
            why = f"{error}; an older one is tried, and a new one is due"
            part = self._status.part("snapshots")
            part.waiting(why)
            part.event(why, warning=True)
        self.damaged.add(snapshot.name)
        if isinstance(error, ObjectMissingError):
            self.missing.add(snapshot.name)

    async def check(self, snapshot: Snapshot) -> None:
        """Return whether the store has ``snapshot``, by its description; a newly configured store has not."""
        try:
            found = await self.catalog.description(snapshot.name)
            if self._signing is not None:
                self._signing.check(found)
        except (ObjectMissingError, SnapshotDamagedError) as error:
            self.pass_over(snapshot, error)

    async def fetch_one(self, snapshot: Snapshot, target: Path | None = None) -> Path:
        """Fetch one snapshot into the new file ``target`` (else one of the private folder); return the file.

        Raises SnapshotDamagedError, SnapshotRefusedError, SnapshotRoomError, ObjectMissingError, SnapshotError.
        """
        mark = secrets.token_hex(4)
        packed = self._folder / f"incoming-{mark}.zst"
        plain = target.with_name(f".{target.name}.{mark}") if target else self._folder / f"incoming-{mark}.db"
        try:
            if self._signing is not None:
                self._signing.check(snapshot)
            must_fit(snapshot.name, snapshot.bytes + snapshot.size, self._folder)
            progress = self._progress(f"fetching {snapshot.name}")
            await fetch(self._store, snapshot.name, packed, snapshot.bytes, progress)
            with Deadline() as deadline:
                await asyncio.to_thread(unpack_checked, snapshot, packed, plain, deadline)
            if target is not None:
                await asyncio.to_thread(target.hardlink_to, plain)
        except OSError as error:
            raise SnapshotError(f"snapshot {snapshot.name} can't be written to {plain}: {error}") from error
        except SnapshotRefusedError as error:
            said = f"snapshot {snapshot.name} is refused: {error.message}"
            raise SnapshotRefusedError(said, advice=error.advice) from error
        finally:
            self._status.progress = None
            packed.unlink(missing_ok=True)
            if target is not None:
                plain.unlink(missing_ok=True)
        self._status.counters.snapshots_restored += 1
        return target or plain


PASSING = (DatabaseError, SnapshotError, StreamError)
"""What may be over at the next try."""
