"""Snapshots in a directory, for example on a network file system.

Invariant: an object appears under its name by a rename of a file that is whole and on disk, and is for no user to read
but the node's user's and, where the directory is open to its group, that group's. The directory is never made here:
where a mount is missing, nothing must be written into the mount point.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from harmonylite.errors import SnapshotError
from harmonylite.ports import Progress
from harmonylite.stores.blocking_call import BlockingCall, StalledError, send
from harmonylite.stores.failures import LISTING, Failures, deleting, reading, storing
from harmonylite.stores.object_files import abandoned, file_name, object_names, to_disk, upload_name, whole_file

T = TypeVar("T")

CHUNK = 1024 * 1024
"""Bytes read and written in one step."""


class DirectoryStore:
    """Objects as files in ``folder``. ``owner``: see `harmonylite.stores.open_store.open_store`."""

    def __init__(self, folder: Path, *, owner: str) -> None:
        self._folder = folder
        self._owner = owner
        self._failures = Failures(f"the directory {folder}")
        self._putting = asyncio.Lock()

    @property
    def place(self) -> str:
        """Where the objects are, in words for a person; see `Store.place`."""
        return self._failures.place

    async def put(self, name: str, source: Path, progress: Progress | None = None) -> None:
        """Store the file ``source``; see `Store.put`."""
        async with self._putting:
            await self._do(storing(name), lambda call: self._put(call, name, source), progress)

    async def get(self, name: str, target: Path, progress: Progress | None = None) -> None:
        """Write object ``name`` to ``target``; see `Store.get`."""
        await self._do(reading(name), lambda call: self._get(call, name, target), progress)

    async def delete(self, name: str) -> None:
        """Delete object ``name``; see `Store.delete`."""
        await self._do(deleting(name), lambda _: self._delete(name))

    async def names(self) -> list[str]:
        """Return the names of all objects, sorted; raises SnapshotError."""
        return await self._do(LISTING, lambda _: object_names(self._files()))

    async def _do(self, doing: str, work: Callable[[BlockingCall], T], progress: Progress | None = None) -> T:
        def checked(call: BlockingCall) -> T:
            if not self._folder.is_dir():
                raise self._failures.error(doing, "it is not there", "mount or make it, or correct snapshot.file.path")
            return work(call)

        try:
            return await send(checked, progress)
        except StalledError as error:
            raise self._failures.stalled(doing, error.seconds) from None
        except OSError as error:
            raise self._failures.of_os(doing, error) from error

    def _put(self, call: BlockingCall, name: str, source: Path) -> None:
        for left in abandoned(self._owner, self._files()):
            (self._folder / left).unlink(missing_ok=True)
        part = self._folder / upload_name(self._owner)
        try:
            copy_file(call, source, part, mode=0o600 | (self._folder.stat().st_mode & 0o040))
            call.check()
            part.replace(self._folder / file_name(name))
        finally:
            part.unlink(missing_ok=True)
        sync_folder(self._folder)

    def _get(self, call: BlockingCall, name: str, target: Path) -> None:
        source = self._folder / file_name(name)
        with whole_file(target) as part:
            try:
                copy_file(call, source, part)
            except FileNotFoundError as error:
                if error.filename != str(source):
                    raise
                raise self._failures.missing(name) from None
            call.check()

    def _files(self) -> list[str]:
        return [path.name for path in self._folder.iterdir()]

    def _delete(self, name: str) -> None:
        (self._folder / file_name(name)).unlink(missing_ok=True)


def copy_file(call: BlockingCall, source: Path, target: Path, *, mode: int = 0o600) -> None:
    """Copy ``source`` to the new file ``target`` of ``mode``, less the umask; it is on disk when this returns.

    Raises OSError, GivenUpError, and SnapshotError when ``source`` changes meanwhile.
    """
    handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with source.open("rb") as read, os.fdopen(handle, "wb") as write:
        total, done = os.fstat(read.fileno()).st_size, 0
        while data := read.read(CHUNK):
            write.write(data)
            done += len(data)
            call.moved(len(data), total)
        to_disk(write)
    if done != total:
        raise SnapshotError(f"{source} changed while it was read: {done} bytes where there were {total}")


def sync_folder(folder: Path) -> None:
    """Have renames in ``folder`` on disk, where the file system knows how."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError:
        return  # some network file systems refuse it for directories; the rename itself is done
    finally:
        os.close(handle)
