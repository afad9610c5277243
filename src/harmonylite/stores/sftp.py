"""Snapshots on an SFTP server.

Invariant: an object appears under its name by a rename of an upload that is whole and, where the server can, on its
disk; and nothing is sent to a server with an unknown host key, least of all a password.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TypeVar

import asyncssh
from asyncssh import SFTPClient

from harmonylite.config.snapshot import SftpStoreSettings
from harmonylite.config.store_urls import sftp_place
from harmonylite.ports import Progress
from harmonylite.stores import blocking_call
from harmonylite.stores.failures import LISTING, Failures, deleting, reading, storing
from harmonylite.stores.host_keys import HostKeys
from harmonylite.stores.object_files import abandoned, file_name, object_names, to_disk, upload_name, whole_file
from harmonylite.stores.sftp_transfer import Beat, receive_file, send_file

T = TypeVar("T")

CONNECT_SECONDS = 15.0
"""Deadline of the connection, and of logging in."""

ALIVE_SECONDS = 15.0
"""How often a silent server is asked whether it lives; the third question without an answer ends the connection."""

CLEANUP_SECONDS = 5.0
"""Time for removing what a failed or cancelled upload left."""

_Moved = Callable[[int, int], None]
"""Takes the bytes so far and in all; moves the deadline on."""


class SftpStore:
    """Objects as files in a folder of the server. ``owner``: see `harmonylite.stores.open_store.open_store`."""

    def __init__(self, settings: SftpStoreSettings, *, owner: str) -> None:
        self._settings = settings
        self._place = place = sftp_place(settings.url.get_secret_value())
        self._owner = owner
        where = f"{place.host}:{place.port}" + (f":{place.folder}" if place.folder else "")
        self._failures = Failures(f"sftp {where}", [place.password, settings.key_passphrase.get_secret_value()])
        self._putting = asyncio.Lock()

    @property
    def place(self) -> str:
        """Where the objects are, in words for a person; see `Store.place`."""
        return self._failures.place

    async def put(self, name: str, source: Path, progress: Progress | None = None) -> None:
        """Store the file ``source``; see `Store.put`. The folder is made where it is missing."""
        async with self._putting:
            await self._do(storing(name), lambda sftp, moved: self._put(sftp, moved, name, source), progress)

    async def get(self, name: str, target: Path, progress: Progress | None = None) -> None:
        """Write object ``name`` to ``target``; see `Store.get`."""
        await self._do(reading(name), lambda sftp, moved: self._get(sftp, moved, name, target), progress)

    async def delete(self, name: str) -> None:
        """Delete object ``name``; see `Store.delete`."""
        await self._do(deleting(name), lambda sftp, _: _remove(sftp, self._path(file_name(name))))

    async def names(self) -> list[str]:
        """Return the names of all objects, sorted; raises SnapshotError. A missing folder has none."""
        return await self._do(LISTING, self._names)

    async def _do(
        self, doing: str, work: Callable[[SFTPClient, _Moved], Awaitable[T]], progress: Progress | None = None
    ) -> T:
        loop = asyncio.get_running_loop()
        limit = asyncio.timeout(blocking_call.STALLED_SECONDS)
        keys: HostKeys | None = None
        try:
            keys = await asyncio.to_thread(HostKeys, self._settings.known_hosts)
            async with limit:

                def moved(done: int, total: int) -> None:
                    limit.reschedule(loop.time() + blocking_call.STALLED_SECONDS)
                    if progress is not None:
                        progress(done, total)

                async with self._client(keys) as sftp:
                    return await work(sftp, moved)
        except asyncssh.HostKeyNotVerifiable as error:
            assert keys is not None
            why = keys.explained(self._place.host, self._place.port, error)
            raise self._failures.error(doing, *why) from None
        except TimeoutError:
            if limit.expired():
                raise self._failures.stalled(doing, blocking_call.STALLED_SECONDS) from None
            why = f"no answer within {CONNECT_SECONDS:g} s", "look at the server and the line to it"
            raise self._failures.error(doing, *why) from None
        except (asyncssh.Error, asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
            raise self._failures.error(doing, *_explained(error)) from None
        except OSError as error:
            raise self._failures.of_os(doing, error) from None

    @asynccontextmanager
    async def _client(self, keys: HostKeys) -> AsyncIterator[SFTPClient]:
        place, settings = self._place, self._settings
        # With a password or a key file nothing else is tried: some servers shut out anyone who knocks with many keys.
        own_keys: dict[str, object] = {}
        if settings.key_file is not None:
            own_keys = {"client_keys": [str(settings.key_file)], "agent_path": None}
        elif place.password:
            own_keys = {"client_keys": None, "agent_path": None}
        connection = await asyncssh.connect(
            place.host,
            place.port,
            username=place.user,
            password=place.password or None,
            config=None,
            passphrase=settings.key_passphrase.get_secret_value() or None,
            known_hosts=keys.known,
            client_factory=keys.client,
            connect_timeout=CONNECT_SECONDS,
            login_timeout=CONNECT_SECONDS,
            keepalive_interval=ALIVE_SECONDS,
            keepalive_count_max=3,
            **own_keys,
        )
        try:
            yield await connection.start_sftp_client()
        except BaseException:
            connection.abort()  # a polite goodbye would wait for an answer that may never come
            raise
        connection.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLEANUP_SECONDS):
                await connection.wait_closed()

    def _path(self, file: str) -> str:
        return f"{self._place.folder}/{file}" if self._place.folder else file

    async def _put(self, sftp: SFTPClient, moved: _Moved, name: str, source: Path) -> None:
        size = (await asyncio.to_thread(source.stat)).st_size
        await self._make_folder(sftp)
        for left in abandoned(self._owner, await _files(sftp, self._place.folder)):
            await _remove(sftp, self._path(left))
        part = self._path(upload_name(self._owner))
        try:
            try:
                await _upload(sftp, source, part, lambda done: moved(done, size))
                stored = await sftp.getsize(part)
            except asyncssh.SFTPFailure as error:
                raise self._failures.error(storing(name), *await self._failure(sftp, error)) from None
            if stored != size:
                raise self._failures.error(storing(name), f"{stored} bytes arrived of {size}")
            await _rename(sftp, part, self._path(file_name(name)))
        except BaseException:
            # Shielded: also a cancelled upload should leave nothing. The next put of this node tries it again.
            await asyncio.shield(self._clean_up(sftp, part))
            raise

    async def _get(self, sftp: SFTPClient, moved: _Moved, name: str, target: Path) -> None:
        source = self._path(file_name(name))
        try:
            total = await sftp.getsize(source) or 0
        except asyncssh.SFTPNoSuchFile:
            raise self._failures.missing(name) from None
        with whole_file(target) as part, part.open("xb") as file:
            remote = await sftp.open(source, "rb", block_size=0)
            done = await receive_file(remote, file, total, lambda done: moved(done, total))
            if done != total:
                raise self._failures.error(reading(name), f"{done} bytes arrived of {total}")
            await asyncio.to_thread(to_disk, file)

    async def _names(self, sftp: SFTPClient, _moved: _Moved) -> list[str]:
        try:
            return object_names(await _files(sftp, self._place.folder))
        except asyncssh.SFTPNoSuchFile:
            return []

    async def _make_folder(self, sftp: SFTPClient) -> None:
        if self._place.folder and not await sftp.isdir(self._place.folder):
            await sftp.makedirs(self._place.folder, exist_ok=True)

    async def _failure(self, sftp: SFTPClient, error: asyncssh.SFTPFailure) -> tuple[str, str]:
        """Return why the server failed: when its disk is full, it only says "Failure"."""
        why = f"the server says: {error.reason}"
        with suppress(asyncssh.Error, OSError):
            free = await sftp.statvfs(self._place.folder or ".")
            room = free.bavail * free.frsize
            return f"{why}; {room} bytes are free there", "make room, or let fewer snapshots stay (snapshot.keep)"
        return why, "look into the server's log: its disk or a quota may be full"

    async def _clean_up(self, sftp: SFTPClient, part: str) -> None:
        with suppress(asyncssh.Error, OSError, TimeoutError):
            async with asyncio.timeout(CLEANUP_SECONDS):
                await _remove(sftp, part)


async def _files(sftp: SFTPClient, folder: str) -> list[str]:
    return [str(each) for each in await sftp.listdir(folder or ".")]


async def _remove(sftp: SFTPClient, path: str) -> None:
    with suppress(asyncssh.SFTPNoSuchFile):
        await sftp.remove(path)


async def _upload(sftp: SFTPClient, source: Path, part: str, heartbeat: Beat) -> None:
    """Write ``source`` to the new file ``part``, on the server's disk where it can."""
    with source.open("rb") as file:
        remote = await sftp.open(part, "wb", block_size=0)
        await send_file(file, remote, heartbeat)
        with suppress(asyncssh.SFTPOpUnsupported):
            await remote.fsync()
        await remote.close()


