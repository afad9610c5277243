"""Publish everything on the node's own subjects: change sets, aborts and checkpoints.

Invariant: the messages of one change set on a shard follow each other with no checkpoint in between, which would end it
for its readers. The first and the last one carry the expected last sequence of the node's own subject: neither
can be stored twice, nor beside another process with the same node id. Those between are sent in a window; receivers
pass over the ones that come twice or too early. Another process is one whose messages carry a session of another run:
everything that this process publishes is known by its session, and what no process of a node wrote is stepped over.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial

from harmonylite.backoff import Backoff
from harmonylite.db.capture.capture import Outgoing
from harmonylite.errors import (
    FencedError,
    ReopenError,
    StreamError,
    StreamFullError,
    StreamLostError,
    WrongLastSequenceError,
)
from harmonylite.model import ChangeSetId, StreamMessage
from harmonylite.ports import ShardStream
from harmonylite.replication.throttle import Throttle
from harmonylite.status import NodeStatus
from harmonylite.wire import (
    KIND_ABORT,
    KIND_CHECKPOINT,
    VERSION,
    Envelope,
    ForeignMessageError,
    WireError,
    decode_envelope,
    encode_abort,
    encode_envelope,
)

log = logging.getLogger(__name__)

WINDOW = 16
"""Messages of one change set that wait for their acknowledgement at a time, on one shard."""
TURN_SECONDS = 5.0
"""Seconds that a checkpoint waits for the change set that is in flight on its shard."""


VERIFY = ".verify"
"""What a session's name ends with in the names of its checkpoints, which are counted separately from its change
sets."""


class _OtherOrderError(StreamLostError):
    """Trying again does not help: another stream has taken the place of the one that this node is in."""


def process_of(session: str) -> str:
    """Return what the names of all sessions of one process begin with, up to the first dot."""
    return session.partition(".")[0]


def is_of(session: str, own: str) -> bool:
    """Return whether what carries ``session``, a change set or a checkpoint, was published in the session ``own``."""
    return session.removesuffix(VERIFY) == own


class Publisher:
    """Publishes on every shard. `open` learns where this node's subjects end."""

    def __init__(
        self,
        streams: Iterable[ShardStream],
        node: str,
        session: str,
        status: NodeStatus,
        throttle: Throttle,
        message_bytes: Callable[[], int] = int,
        connection: Callable[[], int] = int,
    ) -> None:
        """``message_bytes``: the most that the body of a message may hold now; ``connection``: counts those to NATS."""
        self._streams = {stream.shard: stream for stream in streams}
        self._node = node
        self._session = session
        self._status = status
        self._throttle = throttle
        self._message_bytes = message_bytes
        self._connection = connection
        self._orders: Mapping[int, str] = {}
        self._seen: dict[int, int] = {}
        self._part = status.part("publish")
        self._last: dict[int, int] = dict.fromkeys(self._streams, 0)
        self._turns = {shard: asyncio.Lock() for shard in self._streams}
        self._published = False
        self._checkpoints = 0

    def follow(self, orders: Mapping[int, str], connection: int) -> None:
        """Publish in ``orders`` alone: the identities of the streams, by shard, as seen from ``connection`` on."""
        self._orders, self._seen = orders, dict.fromkeys(orders, connection)

    async def open(self) -> None:
        """Learn the last sequence of this node's subject on every shard; raises StreamError."""
        self._throttle.open()
        for shard, stream in self._streams.items():
            last = await stream.last_own()
            self._last[shard] = last.seq if last is not None else 0
        self._part.ok()

    async def publish(self, out: Outgoing) -> dict[int, int]:
        """Publish ``out`` on all its shards; return the sequence of its last message on each once all are acknowledged.

        Raises FencedError, and ReopenError where NATS takes smaller messages by now: ``out`` is to be captured again.
        """
        # all shards at once: a change set that is whole on one of them only holds that one up
        counts = {shard: len(parts) for shard, parts in out.parts.items()}
        await self._throttle.wait_for_room(counts)
        large = self._throttle.is_large(counts)
        async with self._turn(out.parts):
            if large:  # in one order everywhere, as two that begin on each other's shards would wait for each other
                for shard in sorted(out.parts):
                    await self._fenced(out, shard, 0)
            if len(out.parts) == 1:  # most commits: no task, no further turn of the loop
                (shard,) = out.parts
                ends = {shard: await self._shard(out, shard, begun=large)}
            else:
                async with asyncio.TaskGroup() as group:
                    tasks = {
                        shard: group.create_task(self._shard(out, shard, begun=large), name=f"publish shard {shard}")
                        for shard in out.parts
                    }
                ends = {shard: task.result() for shard, task in tasks.items()}
        self._published = True
        self._part.ok()
        return ends

    async def abort(self, victim: ChangeSetId, shard: int) -> int:
        """Void a change set whose writer died before it was whole on ``shard``; return the sequence of the message that
        does it. Raises StreamError.

        It waits for nothing: what this node has in flight may be waiting for this message.
        """
        name = ChangeSetId(self._node, self._session, 0)
        return await self._aside(shard, _message(KIND_ABORT, name, [shard], encode_abort(victim)), f"abort-{victim}")

    async def checkpoint(self, history: str) -> ChangeSetId:
        """Publish a checkpoint on every shard, as a writer in ``history``; return its name.

        Raises StreamError; some shards may have it then.
        """
        self._checkpoints += 1
        name = ChangeSetId(self._node, f"{self._session}{VERIFY}", self._checkpoints)
        for shard in self._streams:
            await self._checkpoint_on(shard, _message(KIND_CHECKPOINT, name, list(self._streams), history=history))
        return name

    async def _checkpoint_on(self, shard: int, message: Envelope) -> None:
        backoff = Backoff(first=0.05, most=0.5)
        for left in reversed(range(14)):  # five seconds
            try:
                self._throttle.check(shard)
                async with asyncio.timeout(TURN_SECONDS) as waiting, self._turn([shard]):
                    waiting.reschedule(None)  # an answer that is waited for no more leaves the outcome unknown
                    await self._aside(shard, message, f"checkpoint-{message.id}")
                    return
            except TimeoutError:
                raise StreamError(f"shard {shard} has no turn for a checkpoint: a change set is on its way") from None
            except StreamError as error:
                if not left or isinstance(error, _OtherOrderError):
                    raise
                await asyncio.sleep(backoff.failed(time.monotonic()))
        return None

    async def _aside(self, shard: int, message: Envelope, message_id: str) -> int:
        """Publish a message that is no change set, keeping the fence's count; return its sequence."""
        await self._same_order(shard)
        seq = await self._streams[shard].publish(encode_envelope(message), message_id=f"{self._session}-{message_id}")
        self._note_seq(shard, seq)
        return seq

    @asynccontextmanager
    async def _turn(self, shards: Iterable[int]) -> AsyncIterator[None]:
        """Have the subjects of ``shards`` for one change set, or one checkpoint, alone."""
        held = []
        try:
            for shard in sorted(shards):
                await self._turns[shard].acquire()
                held.append(self._turns[shard])
            yield
        finally:
            for lock in held:
                lock.release()

    def _note_seq(self, shard: int, seq: int) -> None:
        """Take note of an acknowledged message; an abort's acknowledgement may come in any order with others."""
        self._last[shard] = max(self._last[shard], seq)
        self._throttle.note_end(shard, seq)

    async def _shard(self, out: Outgoing, shard: int, *, begun: bool) -> int:
        count = len(out.parts[shard])
        seq = 0 if begun else await self._fenced(out, shard, 0)
        if count > 2:
            await self._windowed(out, shard, range(1, count - 1))
        return await self._fenced(out, shard, count - 1) if count > 1 else seq

    async def _fenced(self, out: Outgoing, shard: int, index: int) -> int:
        """Publish one message after this node's last one; return its sequence."""
        stream = self._streams[shard]
        before = self._last[shard]
        payload = out.payload(shard, index)
        backoff = Backoff(first=0.05, most=5.0)
        passed = 0
        while True:
            end = await self._throttle.beginning(shard, len(out.parts[shard]), passed) if index == 0 else None
            try:
                await self._same_order(shard)  # and nothing is waited for between this and the publish
                seq = await stream.publish(
                    payload,
                    message_id=f"{out.id}-{shard}-{index}",
                    expected_last=self._last[shard],
                    expected_end=end,
                )
                self._note_seq(shard, seq)
            except WrongLastSequenceError:
                seq = await self._already_there(out, shard, index, before)
                if seq:
                    break
                passed += 1
            except _OtherOrderError:
                raise
            except StreamError as error:
                self._must_fit(out, error)
                await self._pause(error, backoff)
            else:
                break
        self._throttle.note_end(shard, self._last[shard])
        self._count(payload)
        return seq

    async def _already_there(self, out: Outgoing, shard: int, index: int, before: int) -> int:
        """Return the sequence under which an earlier try succeeded after all, 0 if none did.

        ``before``: the last message on this node's subject at the first try. Raises FencedError when another process
        published as this node, and StreamLostError when the stream lost what this node has published.
        """
        stream = self._streams[shard]
        had = self._last[shard]  # before the question: an abort may be acknowledged while it is under way
        last = await self._asked(stream.last_own)
        if last is None:
            self._last[shard] = 0
            return 0
        if last.seq < had:  # no client takes messages from the end of a subject
            raise StreamLostError(
                f"the stream of shard {shard} lost its tail: this node's last message in it is {last.seq}, and it had"
                f" {had} acknowledged"
            )
        found = 0
        while before < last.seq and (message := await self._asked(partial(stream.next_own, before))) is not None:
            before = message.seq
            found = found or (before if self._is_own(message, out.id, index) else 0)
        self._last[shard] = max(self._last[shard], last.seq)
        return found

    def _is_own(self, message: StreamMessage, change_set: ChangeSetId, index: int) -> bool:
        """Return whether ``message`` on this node's subject is the one that is to be published; raises FencedError."""
        try:
            envelope = decode_envelope(message, len(self._streams))
        except ForeignMessageError:
            return False  # no process of this node wrote it: all readers step over it, and so does this one
        except WireError:
            session = ""
        else:
            if envelope.id == change_set and envelope.index == index:
                return True
            session = envelope.session
        # before the first change set of this process they are the last words of the previous one
        if self._published and process_of(session) != process_of(self._session):
            raise FencedError(
                f"another process publishes as node {self._node} (shard {message.shard}, message {message.seq})",
                advice="give every node a node_id of its own; a copied configuration is the usual cause",
            )
        return False

    async def _same_order(self, shard: int) -> None:
        """Raise StreamLostError if a new connection leads to another order: NATS may have been exchanged meanwhile.

        The fence would not notice it on the subject of a node that never published: there it expects nothing. Raises
        StreamError where the stream does not say; whether it is lost, its reader finds out.
        """
        while (now := self._connection()) != self._seen.get(shard, now):
            info = await self._streams[shard].info()
            if not info.same(self._orders[shard], 0):
                self._part.ok()  # what keeps it is said where the node looks for its cluster
                raise _OtherOrderError(f"the stream of shard {shard} is not the one that this node is in")
            self._seen[shard] = now

    async def _asked(self, question: Callable[[], Awaitable[StreamMessage | None]]) -> StreamMessage | None:
        """Return the answer to a question that changes nothing, as soon as there is one."""
        backoff = Backoff(first=0.05, most=5.0)
        while True:
            try:
                return await question()
            except StreamError as error:
                await self._pause(error, backoff)

    async def _windowed(self, out: Outgoing, shard: int, indices: range) -> None:
        todo = list(indices)
        backoff = Backoff(first=0.05, most=5.0)
        while todo:
            window = todo[:WINDOW]
            await self._throttle.wait_for_reader(shard)
            results = await asyncio.gather(
                *(self._plain(out, shard, index) for index in window), return_exceptions=True
            )
            failed = [index for index, result in zip(window, results, strict=True) if isinstance(result, BaseException)]
            for result in results:
                if isinstance(result, BaseException) and (
                    isinstance(result, _OtherOrderError) or not isinstance(result, StreamError)
                ):
                    raise result
            if failed:
                # receivers take messages in their order only: continue from the first that is missing
                todo = [index for index in indices if index >= failed[0]]
                error = next(r for r in results if isinstance(r, StreamError))
                self._must_fit(out, error)
                await self._pause(error, backoff)
            else:
                todo = todo[len(window) :]

    async def _plain(self, out: Outgoing, shard: int, index: int) -> None:
        payload = out.payload(shard, index)
        await self._same_order(shard)
        seq = await self._streams[shard].publish(payload, message_id=f"{out.id}-{shard}-{index}-{time.monotonic_ns()}")
        self._note_seq(shard, seq)
        self._count(payload)

    def _count(self, payload: bytes) -> None:
        self._status.counters.published_messages += 1
        self._status.counters.published_bytes += len(payload)

    def _must_fit(self, out: Outgoing, error: StreamError) -> None:
        """Raise ReopenError where ``error`` comes of a limit that was lowered since ``out`` was captured."""
        if isinstance(error, StreamFullError) and 0 < (most := self._message_bytes()) < out.message_bytes:
            raise ReopenError(
                f"change set {out.id} was captured for messages of {out.message_bytes} bytes, and NATS takes {most} by"
                " now; it is captured again"
            )

    async def _pause(self, error: StreamError, backoff: Backoff) -> None:
        self._status.counters.publish_failures += 1
        what = "the stream is full; changes queue" if isinstance(error, StreamFullError) else "changes queue"
        self._part.waiting(f"{what}: {error}", error)
        await asyncio.sleep(backoff.failed(time.monotonic()))


def _message(kind: int, name: ChangeSetId, shards: list[int], body: bytes = b"", *, history: str = "") -> Envelope:
    """Return the one message of an abort or a checkpoint."""
    return Envelope(
        VERSION,
        kind,
        name.node,
        name.session,
        name.number,
        0,
        False,
        True,
        shards,
        time.time(),
        {},
        False,
        body,
        history,
    )
