"""Snapshots on a WebDAV server.

Invariant: an object appears under its name by a MOVE of an upload whose size the server has confirmed. The library
blocks, so it runs in threads of its own; see `harmonylite.stores.blocking_call`.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import httpx
from webdav4.client import Client, ClientError, HTTPError, InsufficientStorage, ResourceAlreadyExists, ResourceNotFound
from webdav4.multistatus import MultiStatusResponseError

from harmonylite.config.snapshot import WebdavStoreSettings
from harmonylite.config.store_urls import webdav_place
from harmonylite.errors import ConfigError
from harmonylite.ports import Progress
from harmonylite.stores.blocking_call import BlockingCall, GivenUpError, StalledError, send
from harmonylite.stores.failures import LISTING, Failures, deleting, reading, storing
from harmonylite.stores.object_files import abandoned, file_name, object_names, to_disk, upload_name, whole_file
from harmonylite.stores.webdav_login import Login

T = TypeVar("T")

CHUNK = 1024 * 1024
"""Bytes of one step."""

TIMES = httpx.Timeout(connect=10.0, read=60.0, write=60.0, pool=10.0)
"""Seconds for each step of a request."""

LATER = (0.0, 0.2, 1.0, 5.0, 20.0)
"""Seconds before each try to remove an upload that was given up, until the server knows of it."""

_ADVICE = {
    401: "correct login and secret in snapshot.webdav.url",
    403: "let this login read and write in that folder",
    404: "correct snapshot.webdav.url: its path must lead to the server's WebDAV tree",
    405: "correct snapshot.webdav.url: its path must lead to the server's WebDAV tree",
    409: "correct snapshot.webdav.url: its path must lead to the server's WebDAV tree",
    413: "let the server take larger files (nginx: client_max_body_size)",
    507: "make room there, or let fewer snapshots stay (snapshot.keep)",
}


class WebdavStore:
    """Objects as files in a folder of the server. ``owner``: see `harmonylite.stores.open_store.open_store`."""

    def __init__(self, settings: WebdavStoreSettings, *, owner: str) -> None:
        self._place = place = webdav_place(settings.url.get_secret_value())
        self._folder = place.folder
        self._verify = _trust(settings.ca_file)
        self._owner = owner
        self._failures = Failures(f"{place.root}{place.folder}", [place.secret])
        self._putting = asyncio.Lock()

    @property
    def place(self) -> str:
        """Where the objects are, in words for a person; see `Store.place`."""
        return self._failures.place

    async def put(self, name: str, source: Path, progress: Progress | None = None) -> None:
        """Store the file ``source``; see `Store.put`. The folder is made where it is missing."""
        async with self._putting:
            await self._do(storing(name), lambda dav, call: self._put(dav, call, name, source), progress)

    async def get(self, name: str, target: Path, progress: Progress | None = None) -> None:
        """Write object ``name`` to ``target``; see `Store.get`."""
        await self._do(reading(name), lambda dav, call: self._get(dav, call, name, target), progress)

    async def delete(self, name: str) -> None:
        """Delete object ``name``; see `Store.delete`."""
        await self._do(deleting(name), lambda dav, _: self._remove(dav, file_name(name)))

    async def names(self) -> list[str]:
        """Return the names of all objects, sorted; raises SnapshotError. A missing folder has none."""
        return await self._do(LISTING, lambda dav, _: object_names(self._files(dav)))

    async def _do(self, doing: str, work: Callable[[Client, BlockingCall], T], progress: Progress | None = None) -> T:
        def with_client(call: BlockingCall) -> T:
            with self._client() as dav:
                return work(dav, call)

        try:
            return await send(with_client, progress)
        except StalledError as error:
            raise self._failures.stalled(doing, error.seconds) from None
        except (ClientError, httpx.HTTPError, httpx.InvalidURL, MultiStatusResponseError) as error:
            raise self._failures.error(doing, *_explained(error)) from None
        except OSError as error:
            raise self._failures.of_os(doing, error) from error

    @contextmanager
    def _client(self) -> Iterator[Client]:
        place = self._place
        secure = place.root.startswith("https:")
        auth = Login(place.login, place.secret, plainly=secure) if place.login else None
        dav = Client(place.root, auth=auth, timeout=TIMES, verify=self._verify, chunk_size=CHUNK)
        try:
            yield dav
        finally:
            dav.http.close()

    def _path(self, file: str) -> str:
        return f"{self._folder}/{file}".lstrip("/")

    def _put(self, dav: Client, call: BlockingCall, name: str, source: Path) -> None:
        self._make_folder(dav)
        for left in abandoned(self._owner, self._files(dav)):
            self._remove(dav, left)
        part = self._path(upload_name(self._owner))
        try:
            with source.open("rb") as file:
                size = source.stat().st_size
                dav.upload_fileobj(
                    file,
                    part,
                    overwrite=True,
                    size=size,
                    chunk_size=CHUNK,
                    callback=lambda count: call.moved(count, size),
                )
            stored = dav.content_length(part)
            if stored is not None and stored != size:
                raise self._failures.error(storing(name), f"{stored} bytes arrived of {size}")
            call.check()
            dav.move(part, self._path(file_name(name)), overwrite=True)
        except BaseException as error:
            self._take_back(dav, part, patiently=isinstance(error, GivenUpError))
            raise

    @staticmethod
    def _take_back(dav: Client, part: str, *, patiently: bool) -> None:
        """Remove an upload that was broken off; what can't be removed now the next put removes.

        ``patiently``: no caller waits. Then the server may come to the upload only after it was asked to remove it.
        """
        for pause in LATER if patiently else (0.0,):
            time.sleep(pause)
            try:
                dav.remove(part)
            except ResourceNotFound:
                continue
            except (ClientError, httpx.HTTPError):
                pass  # what broke the upload may break this, too
            return

    def _get(self, dav: Client, call: BlockingCall, name: str, target: Path) -> None:
        with whole_file(target) as part, part.open("xb") as file:
            done = 0
            try:
                with dav.open(self._path(file_name(name)), mode="rb", chunk_size=CHUNK) as found:
                    total = found.size
                    while data := found.read(CHUNK):
                        file.write(data)
                        done += len(data)
                        call.moved(len(data), total or done)
            except ResourceNotFound:
                raise self._failures.missing(name) from None
            if total is not None and done != total:
                raise self._failures.error(reading(name), f"{done} bytes arrived of {total}")
            to_disk(file)
            call.check()

    def _remove(self, dav: Client, file: str) -> None:
        with suppress(ResourceNotFound):
            dav.remove(self._path(file))

    def _files(self, dav: Client) -> list[str]:
        try:
            found = dav.ls(self._folder, detail=True)
        except ResourceNotFound:
            if not dav.exists(""):
                raise
            return []
        return [str(each["name"]).rpartition("/")[2] for each in found if each["type"] == "file"]

    def _make_folder(self, dav: Client) -> None:
        if not self._folder or dav.exists(self._folder):
            return
        pieces = self._folder.split("/")
        for end in range(1, len(pieces) + 1):
            if not dav.exists(above := "/".join(pieces[:end])):
                with suppress(ResourceAlreadyExists):  # another node was faster
                    dav.mkdir(above)


def _trust(ca_file: Path | None) -> ssl.SSLContext:
    """Return whom to trust; made once, for reading the usual authorities takes longer than a request."""
    if ca_file is None:
        return httpx.create_ssl_context()
    try:
        return ssl.create_default_context(cafile=str(ca_file))
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"snapshot.webdav.ca_file {ca_file} can't be read: {error.strerror or error}") from None


def _explained(error: Exception) -> tuple[str, str]:
    """Return why a request failed, and what to do, "" when nothing is known."""
    match error:
        case InsufficientStorage():
            return "the server says that it is full", _ADVICE[507]
        case ResourceNotFound():
            return "the server answers 404 Not Found", _ADVICE[404]
        case HTTPError():
            return f"the server answers {error.status_code}", _ADVICE.get(error.status_code, "")
        case ClientError():
            return error.msg, ""
        case httpx.TimeoutException():
            return "no answer in time", "look at the server and the line to it"
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return f"its certificate is not trusted: {error}", "name the authority's file in snapshot.webdav.ca_file"
    return str(error) or type(error).__name__, "look at the server and the line to it"
