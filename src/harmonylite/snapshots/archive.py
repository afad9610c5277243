"""A snapshot as a file: zstd over the SQLite file, in a stream of bounded memory, with its SHA-256 known.

Invariant: what `unpack` returns has the digest and the size that were asked for; anything else is an error and leaves
no file. A fetched file is never larger than its description says, and never fills the disk. Both files are this user's
alone.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from pathlib import Path

from harmonylite.db.sqlite.deadline import Deadline
from harmonylite.db.sqlite.file_access import make_private
from harmonylite.db.untrusted_snapshot import inspect_file
from harmonylite.errors import SnapshotDamagedError, SnapshotRefusedError, SnapshotRoomError
from harmonylite.ports import Progress, Store
from harmonylite.snapshots.manifest import Snapshot, is_at

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

CHUNK = 1 << 20
LEVEL = 1
"""zstd's level: a snapshot must be ready soon, and higher levels make it little smaller."""
MARGIN_BYTES, MARGIN_PART = 64 << 20, 0.05
"""What a snapshot leaves free on the disk: this many bytes, or this share of a small disk."""
CHECK_BYTES = 32 << 20
"""Bytes that are written between two checks of the disk's free space."""


def pack(source: Path, target: Path) -> str:
    """Compress ``source`` into ``target``; return the SHA-256 of the uncompressed bytes as hexadecimal text."""
    digest = hashlib.sha256()
    make_private(target)
    with source.open("rb") as plain, zstd.open(target, "wb", level=LEVEL) as packed:
        while chunk := plain.read(CHUNK):
            digest.update(chunk)
            packed.write(chunk)
    return digest.hexdigest()


def unpack(source: Path, target: Path, digest: str, size: int = 0, deadline: Deadline | None = None) -> None:
    """Decompress ``source`` into ``target``, which has ``size`` bytes (0: unknown) and the SHA-256 ``digest``.

    Raises SnapshotDamagedError when it is cut off, damaged or another one, SnapshotRefusedError as soon as it is
    larger, SnapshotRoomError before it takes the disk's last room, OverdueError. Then there is no file.
    """
    deadline = deadline or Deadline()
    found = hashlib.sha256()
    done = 0
    must_fit(source.name, size, target.parent)
    make_private(target)
    try:
        with zstd.open(source, "rb") as packed, target.open("wb") as plain:
            while chunk := packed.read(CHUNK):
                deadline.check()
                done += len(chunk)
                if size and done > size:
                    raise SnapshotRefusedError(f"it unpacks to more than the {size} bytes that its description names")
                if done // CHECK_BYTES != (done - len(chunk)) // CHECK_BYTES:
                    must_fit(source.name, 0, target.parent)
                found.update(chunk)
                plain.write(chunk)
        if found.hexdigest() != digest:
            raise SnapshotDamagedError(f"{source.name} is not the one that was saved: its digest differs")
        if size and done != size:
            raise SnapshotRefusedError(f"it has {done} bytes, and its description names {size}")
    except (zstd.ZstdError, EOFError) as error:
        target.unlink(missing_ok=True)
        raise SnapshotDamagedError(f"the snapshot {source.name} is damaged: {error}") from error
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def unpack_checked(snapshot: Snapshot, source: Path, target: Path, deadline: Deadline) -> None:
    """Unpack the ``snapshot`` in ``source`` into ``target``, and check it; see `unpack`.

    Raises SnapshotRefusedError if ``target`` is no mirror, or not the one in the description.
    """
    unpack(source, target, snapshot.sha256, snapshot.size, deadline)
    try:
        if not is_at(snapshot, inspect_file(target, deadline)):
            raise SnapshotRefusedError("its positions are not those of its description")
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def must_fit(name: str, size: int, folder: Path) -> None:
    """Raise SnapshotRoomError where ``size`` more bytes don't leave the disk of ``folder`` its margin."""
    disk = os.statvfs(folder)
    free, margin = disk.f_bavail * disk.f_frsize, int(min(MARGIN_BYTES, disk.f_blocks * disk.f_frsize * MARGIN_PART))
    if size > free - margin:
        raise SnapshotRoomError(
            f"{folder} has no room for {name}: it takes {size} bytes, and {free} are free, of which {margin} stay free",
            advice="make room on that disk",
        )


async def fetch(store: Store, name: str, target: Path, most: int, progress: Progress | None = None) -> None:
    """Write object ``name`` to ``target``, unless it is larger than ``most`` bytes, or takes the disk's last room.

    Raises SnapshotRefusedError, SnapshotRoomError, and what the store does; then there is no file.
    """
    getting: asyncio.Task[None]
    stopped: list[SnapshotRefusedError | SnapshotRoomError] = []
    checked = 0

    def moved(done: int, total: int) -> None:
        nonlocal checked
        if progress is not None:
            progress(done, total)
        try:
            if done > most:
                raise SnapshotRefusedError(f"it is larger than the {most} bytes that it may have")
            if done - checked >= CHECK_BYTES:
                checked = done
                must_fit(name, 0, target.parent)
        except (SnapshotRefusedError, SnapshotRoomError) as error:
            stopped.append(error)
            getting.cancel()

    getting = asyncio.create_task(store.get(name, target, moved), name=f"fetch {name}")
    try:
        await getting
    except asyncio.CancelledError:
        if not stopped or (me := asyncio.current_task()) is None or me.cancelling():
            raise
    if not stopped and await asyncio.to_thread(os.path.getsize, target) > most:  # a store may report nothing meanwhile
        stopped.append(SnapshotRefusedError(f"it is larger than the {most} bytes that it may have"))
    if stopped:
        await asyncio.to_thread(target.unlink, missing_ok=True)
        raise stopped[0]
