"""Put messages of all shards together into whole change sets, and find the cut that may be applied.

Invariant: what `Inbox.take` returns holds every message of each shard up to the positions that it names, in order, and
of every change set either all of its shards' pieces or none (DESIGN: a change set is whole or not there). A change set
whose writer died between two shards is voided by an *abort* message on the shard that lacks it: whichever of the two,
abort or last piece, that shard's stream orders first holds for every node. What no node wrote in its own name
is stepped over, by every node alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from typing import IO

from harmonylite.changes.fragments import Lane, Open, Piece, newer
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

__all__ = ["Cut", "Inbox", "Piece"]

SPOOL_BYTES = 4_000_000
"""Blocks of one change set above this many bytes wait in a temporary file; of the n-th one, above an n-th of it."""

UNFINISHED_WATCHED = 64
"""Of so many change sets per shard, the first ones, it is watched at once that a part of them is missing."""

HISTORIES = 64
"""How many names of histories are remembered of messages: made-up ones fill no memory."""

Spool = Callable[[int], IO[bytes]]
"""Makes the place where the blocks of one change set wait: a file-like object, opened for reading and writing, that
holds the given number of bytes in memory, and more than that in a file.
"""

Foreign = Callable[[StreamMessage, str], None]
"""Hears of a message that no node wrote in its own name, and why; it is stepped over."""


def _in_memory(most: int) -> IO[bytes]:
    return BytesIO()


def _unheard(message: StreamMessage, why: str) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Cut:
    """Pieces in an order that respects every shard's, and the positions that they lead to.

    ``before``: the positions that it starts from. ``voided``: change sets that were passed over, as others gave up on
    them.
    """

    pieces: tuple[Piece, ...]
    positions: dict[int, Position]
    before: dict[int, Position]
    voided: tuple[ChangeSetId, ...] = ()

    def holding(self, shard: int, seq: int) -> tuple[Piece, ...]:
        """Return all pieces of the change set of which one ends at message ``seq`` of ``shard``."""
        names = {piece.id for piece in self.pieces if (piece.shard, piece.seq) == (shard, seq)}
        return tuple(piece for piece in self.pieces if piece.id in names)

    def without(self, pieces: tuple[Piece, ...]) -> Cut:
        """Return this cut with ``pieces``, all of a change set, passed over as if others had given up on it."""
        kept = tuple(piece for piece in self.pieces if piece not in pieces)
        voided = dict.fromkeys(piece.id for piece in pieces)
        return Cut(kept, self.positions, self.before, (*self.voided, *voided))

    def close(self) -> None:
        """Give the places of all blocks back."""
        for piece in self.pieces:
            piece.close()


class Inbox:
    """Collects messages; see the module's invariant. Not thread-safe.

    ``shards``: how many there are, where ``positions`` are not all of them.
    """

    def __init__(
        self, positions: dict[int, Position], *, shards: int = 0, spool: Spool = _in_memory, foreign: Foreign = _unheard
    ) -> None:
        self._shards = shards or len(positions)
        self._foreign = foreign
        self._lanes = {
            shard: Lane(position, position.resume - 1, aborted=dict.fromkeys(position.aborted))
            for shard, position in positions.items()
        }
        self._skip: set[tuple[int, int]] = set()
        self._spool = spool
        self._given_up: list[ChangeSetId] = []
        self.histories: set[str] = set()
        """The histories that the writers of what was added are in, as far as they say."""

    def close(self) -> None:
        """Give the places of all that was not taken back; the inbox is of no use any more."""
        for lane in self._lanes.values():
            for spool in [part.spool for part in lane.open.values()] + [piece.spool for piece in lane.ready]:
                spool.close()

    def skip(self, shard: int, seq: int) -> None:
        """Leave message ``seq`` of ``shard`` out when it comes, and with it all of the change set that it belongs to:
        here it counts as one that others gave up on.
        """
        self._skip.add((shard, seq))

    def read_up_to(self, shard: int) -> int:
        """Return the last sequence of ``shard`` that was added."""
        return self._lanes[shard].read

    @property
    def under_way_count(self) -> int:
        """Change sets of which a shard has some messages and not the last."""
        return sum(len(lane.open) for lane in self._lanes.values())

    @property
    def waiting(self) -> int:
        """Complete pieces that were not taken yet."""
        return sum(len(lane.ready) for lane in self._lanes.values())

    @property
    def waiting_bytes(self) -> int:
        """Bytes of the complete pieces that were not taken yet."""
        return sum(piece.size for lane in self._lanes.values() for piece in lane.ready)

    def position(self, shard: int) -> Position:
        """Return where what was taken of ``shard`` ends."""
        return self._lanes[shard].position

    def oldest(self, shard: int) -> float:
        """Return when the oldest piece of ``shard`` that was not taken yet was stored, 0.0 when there is none."""
        ready = self._lanes[shard].ready
        return ready[0].stored if ready else 0.0

    def unfinished(self) -> list[tuple[ChangeSetId, int]]:
        """Return the change sets that are complete on a shard and hold it up, now or once it gets there, each with a
        shard on which it is not whole yet. Of each shard, the first `UNFINISHED_WATCHED` such pieces count.
        """
        complete = {shard: {piece.name for piece in lane.ready} for shard, lane in self._lanes.items()}
        found: dict[tuple[ChangeSetId, int], None] = {}
        for lane in self._lanes.values():
            missing = (
                (piece.id, [s for s in piece.shards if s in complete and piece.name not in complete[s]])
                for piece in lane.ready
                if len(piece.shards) > 1 and not self._void(piece)
            )
            for name, others in islice((each for each in missing if each[1]), UNFINISHED_WATCHED):
                found |= dict.fromkeys((name, other) for other in others)
        return list(found)

    @property
    def held_up(self) -> bool:
        """Whether a shard can't go on before another one has read further."""
        return any(
            self._missing(lane.ready[0], other)
            for lane in self._lanes.values()
            if lane.ready
            for other in lane.ready[0].shards
        )

    def begun(self, shard: int) -> list[tuple[ChangeSetId, int]]:
        """Return the change sets of which ``shard`` has some messages and not the last, each with how many."""
        return [(part.id, part.count) for part in self._lanes[shard].open.values()]

    def under_way(self, own: str) -> tuple[ChangeSetId, int] | None:
        """Return id and shard of the change set of others with the most whole blocks that is not all here."""
        found = [
            (len(part.blocks), part.id, shard)
            for shard, lane in self._lanes.items()
            for node, part in lane.open.items()
            if node != own and part.blocks
        ]
        return max(found, key=lambda each: each[0])[1:] if found else None

    def block(self, change_set: ChangeSetId, shard: int, number: int) -> Piece | None:
        """Return one block of a change set that is not all here, with its own bytes; None where it is not there."""
        part = self._lanes[shard].open.get(change_set.node)
        if part is None or part.id != change_set or number >= len(part.blocks):
            return None
        offset, length, packed = part.blocks[number]
        part.spool.seek(offset)
        body = BytesIO(part.spool.read(length))
        seq = self._lanes[shard].read
        return Piece(change_set, KIND_CHANGES, shard, part.first, seq, (), 0.0, {}, [(0, length, packed)], body)

    def add(self, message: StreamMessage) -> None:
        """Take in the next message of its shard; one that was seen before changes nothing. Raises PoisonError."""
        lane = self._lanes[message.shard]
        if message.seq <= lane.read:
            return
        if (message.shard, message.seq) in self._skip:
            self._leave_out(lane, message)
        else:
            try:
                envelope = decode_envelope(message, self._shards)
                if envelope.history and len(self.histories) < HISTORIES:
                    self.histories.add(envelope.history)
                if envelope.kind == KIND_ABORT:
                    self._abort(lane, decode_abort(envelope.body))
                elif envelope.id not in lane.aborted:
                    self._collect(lane, message, envelope)
            except ForeignMessageError as error:
                if message.seq > lane.position.seq:  # after a restart, some are read a second time
                    self._foreign(message, str(error))
            except WireError as error:
                raise newer(message.shard, message.seq, str(error)) from error
        lane.read = message.seq

    def _leave_out(self, lane: Lane, message: StreamMessage) -> None:
        try:
            envelope = decode_envelope(message, self._shards)
        except WireError:
            return  # of which change set it is a part, nobody can tell
        if envelope.kind != KIND_ABORT and envelope.id not in lane.aborted:
            given_up = len(self._given_up)
            self._abort(lane, envelope.id)
            if len(envelope.shards) == 1 and len(self._given_up) == given_up:
                self._given_up.append(envelope.id)

    def _abort(self, lane: Lane, victim: ChangeSetId) -> None:
        """Void a change set on whose piece on this lane others gave up; too late when the piece is whole."""
        if any(piece.id == victim for piece in lane.ready):
            return
        lane.abort(victim)
        unfinished = lane.open.get(victim.node)
        if unfinished is not None and unfinished.id == victim:
            self._give_up(lane.open.pop(victim.node))

    def _give_up(self, part: Open) -> None:
        part.spool.close()
        if len(part.shards) == 1:  # of one that touches more shards, a piece of another shard will tell
            self._given_up.append(part.id)

    def _collect(self, lane: Lane, message: StreamMessage, envelope: Envelope) -> None:
        if envelope.kind not in CHANGES:  # one message, which says nothing of a change set that is under way
            self._complete(lane, message, envelope, Open(envelope.id, message.seq, BytesIO(), envelope.shards))
            return
        part = lane.open.get(envelope.node)
        if part is None or part.id != envelope.id:
            if envelope.index != 0:
                return
            place = self._spool(SPOOL_BYTES // (1 + self.under_way_count))
            part = Open(envelope.id, message.seq, place, envelope.shards, envelope.kind)
            ended = lane.open.pop(envelope.node, None) if envelope.last else lane.begin(part)
            if ended is not None:
                self._give_up(ended)
        if envelope.index != part.count:
            return  # a repeated part: it was published again after a lost acknowledgement
        if envelope.shards != part.shards or envelope.kind != part.kind:
            raise ForeignMessageError(f"it names other shards than the change set's first message, {part.first}")
        lane.append(part, envelope)
        if envelope.last:
            lane.open.pop(envelope.node, None)
            self._complete(lane, message, envelope, part)

    def _complete(self, lane: Lane, message: StreamMessage, envelope: Envelope, whole: Open) -> None:
        if message.seq > lane.position.seq:
            lane.ready.append(_piece(message, envelope, whole))
        else:
            whole.spool.close()

    def put_back(self, cut: Cut) -> None:
        """Undo the `take` that returned ``cut``; nothing may have been taken since."""
        for piece in reversed(cut.pieces):
            self._lanes[piece.shard].ready.appendleft(piece)
        for shard, position in cut.before.items():
            self._lanes[shard].position = position
        self._given_up += cut.voided

    def take(
        self, *, most_bytes: int = 1 << 62, own: tuple[str, str] | None = None, limit: dict[int, int] | None = None,
        least: bool = False,
    ) -> Cut | None:  # fmt: skip
        """Take the largest whole cut of at most about ``most_bytes``; None when nothing is whole.

        A change set of ``own``, a node and its session, and a checkpoint stand alone in their cut where the order
        allows it: what that session has under way is compared with what comes back. Those of its earlier sessions are
        like anybody's.
        ``limit``: the cut ends at or before these sequences. ``least``: take as little as can be taken.
        """
        before = {shard: lane.position for shard, lane in self._lanes.items()}
        counts = {} if least else self._whole(self._wanted(most_bytes, own, limit))
        if not any(counts.values()):
            counts = self._smallest(self._whole(self._wanted(1 << 62, None, limit, alone=True)))
        pieces = [self._lanes[shard].ready.popleft() for shard, n in sorted(counts.items()) for _ in range(n)]
        positions, last = {}, {piece.shard: piece for piece in pieces}
        for shard, lane in self._lanes.items():
            if lane.settle(1 << 62 if limit is None else limit.get(shard, 0), last.get(shard)) != before[shard]:
                positions[shard] = lane.position
        voided = [piece for piece in pieces if self._void(piece)]
        for piece in voided:
            piece.close()
        if not pieces and not positions:
            return None
        whole = tuple(piece for piece in pieces if piece not in voided)
        given_up, self._given_up = self._given_up, []
        return Cut(whole, positions, before, (*given_up, *(piece.id for piece in voided)))

    def _wanted(
        self, most_bytes: int, own: tuple[str, str] | None, limit: dict[int, int] | None, *, alone: bool = False
    ) -> dict[int, int]:
        """Return how many pieces of each lane fit, before wholeness is looked at; ``alone``: take all kinds."""
        counts: dict[int, int] = {}
        room = most_bytes
        for shard, lane in self._lanes.items():
            counts[shard] = 0
            for piece in lane.ready:
                if limit is not None and piece.seq > limit.get(shard, 0):
                    break
                if not alone and ((piece.id.node, piece.id.session) == own or piece.kind != KIND_CHANGES):
                    break
                if any(counts.values()) and piece.size > room:
                    break
                room -= piece.size
                counts[shard] += 1
        return counts

    def _void(self, piece: Piece) -> bool:
        return any(piece.id in self._lanes[shard].aborted for shard in piece.shards if shard in self._lanes)

    def _missing(self, piece: Piece, other: int) -> bool:
        """Tell whether ``piece`` has to wait for its part on shard ``other``."""
        lane = self._lanes.get(other)
        if lane is None or self._void(piece):
            return False
        return all(p.name != piece.name for p in lane.ready)

    def _whole(self, counts: dict[int, int]) -> dict[int, int]:
        """Lower ``counts`` until every change set within them is whole."""
        counts = dict(counts)
        lowered = True
        while lowered:
            lowered = False
            chosen = {s: [p for p, _ in zip(self._lanes[s].ready, range(n), strict=False)] for s, n in counts.items()}
            inside = {(piece.name, shard) for shard, pieces in chosen.items() for piece in pieces}
            for shard, pieces in chosen.items():
                for index, piece in enumerate(pieces):
                    if len(piece.shards) == 1 or self._void(piece):
                        continue
                    if any((piece.name, other) not in inside for other in piece.shards if other in self._lanes):
                        counts[shard], lowered = index, True
                        break
        return counts

    def _smallest(self, counts: dict[int, int]) -> dict[int, int]:
        """Return the smallest whole cut within ``counts``: what the first piece of some lane brings with it."""
        needs = [self._closure(shard, counts) for shard, n in counts.items() if n]
        return min((need for need in needs if need), key=lambda need: sum(need.values()), default={})

    def _closure(self, shard: int, limit: dict[int, int]) -> dict[int, int]:
        """Return the counts that taking the first piece of ``shard`` brings with it; {} where that is too much."""
        counts = dict.fromkeys(self._lanes, 0)
        todo = [(shard, 1)]
        while todo:
            lane, n = todo.pop()
            if n > limit[lane]:
                return {}
            fresh = list(self._lanes[lane].ready)[counts[lane] : n]
            counts[lane] = max(counts[lane], n)
            for piece in fresh:
                todo.extend(
                    (other, [p.name for p in self._lanes[other].ready].index(piece.name) + 1)
                    for other in (piece.shards if not self._void(piece) else ())
                    if other != lane and other in self._lanes
                )
        return counts


def _piece(message: StreamMessage, envelope: Envelope, whole: Open) -> Piece:
    return Piece(
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
    )
