"""Streams of a few writers for Hypothesis, and the largest whole batch of them, found by trying all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

from hypothesis import strategies as st

from harmonylite.changes.reassembler import Reassembler
from harmonylite.model import ChangeSetId, Position, StreamMessage
from harmonylite.wire import KIND_ABORT, KIND_CHANGES, VERSION, Envelope, encode_abort, encode_envelope

Fragment = tuple[int, ChangeSetId]
"""What one change set has on one shard: the sequence of its last message, and whose it is."""


@dataclass
class Streams:
    """All messages by shard, and what each change set should come to. ``fragments``: complete ones, in order, by shard;
    ``aborts``: shard and sequence of the messages that void a change set, and which.
    """

    shards: int
    messages: dict[int, list[tuple[str, bytes]]]
    fragments: dict[int, list[Fragment]]
    touched: dict[ChangeSetId, frozenset[int]]
    aborts: list[tuple[int, int, ChangeSetId]] = field(default_factory=list)

    def message(self, shard: int, seq: int) -> StreamMessage:
        """Return one message."""
        node, payload = self.messages[shard][seq - 1]
        return StreamMessage(shard, seq, f"t.{shard}.{node}", payload, float(seq))

    def ends(self) -> dict[int, int]:
        """Return the last sequence of every shard."""
        return {shard: len(found) for shard, found in self.messages.items()}

    def void(self, read: Mapping[int, int]) -> set[ChangeSetId]:
        """Return the change sets that what is read voids."""
        return {name for shard, seq, name in self.aborts if seq <= read[shard]}

    def largest(self, read: Mapping[int, int]) -> set[ChangeSetId]:
        """Return the change sets of the largest whole batch of what is read, void ones left out."""
        there = [[name for seq, name in self.fragments[s] if seq <= read[s]] for s in range(self.shards)]
        void, best = self.void(read), set[ChangeSetId]()
        for counts in product(*(range(len(found) + 1) for found in there)):
            inside = [set(found[:n]) for found, n in zip(there, counts, strict=True)]
            names = set[ChangeSetId]().union(*inside) - void
            if all(name in inside[shard] for name in names for shard in self.touched[name]):
                best = max(best, names, key=len)
        return best


def envelope(
    name: ChangeSetId, index: int, *, last: bool, shards: Sequence[int], more: bool = False, body: bytes = b"x"
) -> bytes:
    """Return the payload of one message of a change set."""
    return encode_envelope(
        Envelope(
            VERSION,
            KIND_CHANGES,
            name.node,
            name.session,
            name.number,
            index,
            more,
            last,
            list(shards),
            0.0,
            {},
            False,
            body,
        )
    )


def abort(victim: ChangeSetId, shard: int, node: str = "z") -> bytes:
    """Return the payload of a message that voids a change set."""
    body = encode_abort(victim)
    return encode_envelope(Envelope(VERSION, KIND_ABORT, node, "s", 0, 0, False, True, [shard], 0.0, {}, False, body))


@st.composite
def streams(draw: st.DrawFn, *, aborts: bool = False) -> Streams:
    """Draw what two writers publish on up to three shards, in any order of the two; the end may be cut off."""
    shards = draw(st.integers(1, 3))
    made = Streams(shards, {s: [] for s in range(shards)}, {s: [] for s in range(shards)}, {})
    queues: dict[tuple[str, int], list[tuple[bytes, ChangeSetId, bool]]] = {}
    for node in "ab":
        for number in range(draw(st.integers(0, 3))):
            name = ChangeSetId(node, "s", number)
            on = made.touched[name] = draw(st.frozensets(st.integers(0, shards - 1), min_size=1))
            for shard in sorted(on):
                count = draw(st.integers(1, 3))
                queue = queues.setdefault((node, shard), [])
                for index in range(count):
                    last = index == count - 1
                    queue.append((envelope(name, index, last=last, shards=sorted(on)), name, last))
    for shard in range(shards):
        left = [queues.get((node, shard), []) for node in "ab"]
        while any(left):
            queue = draw(st.sampled_from([q for q in left if q]))
            payload, name, last = queue.pop(0)
            if aborts and draw(st.integers(0, 9)) == 0 and name not in _complete(made, shard):
                made.messages[shard].append(("z", abort(name, shard)))
                made.aborts.append((shard, len(made.messages[shard]), name))
            made.messages[shard].append((name.node, payload))
            if last:
                made.fragments[shard].append((len(made.messages[shard]), name))
        if draw(st.booleans()):
            end = draw(st.integers(0, len(made.messages[shard])))
            del made.messages[shard][end:]
            made.fragments[shard] = [(seq, name) for seq, name in made.fragments[shard] if seq <= end]
            made.aborts = [found for found in made.aborts if found[0] != shard or found[1] <= end]
    return made


def _complete(made: Streams, shard: int) -> set[ChangeSetId]:
    return {name for _, name in made.fragments[shard]}


def fresh(shards: int) -> Reassembler:
    """Return a reassembler that begins at the beginning."""
    return Reassembler({shard: Position(shard) for shard in range(shards)})
