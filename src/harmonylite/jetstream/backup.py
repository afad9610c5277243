"""Move a stream from one NATS to another: messages, sequences, times and creation time stay the same.

Invariant: from `seal` to `release` a stream takes no message, so what is carried is the whole of it; at no moment do
two places take messages. What is read continues to the target at once: memory and disk here stay untouched by its size.

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
from harmonylite.jetstream.stream import Details, Stream
from harmonylite.nats.connection import Connection

log = logging.getLogger(__name__)

HELD = "harmonylite-held"
"""Metadata of a stream that takes nothing: where its content was moved to."""

STEP_SECONDS = 10.0
"""How long the target may take for one step; where it elects, the step is asked for again."""

AGAIN = 0.5
"""Seconds before a step is asked for again."""

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
    """What was carried: the stream's name, its last sequence, and how many messages and bytes of backup."""

    name: str
    last: int
    messages: int
    bytes: int


def check_not_sealed(name: str, config: Mapping[str, Any]) -> None:
    """Raise MovedError when the stream with this configuration is held: changes queue until that is over."""
    place = (config.get("metadata") or {}).get(HELD)
    if place is not None:
        raise MovedError(
            f"stream {name} was moved, or is being moved, to {place}",
            advice="start this node with the configuration of there, or run `harmonylite nats release` to stay",
        )


async def seal(stream: Stream, place: str) -> None:
    """Make ``stream`` refuse messages; ``place``: where its content goes, as nodes will report. Raises StreamError.

    Publishes are refused with "message size exceeds maximum", which nodes know as a stream that is full.
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

    ``progress``: called with the bytes that went over so far. The copy takes messages at once. Raises StreamError and
    leaves nothing at the target when it fails; cancelling does the same.
    """
    before = await stream.details()
    copy = Stream(target, stream.name, stream.shard)
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
    # A stream is known by its creation time; a restored one is new, so its metadata holds the former time.
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
    # An answer to the deletion says little while the cluster elects: the stream is gone when no server knows it any
    # more.
    end = time.monotonic() + SECONDS
    retry = Retry(log, f"looking whether {copy.name} is deleted", Backoff(first=AGAIN, most=5.0), logging.DEBUG)
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
        log.debug("delete %s: %s", stream.name, error)


async def _patiently(
    stream: Stream, before: Details, target: JetStream, replicas: int, progress: Callable[[int], None]
) -> int:
    """Transfer, again and again while the target still clears away the stream that was deleted just before."""
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
    """Give one chunk to the target and return its answer.

    In a cluster another server may wait for it, and word of that is on its way to ours: what no server took is sent
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
