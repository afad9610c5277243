"""One shard's messages, reassembled into change sets: unfinished, complete or void.

Invariant: of a change set that an abort message voids nothing becomes complete after that message. At most `OPEN_KEPT`
change sets are under way; which ones follows from the order of the messages alone, so all nodes keep the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO

from harmonylite.errors import PoisonError
from harmonylite.model import ChangeSetId, Position
from harmonylite.wire import CHANGES, KIND_CHANGES, Block, Envelope, WireError, decode_block

ABORTS_KEPT = 256
"""How many change sets that an abort message voids are remembered per shard."""
OPEN_KEPT = 64
"""How many change sets may be under way on a shard; one more ends the one that began first."""


@dataclass(slots=True)
class Fragment:
    """What one change set has on one shard, complete. ``first``/``seq``: its first and last message.

    ``blocks``: offset, length and compression of each block within ``spool``. ``stored``: when the stream stored the
    last message, seconds since the epoch. ``history``: the epoch of ``base``, "" if its writer does not say it;
    ``current``: what it saw of the rows is what they were at ``base``.
    """

    id: ChangeSetId
    kind: int
    shard: int
    first: int
    seq: int
    shards: tuple[int, ...]
    time: float
    base: dict[int, int]
    blocks: list[tuple[int, int, bool]]
    spool: IO[bytes]
    stored: float = 0.0
    history: str = ""
    current: bool = False

    @property
    def name(self) -> tuple[ChangeSetId, tuple[int, ...]]:
        """What the fragments of one change set have in common: fragments that disagree on its shards are none of it."""
        return self.id, self.shards

    @property
    def has_rows(self) -> bool:
        """True for a change set, with a schema section or without."""
        return self.kind in CHANGES

    @property
    def size(self) -> int:
        """Bytes of the blocks as they came."""
        return sum(length for _, length, _ in self.blocks)

    def decoded(self) -> Iterator[Block]:
        """Decode block by block; raises PoisonError that names the message."""
        for offset, length, packed in self.blocks:
            self.spool.seek(offset)
            try:
                yield decode_block(self.spool.read(length), packed=packed)
            except WireError as error:
                raise self.broken(str(error)) from error

    def broken(self, why: str) -> PoisonError:
        """Return the error for blocks that no writer of this version makes: an update of this node would not help."""
        said = f"node {self.id.node} wrote what no version writes: {why}"
        return poison(self.shard, self.seq, said, f"`harmonylite skip {self.shard} {self.seq}` leaves it out")

    def close(self) -> None:
        """Release the blocks' storage."""
        self.spool.close()


def newer(shard: int, seq: int, why: str) -> PoisonError:
    """Return the error for a message that a newer program may have written."""
    advice = f"update this node, or leave the message out on every node with: harmonylite skip {shard} {seq}"
    return poison(shard, seq, why, advice)


def poison(shard: int, seq: int, why: str, advice: str) -> PoisonError:
    """Return the error for a message that can't be applied."""
    return PoisonError(f"message {seq} of shard {shard} can't be applied: {why}", shard=shard, seq=seq, advice=advice)


@dataclass(slots=True)
class OpenFragment:
    """A change set on one shard whose last message has not come. ``shards``: all that it touches."""

    id: ChangeSetId
    first: int
    spool: IO[bytes]
    shards: list[int]
    kind: int = KIND_CHANGES
    count: int = 0
    start: int = 0
    end: int = 0
    blocks: list[tuple[int, int, bool]] = field(default_factory=list)

    def add(self, envelope: Envelope) -> None:
        """Append one message's body."""
        self.spool.seek(self.end)
        self.spool.write(envelope.body)
        self.end += len(envelope.body)
        self.count += 1
        if not envelope.more:
            if self.end > self.start:
                self.blocks.append((self.start, self.end - self.start, envelope.packed))
            self.start = self.end


@dataclass(slots=True)
class ShardQueue:
    """One shard: position, the change set under way of each writer, and complete fragments not taken yet.

    ``read``: the last sequence that was added; ``aborted``: the change sets that an abort message here voids.
    """

    position: Position
    read: int
    open: dict[str, OpenFragment] = field(default_factory=dict)
    ready: deque[Fragment] = field(default_factory=deque)
    aborted: dict[ChangeSetId, None] = field(default_factory=dict)

    def abort(self, victim: ChangeSetId) -> None:
        """Void a change set from here on; the oldest remembered one is dropped."""
        self.aborted[victim] = None
        if len(self.aborted) > ABORTS_KEPT:
            del self.aborted[next(iter(self.aborted))]

    def begin(self, part: OpenFragment) -> OpenFragment | None:
        """Take note of a change set that begins; return the one that ends by that."""
        ended = self.open.pop(part.id.node, None)  # a writer has one under way: it crashed, and begins again
        self.open[part.id.node] = part  # behind all others: they are in the order of their beginnings
        if len(self.open) > OPEN_KEPT:
            return self.open.pop(next(iter(self.open)))
        return ended

    def append(self, part: OpenFragment, envelope: Envelope) -> None:
        """Append one message's body; when that fails, close the place of a part that only has this message."""
        try:
            part.add(envelope)
        except BaseException:
            if self.open.get(part.id.node) is not part:
                part.spool.close()
            raise

    def settle(self, limit: int, taken: Fragment | None) -> Position:
        """Move on to right before the first fragment that waits, else to what was read, at most to ``limit``.

        ``taken``: the last fragment that was taken off this queue just now.
        """
        seq = max(self.position.seq, min(limit, self.ready[0].seq - 1 if self.ready else self.read))
        firsts = [part.first for part in self.open.values()] + [fragment.first for fragment in self.ready]
        old = self.position
        # after a restart less is read than is settled: what is under way may not have been seen again yet
        resume = min([seq + 1, self.read + 1, *firsts])
        newest = (taken.seq, taken.id) if taken is not None else old.newest
        self.position = Position(old.shard, seq, resume, old.created, tuple(self.aborted), newest)
        return self.position
