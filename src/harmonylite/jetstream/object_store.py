"""Files in the NATS object store, with its own layout: `harmonylite.ports.Objects`.

Invariant: an object exists whole or not at all (its description is stored last), and a file that `get` wrote has the
size and digest of the one that `put` read. Memory is bounded by a few chunks; a thread does the disk work.

Layout: https://github.com/nats-io/nats-architecture-and-design, ADR-20, so ``nats object get`` reads it. The loops are
our own, because the client library's ``get`` never returns when chunks are missing, and both are several times slower.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
import os
import secrets
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

import msgspec
from msgspec import Meta

from harmonylite.backoff import Backoff, Retry
from harmonylite.errors import (
    ForeignError,
    NotAcknowledgedError,
    ObjectMissingError,
    SnapshotDamagedError,
    SnapshotError,
    StreamError,
    StreamLostError,
)
from harmonylite.foreign import Codec, Seq
from harmonylite.jetstream.api import STREAM_NOT_FOUND
from harmonylite.jetstream.buckets import Bucket, bucket_name
from harmonylite.jetstream.key_value import KeyValue
from harmonylite.jetstream.pull_consumer import PullConsumer, PullEndedError
from harmonylite.jetstream.settings import StreamSettings
from harmonylite.nats.link import NatsLink
from harmonylite.ports import Progress

log = logging.getLogger(__name__)

CHUNK = 512 * 1024
"""Bytes per message, less where ``max_payload`` is small."""

WINDOW = 4
"""Chunks in flight to the server at once."""

TRIES = 4
TRY_AGAIN_SECONDS = 0.5
"""Seconds until a get retries whose consumer ended, for example because the bucket's leader moved."""

STALLED_SECONDS = 15.0
"""Seconds without a chunk, from a server that is alive, after which a get considers the object damaged."""


class Stored(msgspec.Struct):
    """The description of an object, as ``nats object`` also writes it. ``nuid``: a token of its chunks' subject."""

    name: str = ""
    nuid: Annotated[str, Meta(pattern=r"\A[0-9A-Za-z_-]{0,64}\Z")] = ""
    size: Seq = 0
    chunks: Annotated[int, Meta(ge=0, le=2**31)] = 0
    digest: Annotated[str, Meta(max_length=128)] = ""
    deleted: bool = False


CODEC = Codec("the description of an object", Stored)


