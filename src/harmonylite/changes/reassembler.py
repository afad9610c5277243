"""Reassemble messages of all shards into whole change sets, and find the batch that may be applied.

Invariant: what `Reassembler.take` returns holds every message of each shard up to the positions that it names, in
order, and of every change set either all of its fragments or none (a change set is whole or not there). A change
set whose writer died between two shards is voided by an *abort* message on the shard that lacks it: whichever of the
two, abort or last fragment, that shard's stream orders first holds for every node. Every node steps over what no node
wrote in its own name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from typing import IO

from harmonylite.changes.fragments import Fragment, OpenFragment, ShardQueue, newer
from harmonylite.model import ChangeSetId, Position, StreamMessage
from harmonylite.wire import (
    CHANGES,
    KIND_ABORT,
    KIND_CHANGES,
    Envelope,
    ForeignMessageError,
    WireError,
    decode_abort,
    decode_envelope,
)

__all__ = ["AtomicBatch", "Fragment", "Reassembler"]

SPOOL_BYTES = 4_000_000
"""Blocks of one change set above this many bytes wait in a temporary file; of the n-th one, above an n-th of it."""
UNFINISHED_WATCHED = 64
"""Of so many change sets per shard, the first ones, it is watched at once that a part of them is missing."""

HISTORIES = 64
"""How many names of histories are remembered: made-up ones can't fill the memory."""

Spool = Callable[[int], IO[bytes]]
"""Makes the place where the blocks of one change set wait: a file-like object, opened for reading and writing, that
holds the given number of bytes in memory, and more than that in a file.
"""

Foreign = Callable[[StreamMessage, str], None]
"""Called with a message that no node wrote in its own name, and why; it is ignored."""


def _in_memory(most: int) -> IO[bytes]:
    return BytesIO()


def _ignored(message: StreamMessage, why: str) -> None:
    pass


@dataclass(frozen=True, slots=True)
class AtomicBatch:
    """Pieces in an order that respects every shard's, and the positions that they lead to.

    ``before``: the positions that it starts from. ``voided``: change sets that were passed over, as others gave up on
    them.
    """

    fragments: tuple[Fragment, ...]
    positions: dict[int, Position]
    before: dict[int, Position]
    voided: tuple[ChangeSetId, ...] = ()

    def holding(self, shard: int, seq: int) -> tuple[Fragment, ...]:
        """Return all fragments of the change set of which one ends at message ``seq`` of ``shard``."""
        names = {fragment.id for fragment in self.fragments if (fragment.shard, fragment.seq) == (shard, seq)}
        return tuple(fragment for fragment in self.fragments if fragment.id in names)

    def without(self, fragments: tuple[Fragment, ...]) -> AtomicBatch:
        """Return this batch with ``fragments``, all of a change set, passed over as if others had given up on it."""
        kept = tuple(fragment for fragment in self.fragments if fragment not in fragments)
        voided = dict.fromkeys(fragment.id for fragment in fragments)
        return AtomicBatch(kept, self.positions, self.before, (*self.voided, *voided))

    def close(self) -> None:
        """Release the storage of all blocks."""
        for fragment in self.fragments:
            fragment.close()


