"""Publish one change set: fenced, in order, as often as it takes, and in the stream exactly once.

The first and the last message of a change set on a shard carry the expected last sequence of the node's own subject:
neither can be stored twice, nor beside another process with the same node id. Those between are sent in a window;
receivers pass over the ones that come twice or too early.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable

from harmonylite.backoff import Backoff
from harmonylite.db.capture import Outgoing
from harmonylite.errors import FencedError, StreamError, StreamFullError, StreamLostError, WrongLastSequenceError
from harmonylite.model import ChangeSetId
from harmonylite.replication.gate import Gate
from harmonylite.replication.ports import ShardStream
from harmonylite.status import NodeStatus
from harmonylite.wire import KIND_ABORT, VERSION, Envelope, WireError, decode_envelope, encode_abort, encode_envelope

log = logging.getLogger(__name__)

WINDOW = 16
"""Messages of one change set that wait for their acknowledgement at a time, on one shard."""


class Publisher:
    """Publishes on every shard. `open` learns where this node's subjects end."""

    def __init__(self, streams: Iterable[ShardStream], node: str, session: str, status: NodeStatus, gate: Gate) -> None:
        self._streams = {stream.shard: stream for stream in streams}
        self._node = node
        self._session = session
        self._status = status
        self._gate = gate
        self._part = status.part("publish")
        self._last: dict[int, int] = {}
        self._published = False
        self._stray = 0

    async def open(self) -> None:
        """Learn the last sequence of this node's subject on every shard; raises StreamError."""
        self._gate.open()
        for shard, stream in self._streams.items():
            last = await stream.last_own()
            self._last[shard] = last.seq if last is not None else 0
        self._part.ok()

    async def publish(self, out: Outgoing) -> None:
        """Publish ``out`` on all its shards; returns once every message is acknowledged. Raises FencedError."""
        # all shards at once: a change set that is whole on one of them only holds that one up
        counts = {shard: len(parts) for shard, parts in out.parts.items()}
        await self._gate.admit(counts)
        large = self._gate.is_large(counts)
        if large:  # in one order everywhere, as two that begin on each other's shards would wait for each other
            for shard in sorted(out.parts):
                await self._fenced(out, shard, 0)
        if len(out.parts) == 1:  # most commits: no task, no further turn of the loop
            await self._shard(out, *out.parts, begun=large)
        else:
            async with asyncio.TaskGroup() as group:
                for shard in out.parts:
                    group.create_task(self._shard(out, shard, begun=large), name=f"publish shard {shard}")
        self._published = True
        self._part.ok()

    async def abort(self, victim: ChangeSetId, shard: int) -> None:
        """Void a change set whose writer died before it was whole on ``shard``; raises StreamError."""
        self._stray += 1
        payload = encode_envelope(
            Envelope(VERSION, KIND_ABORT, self._node, self._session, 0, 0, False, True, [shard], time.time(), {},
                     False, encode_abort(victim))
        )  # fmt: skip
        await self.aside(shard, payload, f"abort-{victim}", urgent=True)

    async def aside(self, shard: int, payload: bytes, name: str, *, urgent: bool = False) -> None:
        """Publish a message that is no change set, keeping the fence's count; raises StreamError.

        ``urgent``: also while the gate is shut, which this message may help to open.
        """
        if not urgent:
            self._gate.check(shard)
        seq = await self._streams[shard].publish(payload, message_id=f"{self._session}-{name}")
        self._last[shard] = max(self._last.get(shard, 0), seq)
        self._gate.heard(shard, seq)

    async def _shard(self, out: Outgoing, shard: int, *, begun: bool) -> None:
        count = len(out.parts[shard])
        if not begun:
            await self._fenced(out, shard, 0)
        if count > 2:
            await self._windowed(out, shard, range(1, count - 1))
        if count > 1:
            await self._fenced(out, shard, count - 1)

    async def _fenced(self, out: Outgoing, shard: int, index: int) -> None:
        stream = self._streams[shard]
        payload = out.payload(shard, index)
        backoff = Backoff(first=0.05, most=5.0)
        passed = 0
        while True:
            end = await self._gate.beginning(shard, len(out.parts[shard]), passed) if index == 0 else None
            try:
                self._last[shard] = await stream.publish(
                    payload, message_id=f"{out.id}-{shard}-{index}",
                    expected_last=self._last[shard], expected_end=end,
                )  # fmt: skip
            except WrongLastSequenceError:
                if await self._already_there(out, shard, index):
                    break
                passed += 1
            except StreamError as error:
                await self._pause(error, backoff)
            else:
                break
        self._gate.heard(shard, self._last[shard])
        self._count(payload)

    async def _already_there(self, out: Outgoing, shard: int, index: int) -> bool:
        """Tell whether an earlier try went through after all. Raises FencedError when somebody else published, and
        StreamLostError when the stream lost what this node has published.
        """
        backoff = Backoff(first=0.05, most=5.0)
        while True:
            try:
                last = await self._streams[shard].last_own()
            except StreamError as error:
                await self._pause(error, backoff)
            else:
                break
        if last is None:
            self._last[shard] = 0
            return False
        if last.seq < self._last[shard]:  # nobody takes messages from the end of a subject
            raise StreamLostError(
                f"the stream of shard {shard} lost its tail: this node's last message in it is {last.seq}, and it had"
                f" {self._last[shard]} acknowledged"
            )
        try:
            envelope = decode_envelope(last.payload)
        except WireError:
            envelope = None
        self._last[shard] = last.seq
        if envelope is not None and envelope.id == out.id and envelope.index == index:
            return True
        if envelope is not None and envelope.session == self._session:
            return False
        if not self._published:
            return False  # the last words of this node's previous process
        raise FencedError(
            f"another process publishes as node {self._node} (shard {shard}, message {last.seq})",
            advice="give every node a node_id of its own; a copied configuration is the usual cause",
        )

    async def _windowed(self, out: Outgoing, shard: int, indices: range) -> None:
        todo = list(indices)
        backoff = Backoff(first=0.05, most=5.0)
        while todo:
            window = todo[:WINDOW]
            await self._gate.keep_pace(shard)
            results = await asyncio.gather(
                *(self._plain(out, shard, index) for index in window), return_exceptions=True
            )
            failed = [index for index, result in zip(window, results, strict=True) if isinstance(result, BaseException)]
            for result in results:
                if isinstance(result, BaseException) and not isinstance(result, StreamError):
                    raise result
            if failed:
                # receivers take messages in their order only: go on from the first that is missing
                todo = [index for index in indices if index >= failed[0]]
                error = next(r for r in results if isinstance(r, StreamError))
                await self._pause(error, backoff)
            else:
                todo = todo[len(window) :]

    async def _plain(self, out: Outgoing, shard: int, index: int) -> None:
        payload = out.payload(shard, index)
        seq = await self._streams[shard].publish(payload, message_id=f"{out.id}-{shard}-{index}-{time.monotonic_ns()}")
        self._last[shard] = max(self._last[shard], seq)
        self._gate.heard(shard, seq)
        self._count(payload)

    def _count(self, payload: bytes) -> None:
        self._status.counters.published_messages += 1
        self._status.counters.published_bytes += len(payload)

    async def _pause(self, error: StreamError, backoff: Backoff) -> None:
        self._status.counters.publish_failures += 1
        what = "the stream is full; changes queue" if isinstance(error, StreamFullError) else "changes queue"
        self._part.waiting(f"{what}: {error}")
        await asyncio.sleep(backoff.failed(time.monotonic()))