class JetStreamObjects:
    """The object store and the pointers of one cluster.

    ``bucket``: the object store's name, "" = named after the streams; ``replicas``: how many servers keep the objects,
    0 = as many as keep the streams. An existing bucket keeps its number.
    """

    def __init__(self, link: NatsLink, settings: StreamSettings, *, bucket: str = "", replicas: int = 0) -> None:
        self.bucket = bucket or bucket_name(settings.stream_prefix, "snapshots")
        self._link = link
        self._before = f"$O.{self.bucket}"
        self._bucket = Bucket(
            link,
            settings,
            {
                "name": f"OBJ_{self.bucket}",
                "subjects": [f"{self._before}.C.>", f"{self._before}.M.>"],
                **({"num_replicas": replicas} if replicas else {}),
            },
        )
        self._pointers = KeyValue(link, settings)

    @property
    def place(self) -> str:
        """Where the objects are, in words for a person; see `Store.place`."""
        return f"the NATS object store {self.bucket}"

    async def put(self, name: str, source: Path, progress: Progress | None = None) -> None:
        """Store the file ``source``; see `Objects.put`. Cancelling leaves at worst unreferenced chunks."""
        nuid = secrets.token_hex(11)
        chunks = f"{self._before}.C.{nuid}"
        try:
            await self._bucket.ensure()
            before = await self._old(name)
            try:
                await self._describe(name, nuid, await self._send(chunks, source, progress))
            except BaseException:
                # Shielded: a cancelled put must not leave its chunks in the store either.
                await asyncio.shield(self._forget(chunks))
                raise
            if before is not None and before.nuid:
                await self._forget(f"{self._before}.C.{before.nuid}")
        except (StreamError, OSError) as error:
            raise SnapshotError(f"object {name!r} can't be stored from {source}: {error}") from error

    async def get(self, name: str, target: Path, progress: Progress | None = None) -> None:
        """Write object ``name`` to ``target``; see `Objects.get`. ``target`` is replaced whole or left unchanged."""
        part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
        try:
            meta = await self._meta(name)
            if meta is None:
                raise ObjectMissingError(f"object {name!r} is not in the NATS object store {self.bucket}")
            retry = Retry(log, f"reading object {name!r}", Backoff(first=TRY_AGAIN_SECONDS, most=10.0))
            for left in reversed(range(TRIES)):
                try:
                    await self._receive(name, meta, part, progress)
                    break
                except PullEndedError as error:
                    if not left:
                        raise
                    await asyncio.sleep(retry.failed(error, time.monotonic()))
            await asyncio.to_thread(part.replace, target)
        except (StreamError, OSError) as error:
            raise SnapshotError(f"object {name!r} can't be read into {target}: {error}") from error
        finally:
            await asyncio.shield(asyncio.to_thread(part.unlink, missing_ok=True))

    async def delete(self, name: str) -> None:
        """Delete object ``name``; see `Objects.delete`. Its description goes first: no reader finds half of it."""
        try:
            meta = await self._old(name)
            if meta is not None:
                await self._bucket.purge(self._meta_subject(name))
                if meta.nuid:
                    await self._bucket.purge(f"{self._before}.C.{meta.nuid}")
        except StreamError as error:
            raise SnapshotError(f"object {name!r} can't be deleted: {error}") from error

    async def names(self) -> list[str]:
        """Return the names of all objects, sorted; raises SnapshotError."""
        try:
            stream = self._bucket.stream
            state = await stream.api.call(f"STREAM.INFO.{stream.name}", {"subjects_filter": f"{self._before}.M.>"})
            subjects = (state.get("state") or {}).get("subjects") or {}
            found = [name for subject in subjects if (name := _unquoted(subject.rpartition(".")[2])) is not None]
            return sorted([name for name in found if await self._is_there(name)])
        except StreamError as error:
            if getattr(error, "code", 0) == STREAM_NOT_FOUND:
                return []
            raise SnapshotError(f"objects of {self.bucket} can't be listed: {error}") from error

    async def _count(self, subject: str) -> int:
        """Return how many chunks NATS has on ``subject``; raises StreamError."""
        stream = self._bucket.stream
        found = await stream.api.call(f"STREAM.INFO.{stream.name}", {"subjects_filter": subject})
        return int(((found.get("state") or {}).get("subjects") or {}).get(subject, 0))

    async def _must_have(self, name: str, meta: Stored) -> None:
        """Raise ObjectMissingError when the object was removed meanwhile, SnapshotDamagedError when it lacks chunks."""
        there = await self._count(f"{self._before}.C.{meta.nuid}")
        if there >= meta.chunks:
            return
        now = await self._meta(name)
        if now is None or now.nuid != meta.nuid:
            raise ObjectMissingError(f"object {name!r} was removed from {self.place} while it was read")
        raise SnapshotDamagedError(f"object {name!r}: {there} of {meta.chunks} chunks are there; NATS has lost others")

    async def _check(self, name: str, meta: Stored) -> None:
        """Do `_must_have` while no chunk arrives; a server that doesn't answer proves nothing about the object."""
        with suppress(StreamError):
            await self._must_have(name, meta)

    async def pointer(self, key: str) -> tuple[bytes, int] | None:
        """Return a pointer's value and revision; see `Objects.pointer`. Raises StreamError."""
        return await self._pointers.get(key)

    async def set_pointer(self, key: str, value: bytes, *, revision: int) -> bool:
        """Set a pointer if no other node was first; see `Objects.set_pointer`. Raises StreamError."""
        return await self._pointers.set(key, value, revision)

    def _meta_subject(self, name: str) -> str:
        return f"{self._before}.M.{base64.urlsafe_b64encode(name.encode()).decode()}"

    async def _old(self, name: str) -> Stored | None:
        """Return the description of an object to be deleted; if it can't be decoded, its chunks remain."""
        try:
            return await self._meta(name)
        except SnapshotDamagedError as error:
            log.warning("removing %(error)s", {"error": error.message})
            return Stored()

    async def _is_there(self, name: str) -> bool:
        """Return whether an object exists; one whose description can't be decoded does, though it is of no use."""
        try:
            return await self._meta(name) is not None
        except SnapshotDamagedError:
            return True

    async def _meta(self, name: str) -> Stored | None:
        try:
            message = await self._bucket.stream.last_on(self._meta_subject(name))
        except StreamLostError:
            return None
        if message is None:
            return None
        try:
            meta = CODEC.decode(message.payload, f"the description of object {name!r} in {self.bucket}")
        except ForeignError as error:
            raise SnapshotDamagedError(error.message) from None
        return None if meta.deleted else meta

    async def _send(self, subject: str, source: Path, progress: Progress | None) -> dict[str, Any]:
        """Publish the file in chunks, a few at a time; return its size, digest and number of chunks."""
        size = min(CHUNK, self._link.max_payload // 2)
        digest, total, count = hashlib.sha256(), 0, 0
        window: deque[asyncio.Task[int]] = deque()
        file = await _opened(source, "rb")
        try:
            whole = (await asyncio.to_thread(source.stat)).st_size
            while data := await asyncio.to_thread(_read, file, size, digest):
                total, count = total + len(data), count + 1
                # Tasks start in the order of their creation and one connection keeps it, so chunks are stored in order.
                window.append(asyncio.create_task(self._bucket.publish(subject, data)))
                if len(window) >= WINDOW:
                    await window.popleft()
                if progress is not None:
                    progress(total, max(whole, total))
            while window:
                await window.popleft()
        finally:
            try:
                for task in window:
                    task.cancel()
                await asyncio.gather(*window, return_exceptions=True)
            finally:
                file.close()  # no await: a task that is cancelled twice closes it, too
        return {
            "size": total,
            "chunks": count,
            "digest": _digest_text(digest.digest()),
            "options": {"max_chunk_size": size},
        }

    async def _describe(self, name: str, nuid: str, what: dict[str, Any]) -> None:
        meta = {"name": name, "bucket": self.bucket, "nuid": nuid, "mtime": datetime.now(UTC).isoformat(), **what}
        try:
            await self._bucket.publish(self._meta_subject(name), json.dumps(meta).encode(), {"Nats-Rollup": "sub"})
        except NotAcknowledgedError:
            found = await self._meta(name)
            if found is None or found.nuid != nuid:
                raise

    async def _forget(self, subject: str) -> None:
        try:
            await self._bucket.purge(subject)
        except StreamError as error:
            log.warning("left chunks on %(subject)s behind: %(error)s", {"subject": subject, "error": error.message})

    async def _receive(self, name: str, meta: Stored, part: Path, progress: Progress | None) -> None:
        digest, chunks, size = hashlib.sha256(), 0, 0
        file = await _opened(part, "wb")
        try:
            if meta.chunks:
                subject = f"{self._before}.C.{meta.nuid}"
                pull = PullConsumer(
                    self._link.now(), self._bucket.stream, 1, subject, quiet=lambda: self._check(name, meta)
                )
                try:
                    await pull.open()
                    if pull.pending < meta.chunks:  # this server may not have chunks yet that the leader has
                        await self._must_have(name, meta)
                    while chunks < meta.chunks:
                        async with asyncio.timeout(STALLED_SECONDS):
                            batch = [message.payload for message in await pull.take()]
                        chunks, size = chunks + len(batch), size + sum(map(len, batch))
                        await asyncio.to_thread(_write, file, batch, digest)
                        if progress is not None:
                            progress(size, max(meta.size, size))
                finally:
                    await pull.aclose()
            await asyncio.to_thread(_sync, file)
        except TimeoutError:
            await self._must_have(name, meta)
            raise SnapshotError(f"object {name!r}: {chunks} of {meta.chunks} chunks came") from None
        finally:
            file.close()
        # Some writers omit the padding.
        if (size, _digest_text(digest.digest()).rstrip("=")) != (meta.size, meta.digest.rstrip("=")):
            raise SnapshotDamagedError(
                f"object {name!r} is damaged: {size} of {meta.size} bytes, or another SHA-256 than what was stored",
                advice="delete it and save a new snapshot",
            )


async def _opened(path: Path, mode: Literal["rb", "wb"]) -> BinaryIO:
    """Open ``path``; a cancellation closes it again."""
    opening: asyncio.Task[BinaryIO] = asyncio.create_task(asyncio.to_thread(path.open, mode))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        (await opening).close()
        raise


def _read(file: BinaryIO, size: int, digest: Any) -> bytes:
    data = file.read(size)
    digest.update(data)
    return data


def _write(file: BinaryIO, batch: Sequence[bytes], digest: Any) -> None:
    for data in batch:
        digest.update(data)
        file.write(data)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _digest_text(digest: bytes) -> str:
    return f"SHA-256={base64.urlsafe_b64encode(digest).decode()}"


def _unquoted(subject_token: str) -> str | None:
    """Return the name of the object that a token means, None for a token that this program would not write."""
    bare = subject_token.rstrip("=")  # some writers omit the padding
    try:
        return base64.urlsafe_b64decode(bare + "=" * (-len(bare) % 4)).decode()
    except ValueError:
        return None