class Reassembler:
    """Collects messages; see the module's invariant. Not thread-safe.

    ``shards``: how many there are, where ``positions`` are not all of them.
    """

    def __init__(
        self, positions: dict[int, Position], *, shards: int = 0, spool: Spool = _in_memory, foreign: Foreign = _ignored
    ) -> None:
        self._shards = shards or len(positions)
        self._foreign = foreign
        self._queues = {
            shard: ShardQueue(position, position.resume - 1, aborted=dict.fromkeys(position.aborted))
            for shard, position in positions.items()
        }
        self._skip: set[tuple[int, int]] = set()
        self._spool = spool
        self._given_up: list[ChangeSetId] = []
        self.histories: set[str] = set()
        """The histories that the writers of what was added are in, as far as they say."""

    def close(self) -> None:
        """Release the storage of all that was not taken; the reassembler can't be used any more."""
        for queue in self._queues.values():
            for spool in [part.spool for part in queue.open.values()] + [fragment.spool for fragment in queue.ready]:
                spool.close()

    def skip(self, shard: int, seq: int) -> None:
        """Leave message ``seq`` of ``shard`` out when it comes, and with it all of the change set that it belongs to:
        here it counts as one that others gave up on.
        """
        self._skip.add((shard, seq))

    def read_up_to(self, shard: int) -> int:
        """Return the last sequence of ``shard`` that was added."""
        return self._queues[shard].read

    @property
    def under_way_count(self) -> int:
        """Change sets of which a shard has some messages and not the last."""
        return sum(len(queue.open) for queue in self._queues.values())

    @property
    def waiting(self) -> int:
        """Complete fragments that were not taken yet."""
        return sum(len(queue.ready) for queue in self._queues.values())

    @property
    def waiting_bytes(self) -> int:
        """Bytes of the complete fragments that were not taken yet."""
        return sum(fragment.size for queue in self._queues.values() for fragment in queue.ready)

    def position(self, shard: int) -> Position:
        """Return where what was taken of ``shard`` ends."""
        return self._queues[shard].position

    def oldest(self, shard: int) -> float:
        """Return when the oldest fragment of ``shard`` that was not taken yet was stored, 0.0 when there is none."""
        ready = self._queues[shard].ready
        return ready[0].stored if ready else 0.0

    def unfinished(self) -> list[tuple[ChangeSetId, int]]:
        """Return the change sets that are complete on a shard and hold it up, now or once it gets there, each with a
        shard on which it is not whole yet. Of each shard, the first `UNFINISHED_WATCHED` such fragments count.
        """
        complete = {shard: {fragment.name for fragment in queue.ready} for shard, queue in self._queues.items()}
        found: dict[tuple[ChangeSetId, int], None] = {}
        for queue in self._queues.values():
            missing = (
                (fragment.id, [s for s in fragment.shards if s in complete and fragment.name not in complete[s]])
                for fragment in queue.ready
                if len(fragment.shards) > 1 and not self._void(fragment)
            )
            for name, others in islice((each for each in missing if each[1]), UNFINISHED_WATCHED):
                found |= dict.fromkeys((name, other) for other in others)
        return list(found)

    @property
    def held_up(self) -> bool:
        """Whether a shard can't continue before another one has read further."""
        return any(
            self._missing(queue.ready[0], other)
            for queue in self._queues.values()
            if queue.ready
            for other in queue.ready[0].shards
        )

    def begun(self, shard: int) -> list[tuple[ChangeSetId, int]]:
        """Return the change sets of which ``shard`` has some messages and not the last, each with how many."""
        return [(part.id, part.count) for part in self._queues[shard].open.values()]

    def add(self, message: StreamMessage) -> None:
        """Add the next message of its shard; one that was seen before changes nothing. Raises PoisonError."""
        queue = self._queues[message.shard]
        if message.seq <= queue.read:
            return
        if (message.shard, message.seq) in self._skip:
            self._leave_out(queue, message)
        else:
            try:
                envelope = decode_envelope(message, self._shards)
                if envelope.history and len(self.histories) < HISTORIES:
                    self.histories.add(envelope.history)
                if envelope.kind == KIND_ABORT:
                    self._abort(queue, decode_abort(envelope.body))
                elif envelope.id not in queue.aborted:
                    self._collect(queue, message, envelope)
            except ForeignMessageError as error:
                if message.seq > queue.position.seq:  # after a restart, some are read a second time
                    self._foreign(message, str(error))
            except WireError as error:
                raise newer(message.shard, message.seq, str(error)) from error
        queue.read = message.seq

    def _leave_out(self, queue: ShardQueue, message: StreamMessage) -> None:
        try:
            envelope = decode_envelope(message, self._shards)
        except WireError:
            return  # nothing shows of which change set it is a part
        if envelope.kind != KIND_ABORT and envelope.id not in queue.aborted:
            given_up = len(self._given_up)
            self._abort(queue, envelope.id)
            if len(envelope.shards) == 1 and len(self._given_up) == given_up:
                self._given_up.append(envelope.id)

    def _abort(self, queue: ShardQueue, victim: ChangeSetId) -> None:
        """Void a change set on whose fragment on this queue others gave up; too late when the fragment is whole."""
        if any(fragment.id == victim for fragment in queue.ready):
            return
        queue.abort(victim)
        unfinished = queue.open.get(victim.node)
        if unfinished is not None and unfinished.id == victim:
            self._give_up(queue.open.pop(victim.node))

    def _give_up(self, part: OpenFragment) -> None:
        part.spool.close()
        if len(part.shards) == 1:  # of one that touches more shards, a fragment of another shard will show it
            self._given_up.append(part.id)

    def _collect(self, queue: ShardQueue, message: StreamMessage, envelope: Envelope) -> None:
        if envelope.kind not in CHANGES:  # one message, which says nothing of a change set that is under way
            self._complete(queue, message, envelope, OpenFragment(envelope.id, message.seq, BytesIO(), envelope.shards))
            return
        part = queue.open.get(envelope.node)
        if part is None or part.id != envelope.id:
            if envelope.index != 0:
                return
            place = self._spool(SPOOL_BYTES // (1 + self.under_way_count))
            part = OpenFragment(envelope.id, message.seq, place, envelope.shards, envelope.kind)
            ended = queue.open.pop(envelope.node, None) if envelope.last else queue.begin(part)
            if ended is not None:
                self._give_up(ended)
        if envelope.index != part.count:
            return  # a repeated part: it was published again after a lost acknowledgement
        if envelope.shards != part.shards or envelope.kind != part.kind:
            raise ForeignMessageError(f"it names other shards than the change set's first message, {part.first}")
        queue.append(part, envelope)
        if envelope.last:
            queue.open.pop(envelope.node, None)
            self._complete(queue, message, envelope, part)

    def _complete(self, queue: ShardQueue, message: StreamMessage, envelope: Envelope, whole: OpenFragment) -> None:
        if message.seq > queue.position.seq:
            queue.ready.append(_fragment(message, envelope, whole))
        else:
            whole.spool.close()

    def put_back(self, batch: AtomicBatch) -> None:
        """Undo the `take` that returned ``batch``; nothing may have been taken since."""
        for fragment in reversed(batch.fragments):
            self._queues[fragment.shard].ready.appendleft(fragment)
        for shard, position in batch.before.items():
            self._queues[shard].position = position
        self._given_up += batch.voided

    def take(
        self,
        *,
        most_bytes: int = 1 << 62,
        own: tuple[str, str] | None = None,
        limit: dict[int, int] | None = None,
        least: bool = False,
    ) -> AtomicBatch | None:
        """Take the largest whole batch of at most about ``most_bytes``; None when nothing is whole.

        A change set of ``own``, a node and its session, and a checkpoint are alone in their batch where the order
        allows it: what that session has under way is compared with what comes back. Those of its earlier sessions are
        like any other node's.
        ``limit``: the batch ends at or before these sequences. ``least``: take as little as can be taken.
        """
        before = {shard: queue.position for shard, queue in self._queues.items()}
        counts = {} if least else self._whole(self._wanted(most_bytes, own, limit))
        if not any(counts.values()):
            counts = self._smallest(self._whole(self._wanted(1 << 62, None, limit, alone=True)))
        fragments = [self._queues[shard].ready.popleft() for shard, n in sorted(counts.items()) for _ in range(n)]
        positions, last = {}, {fragment.shard: fragment for fragment in fragments}
        for shard, queue in self._queues.items():
            if queue.settle(1 << 62 if limit is None else limit.get(shard, 0), last.get(shard)) != before[shard]:
                positions[shard] = queue.position
        voided = [fragment for fragment in fragments if self._void(fragment)]
        for fragment in voided:
            fragment.close()
        if not fragments and not positions:
            return None
        whole = tuple(fragment for fragment in fragments if fragment not in voided)
        given_up, self._given_up = self._given_up, []
        return AtomicBatch(whole, positions, before, (*given_up, *(fragment.id for fragment in voided)))

    def _wanted(
        self, most_bytes: int, own: tuple[str, str] | None, limit: dict[int, int] | None, *, alone: bool = False
    ) -> dict[int, int]:
        """Return how many fragments of each queue fit, before wholeness is checked; ``alone``: take all kinds."""
        counts: dict[int, int] = {}
        room = most_bytes
        for shard, queue in self._queues.items():
            counts[shard] = 0
            for fragment in queue.ready:
                if limit is not None and fragment.seq > limit.get(shard, 0):
                    break
                if not alone and ((fragment.id.node, fragment.id.session) == own or fragment.kind != KIND_CHANGES):
                    break
                if any(counts.values()) and fragment.size > room:
                    break
                room -= fragment.size
                counts[shard] += 1
        return counts

    def _void(self, fragment: Fragment) -> bool:
        return any(fragment.id in self._queues[shard].aborted for shard in fragment.shards if shard in self._queues)

    def _missing(self, fragment: Fragment, other: int) -> bool:
        """Return whether ``fragment`` has to wait for its part on shard ``other``."""
        queue = self._queues.get(other)
        if queue is None or self._void(fragment):
            return False
        return all(p.name != fragment.name for p in queue.ready)

    def _whole(self, counts: dict[int, int]) -> dict[int, int]:
        """Lower ``counts`` until every change set within them is whole."""
        counts = dict(counts)
        lowered = True
        while lowered:
            lowered = False
            chosen = {s: [p for p, _ in zip(self._queues[s].ready, range(n), strict=False)] for s, n in counts.items()}
            inside = {(fragment.name, shard) for shard, fragments in chosen.items() for fragment in fragments}
            for shard, fragments in chosen.items():
                for index, fragment in enumerate(fragments):
                    if len(fragment.shards) == 1 or self._void(fragment):
                        continue
                    if any((fragment.name, other) not in inside for other in fragment.shards if other in self._queues):
                        counts[shard], lowered = index, True
                        break
        return counts

    def _smallest(self, counts: dict[int, int]) -> dict[int, int]:
        """Return the smallest whole batch within ``counts``: what the first fragment of some queue brings with it."""
        needs = [self._closure(shard, counts) for shard, n in counts.items() if n]
        return min((need for need in needs if need), key=lambda need: sum(need.values()), default={})

    def _closure(self, shard: int, limit: dict[int, int]) -> dict[int, int]:
        """Return the counts that taking the first fragment of ``shard`` brings with it; {} where that is too much."""
        counts = dict.fromkeys(self._queues, 0)
        todo = [(shard, 1)]
        while todo:
            queue, n = todo.pop()
            if n > limit[queue]:
                return {}
            fresh = list(self._queues[queue].ready)[counts[queue] : n]
            counts[queue] = max(counts[queue], n)
            for fragment in fresh:
                todo.extend(
                    (other, [p.name for p in self._queues[other].ready].index(fragment.name) + 1)
                    for other in (fragment.shards if not self._void(fragment) else ())
                    if other != queue and other in self._queues
                )
        return counts


def _fragment(message: StreamMessage, envelope: Envelope, whole: OpenFragment) -> Fragment:
    return Fragment(
        id=envelope.id,
        kind=envelope.kind,
        shard=message.shard,
        first=whole.first,
        seq=message.seq,
        shards=tuple(envelope.shards),
        time=envelope.time,
        base=dict(envelope.base),
        blocks=whole.blocks,
        spool=whole.spool,
        stored=message.time,
        history=envelope.history,
        current=envelope.current,
    )
