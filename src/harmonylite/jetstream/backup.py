"""Move a stream from one NATS to another: messages, sequences, times and creation time stay the same.

Invariant: from `seal` to `release` a stream accepts no message, so the copy is complete; at no moment do two places
accept messages. Each chunk goes to the target at once, so memory and disk here don't grow with the stream.

Reference: backup and restore in JetStream's API, ADR-12 and ``nats stream backup``.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from nats.aio.msg import Msg

from harmonylite.backoff import Backoff, Retry
from harmonylite.errors import HarmonyLiteError, NotAcknowledgedError, StreamError, StreamLostError
from harmonylite.jetstream.api import ApiError, JetStream, answer
from harmonylite.jetstream.stream import PATIENT_SECONDS, Details, Stream
from harmonylite.nats.connection import Connection

log = logging.getLogger(__name__)

HELD = "harmonylite-held"
"""Metadata of a held stream, which accepts no messages: where its content was moved."""

STEP_SECONDS = 10.0
"""Deadline of one step at the target, which is repeated while the target elects a leader."""

AGAIN = 0.5
"""Seconds before a step is repeated."""

SETTLING = 0.05
"""Seconds before a chunk that no server took is sent again."""

STILL_IN_USE = 10130
"""JetStream's error for a restore under a name that exists; a cluster says so for a while after a deletion, too."""

CHUNK = 128 * 1024
"""Bytes per message of a backup."""

SECONDS = 60.0
"""How long the source may be silent, and the target may take for one chunk or to finish."""


class MovedError(StreamError):
    """The stream was moved to another NATS; this node's configuration still names the old one."""


@dataclass(frozen=True, slots=True)
class TransferredStream:
    """What was moved: the stream's name, its last sequence, its number of messages, and the bytes of its backup."""

    name: str
    last: int
    messages: int
    bytes: int


def check_not_sealed(name: str, config: Mapping[str, Any]) -> None:
    """Raise MovedError when the stream with this configuration is held: changes queue until it is released."""
    place = (config.get("metadata") or {}).get(HELD)
    if place is not None:
        raise MovedError(
            f"stream {name} was moved, or is being moved, to {place}",
            advice="start this node with the configuration of the new place, or run `harmonylite nats release` to stay",
        )


async def seal(stream: Stream, place: str) -> None:
    """Make ``stream`` refuse messages; ``place``: where its content goes, for the nodes' reports. Raises StreamError.

    The server refuses publishes with "message size exceeds maximum"; nodes treat that as a full stream.
    """
    config = dict((await stream.details()).config)
    config["metadata"] = {**(config.get("metadata") or {}), HELD: place}
    await stream.api.call(f"STREAM.UPDATE.{stream.name}", {**config, "max_msg_size": 1}, seconds=SECONDS)


async def release(stream: Stream) -> bool:
    """Make ``stream`` accept messages again; return whether it was held. Raises StreamError."""
    config = dict((await stream.details()).config)
    if HELD not in (config.get("metadata") or {}):
        return False
    await stream.api.call(f"STREAM.UPDATE.{stream.name}", unsealed(config), seconds=SECONDS)
    return True


