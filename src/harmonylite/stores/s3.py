"""Snapshots in an S3 bucket, Amazon's or any other service's that speaks its language.

Invariant: an object is there whole or not at all: S3 shows one only when all of it has arrived. Memory stays bounded by
a few parts. obstore blocks here, in threads of its own; see `harmonylite.stores.blocking_call` for why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import obstore
from obstore.exceptions import BaseError

from harmonylite.config.snapshot import S3StoreSettings
from harmonylite.errors import SnapshotError
from harmonylite.ports import Progress
from harmonylite.stores.blocking_call import BlockingCall, StalledError, send
from harmonylite.stores.download import to_disk, whole_file
from harmonylite.stores.failures import LISTING, Failures, deleting, reading, storing
from harmonylite.stores.names import file_name, object_names
from harmonylite.stores.s3_bucket import bucket, secrets_of
from harmonylite.stores.s3_failures import explained

T = TypeVar("T")

PART = 8 * 1024 * 1024
"""Bytes of one part, and the largest object that is sent in one piece."""

MOST_PARTS = 9_000
"""S3 takes 10,000 parts; very large objects get larger parts."""

PARTS_AT_ONCE = 3
"""Parts on their way at once; memory is this many parts and one."""

CHUNK = 1024 * 1024
"""Bytes of one step of a download."""

RETRY_SECONDS = timedelta(seconds=30)
"""How long one request is tried again when the service is out of reach or overloaded."""


class S3Store:
    """Objects in a bucket, below ``path``."""

    def __init__(self, settings: S3StoreSettings) -> None:
        self._failures = Failures(f"the S3 bucket {settings.bucket!r}", secrets_of(settings))
        self._bucket = bucket(settings, retry=RETRY_SECONDS)

    @property
    def place(self) -> str:
        """Where the objects are, in words for a person; see `Store.place`."""
        return self._failures.place

    async def put(self, name: str, source: Path, progress: Progress | None = None) -> None:
        """Store the file ``source``; see `Store.put`. What a cut upload sent stays invisible; see docs/stores.md."""
        await self._do(storing(name), lambda call: self._put(call, name, source), progress)

    async def get(self, name: str, target: Path, progress: Progress | None = None) -> None:
        """Write object ``name`` to ``target``; see `Store.get`."""
        await self._do(reading(name), lambda call: self._get(call, name, target), progress)

    async def delete(self, name: str) -> None:
        """Delete object ``name``; see `Store.delete`."""
        await self._do(deleting(name), lambda _: self._delete(name))

    async def names(self) -> list[str]:
        """Return the names of all objects, sorted; raises SnapshotError."""
        return await self._do(LISTING, lambda _: self._names())

    async def _do(self, doing: str, work: Callable[[BlockingCall], T], progress: Progress | None = None) -> T:
        try:
            return await send(work, progress)
        except StalledError as error:
            raise self._failures.stalled(doing, error.seconds) from None
        except BaseError as error:
            # Without the cause: the service's own words may repeat a session token.
            raise self._failures.error(doing, *explained(str(error))) from None
        except OSError as error:
            if not isinstance(error, FileNotFoundError) or error.filename is not None:
                raise self._failures.of_os(doing, error) from error
            raise self._failures.error(doing, *explained(str(error))) from None

    def _put(self, call: BlockingCall, name: str, source: Path) -> None:
        with source.open("rb") as file:
            size = source.stat().st_size
            if size <= PART:
                obstore.put(self._bucket, file_name(name), file.read(PART), use_multipart=False)
                call.moved(size, size)
            else:
                part = max(PART, -(-size // MOST_PARTS))
                obstore.put(
                    self._bucket,
                    file_name(name),
                    _parts(call, source, size, part),
                    use_multipart=True,
                    chunk_size=part,
                    max_concurrency=PARTS_AT_ONCE,
                )

    def _get(self, call: BlockingCall, name: str, target: Path) -> None:
        with whole_file(target) as part, part.open("xb") as file:
            try:
                found = obstore.get(self._bucket, file_name(name))
            except FileNotFoundError as error:
                if "NoSuchBucket" in str(error):
                    raise
                raise self._failures.missing(name) from None
            total, done = found.meta["size"], 0
            for chunk in found.stream(min_chunk_size=CHUNK):
                file.write(chunk)
                done += len(chunk)
                call.moved(len(chunk), total)
            if done != total:
                raise self._failures.error(reading(name), f"{done} bytes arrived of {total}")
            to_disk(file)
            call.check()

    def _delete(self, name: str) -> None:
        try:
            obstore.delete(self._bucket, file_name(name))
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error):
                raise

    def _names(self) -> list[str]:
        return object_names([each["path"] for batch in obstore.list(self._bucket) for each in batch])


def _parts(call: BlockingCall, source: Path, size: int, part: int) -> Iterator[bytes]:
    """Read ``source`` in parts; an error in here ends the upload without an object."""
    done = 0
    with source.open("rb") as file:
        while data := file.read(part):
            done += len(data)
            call.moved(len(data), size)
            yield data
    if done != size:
        raise SnapshotError(f"{source} changed while it was read: {done} bytes where there were {size}")
    call.check()
