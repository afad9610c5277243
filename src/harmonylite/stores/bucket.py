"""Snapshots in a bucket of an object store that obstore knows: S3, Azure Blob Storage.

Invariant: an object is there whole or not at all: the service shows one only when all of it has arrived. Memory stays
bounded by a few parts. obstore blocks here, in threads of its own; see `harmonylite.stores.blocking_call` for why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import obstore
from obstore.exceptions import BaseError

from harmonylite.errors import ConfigError, SnapshotError
from harmonylite.ports import Progress
from harmonylite.stores.blocking_call import BlockingCall, StalledError, send
from harmonylite.stores.bucket_failures import Advice, explained
from harmonylite.stores.failures import LISTING, Failures, deleting, reading, storing
from harmonylite.stores.object_files import file_name, object_names, to_disk, whole_file

if TYPE_CHECKING:
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

T = TypeVar("T")

PART = 8 * 1024 * 1024
"""Bytes of one part, and the largest object that is sent in one piece."""

MOST_PARTS = 9_000
"""S3 takes 10,000 parts, Azure 50,000; very large objects get larger parts."""

PARTS_AT_ONCE = 3
"""Parts in transfer at once; memory is this many parts and one."""

CHUNK = 1024 * 1024
"""Bytes of one step of a download."""

RETRIES = 4
"""Tries after the first one, at growing intervals."""

FIRST_WAIT, LONGEST_WAIT = timedelta(milliseconds=100), timedelta(seconds=5)
"""Between one try and the next."""

RETRY_SECONDS = timedelta(seconds=30)
"""How long one request is retried when the service is out of reach or overloaded."""

REQUEST_TIME = timedelta(hours=6)
"""Deadline of one request, a whole download included; what stalls is noticed by `harmonylite.stores.blocking_call`."""

CONNECT_TIME = timedelta(seconds=10)


def client_options(*, plain: bool, ca_file: Path | None, what: str) -> ClientConfig:
    """Return how requests are made. ``plain``: http is allowed; ``what``: the section. Raises ConfigError."""
    client: ClientConfig = {
        "allow_http": plain,
        "timeout": REQUEST_TIME,
        "connect_timeout": CONNECT_TIME,
        "user_agent": "harmonylite",
    }
    if ca_file is not None:
        try:
            client["root_certificate"] = ca_file.read_bytes()
        except OSError as error:
            raise ConfigError(f"{what}.ca_file {ca_file} can't be read: {error.strerror}") from None
    return client


def retries(seconds: timedelta = RETRY_SECONDS) -> RetryConfig:
    """Return how often a request is tried, and for how long."""
    return {
        "max_retries": RETRIES,
        "retry_timeout": seconds,
        "backoff": {"init_backoff": FIRST_WAIT, "max_backoff": LONGEST_WAIT, "base": 2},
    }


class BucketStore:
    """Objects in ``bucket``. ``advice``: what the service's errors mean; ``failures``: how this store's are called."""

    def __init__(self, bucket: ObjectStore, failures: Failures, advice: Advice) -> None:
        self._bucket = bucket
        self._failures = failures
        self._advice = advice

    @property
    def place(self) -> str:
        """Where the objects are, in words for a person; see `Store.place`."""
        return self._failures.place

    async def put(self, name: str, source: Path, progress: Progress | None = None) -> None:
        """Store the file ``source``; see `Store.put`. A partial upload stays invisible; see docs/stores.md."""
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
            raise self._failures.error(doing, *explained(str(error), self._advice)) from None
        except OSError as error:
            if not isinstance(error, FileNotFoundError) or error.filename is not None:
                raise self._failures.of_os(doing, error) from error
            raise self._failures.error(doing, *explained(str(error), self._advice)) from None

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
                if self._bucket_missing(error):
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
            if self._bucket_missing(error):
                raise

    def _bucket_missing(self, error: FileNotFoundError) -> bool:
        return any(code in str(error) for code in self._advice.no_bucket)

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