async def _rename(sftp: SFTPClient, part: str, path: str) -> None:
    try:
        await sftp.posix_rename(part, path)
    except asyncssh.SFTPOpUnsupported:
        # Plain SFTP refuses to rename onto a file; between these two steps there is no object, and never half of one.
        await _remove(sftp, path)
        await sftp.rename(part, path)


def _explained(error: Exception) -> tuple[str, str]:
    """Return why the server or the library refused, and what to do, "" when nothing is known."""
    match error:
        case asyncssh.PermissionDenied():
            return f"the login is refused: {error.reason}", "correct name, password or key_file in [snapshot.sftp]"
        case asyncssh.KeyEncryptionError() | asyncssh.KeyImportError():
            return f"the key file can't be used: {error}", "correct snapshot.sftp.key_file and key_passphrase"
        case asyncssh.SFTPPermissionDenied():
            return f"the server says: {error.reason}", "let this user read and write in that folder"
        case asyncssh.SFTPNoSpaceOnFilesystem() | asyncssh.SFTPQuotaExceeded():
            return f"the server says: {error.reason}", "make room, or let fewer snapshots stay (snapshot.keep)"
        case asyncssh.SFTPNoSuchFile() | asyncssh.SFTPNoSuchPath() | asyncssh.SFTPNotADirectory():
            return f"the server says: {error.reason}", "correct the folder in snapshot.sftp.url"
        case asyncssh.SFTPError():
            return f"the server says: {error.reason}", ""
        case asyncssh.Error():
            return error.reason, "look at the server and the line to it"
    return str(error) or type(error).__name__, "look at the server and the line to it"