def unsealed(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``config`` without the hold."""
    metadata = {key: text for key, text in (config.get("metadata") or {}).items() if key != HELD}
    return {**config, "metadata": metadata, "max_msg_size": -1}


async def transfer(
    stream: Stream, target: JetStream, replicas: int, progress: Callable[[int], None] = lambda _: None
) -> TransferredStream:
    """Make a copy of the held ``stream`` at ``target``, on ``replicas`` servers, and check that it is the same.

    ``progress``: called with the bytes sent so far. The copy accepts messages at once. Raises StreamError; a failure
    or a cancellation leaves nothing at the target.
    """
    before = await stream.details()
    copy = Stream(target, stream.name, stream.shard, seconds=PATIENT_SECONDS)
    await _make_room(copy, before)
    try:
        size = await _patiently(stream, before, target, replicas, progress)
        after = await copy.details()
        if (after.info.first, after.info.last, after.info.messages) != (
            before.info.first,
            before.info.last,
            before.info.messages,
        ):
            raise StreamError(
                f"the copy of stream {stream.name} holds messages {after.info.first} to {after.info.last},"
                f" not {before.info.first} to {before.info.last}"
            )
        if after.info.created != before.info.created:
            raise StreamError(f"the copy of stream {stream.name} lost its identity")
    except BaseException:
        await asyncio.shield(discard(copy))
        raise
    return TransferredStream(stream.name, after.info.last, after.info.messages, size)


def _wanted(before: Details, replicas: int) -> dict[str, Any]:
    # Nodes identify a stream by its creation time. A restored one has a new time, so its metadata holds the former.
    config = unsealed(before.config)
    return {**config, "metadata": {**config["metadata"], **before.role.metadata()}, "num_replicas": replicas}


async def _make_room(copy: Stream, before: Details) -> None:
    """Delete what an earlier move left at the target: a held copy of the same stream that ends no later than it."""
    try:
        there = await copy.details()
    except StreamLostError:
        return
    held = HELD in (there.config.get("metadata") or {})
    if not held or there.info.created != before.info.created or there.info.last > before.info.last:
        raise StreamError(
            f"stream {copy.name} exists at the target and is no older copy of this one",
            advice="delete it there when no node needs it, or set other prefixes",
        )
    # While the cluster elects, an answer to the deletion proves little: the stream is deleted when no server knows it.
    end = time.monotonic() + SECONDS
    retry = Retry(log, f"waiting until {copy.name} is deleted", Backoff(first=AGAIN, most=5.0), logging.DEBUG)
    while time.monotonic() < end:
        await discard(copy)
        try:
            await copy.details()
        except StreamLostError:
            return
        except StreamError as error:
            await asyncio.sleep(retry.failed(error, time.monotonic()))
        else:
            await asyncio.sleep(retry.backoff.failed(time.monotonic()))
    raise StreamError(f"the older copy of stream {copy.name} at the target can't be deleted")


async def discard(stream: Stream) -> None:
    """Delete what was copied; never raises, because it is called when something else failed."""
    try:
        await stream.api.call(f"STREAM.DELETE.{stream.name}", seconds=STEP_SECONDS)
    except HarmonyLiteError as error:
        log.debug("failed to delete stream %(stream)s: %(error)s", {"stream": stream.name, "error": error})


async def _patiently(
    stream: Stream, before: Details, target: JetStream, replicas: int, progress: Callable[[int], None]
) -> int:
    """Transfer, and retry while the target still removes the stream that was deleted just before."""
    end = time.monotonic() + SECONDS
    retry = Retry(log, f"restore of {stream.name}", Backoff(first=AGAIN, most=5.0), logging.DEBUG)
    while True:
        try:
            return await _transfer(stream, before, target, replicas, progress)
        except ApiError as error:
            if error.code != STILL_IN_USE or time.monotonic() > end:
                raise
            await asyncio.sleep(retry.failed(error, time.monotonic()))
        await _make_room(Stream(target, stream.name, stream.shard), before)


async def _transfer(
    stream: Stream, before: Details, target: JetStream, replicas: int, progress: Callable[[int], None]
) -> int:
    source = stream.api.link.now()
    inbox = source.new_inbox()
    # Bounded by the server: it sends no more than a few megabytes that we have not acknowledged.
    chunks: asyncio.Queue[Msg | None] = asyncio.Queue()

    def ended() -> None:
        chunks.put_nowait(None)

    source.at_end(ended)
    subscription = await source.subscribe(inbox, chunks.put_nowait)
    try:
        asked = {"deliver_subject": inbox, "no_consumers": True, "chunk_size": CHUNK}
        backup = await stream.api.call(f"STREAM.SNAPSHOT.{stream.name}", asked, seconds=SECONDS)
        wanted = {"config": _wanted(before, replicas), "state": backup.get("state")}
        restore = await target.call(f"STREAM.RESTORE.{stream.name}", wanted, seconds=STEP_SECONDS)
        goal, size, goes_to = target.link.now(), 0, restore.get("deliver_subject")
        if not isinstance(goes_to, str) or not goes_to:
            raise StreamError(f"restore of stream {stream.name}: the target does not say where it takes the backup")
        while True:
            async with asyncio.timeout(SECONDS):
                message = await chunks.get()
            if message is None:
                raise StreamError(f"backup of stream {stream.name}: the connection was lost")
            if not message.data:
                break
            taken = await _hand_over(goal, goes_to, message.data)
            if taken.data:
                answer(taken, f"restore of stream {stream.name}")
            size += len(message.data)
            progress(size)
            if message.reply:
                await source.publish(message.reply, b"")
        answer(await _hand_over(goal, goes_to, b""), f"restore of {stream.name}")
    except TimeoutError:
        raise StreamError(f"backup of stream {stream.name}: nothing came for {SECONDS:g} s") from None
    finally:
        source.forget(ended)
        await source.unsubscribe(subscription)
    return size


async def _hand_over(goal: Connection, subject: str, chunk: bytes) -> Msg:
    """Send one chunk to the target and return its answer.

    In a cluster another server may expect it, and our server may not know yet: a chunk that no server took is sent
    again.
    """
    end, backoff = time.monotonic() + STEP_SECONDS, Backoff(first=SETTLING, most=2.0)
    while True:
        try:
            return await goal.request(subject, chunk, seconds=SECONDS)
        except NotAcknowledgedError:
            raise
        except StreamError:
            if goal.over.is_set() or time.monotonic() > end:
                raise
        await asyncio.sleep(backoff.failed(time.monotonic()))
