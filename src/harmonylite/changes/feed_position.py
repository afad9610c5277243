"""A position as text: what a reader of changes stores, and what `wait` waits for.

Invariant: text made here reads back as the same positions, and says which streams its numbers belong to, so that a
place in streams that are gone is refused. Handwritten text such as ``0:12,1:9``, or ``12`` with one shard, is read too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from urllib.parse import quote, unquote

from harmonylite.errors import ConfigError
from harmonylite.model import ChangeSetId, Position, StreamInfo

TAG_BYTES = 4
"""Bytes of the digest that names a stream: enough to distinguish two of one cluster."""

LARGEST = 2**63 - 1


@dataclass(frozen=True, slots=True)
class FeedPlace:
    """One shard's part: fields as in `Position`; ``tag``: which stream the numbers belong to, "" = any."""

    shard: int
    seq: int
    resume: int
    aborted: tuple[ChangeSetId, ...] = ()
    tag: str = ""

    @property
    def position(self) -> Position:
        """Where a reassembler starts."""
        return Position(self.shard, self.seq, self.resume, aborted=self.aborted)

    def fits(self, info: StreamInfo) -> bool:
        """Return whether the stream is the one that the numbers belong to, or the same one up to there."""
        earlier = (created for created, upto in info.forks if self.seq <= upto)
        return not self.tag or self.tag in map(tag, (info.created, *earlier))


def tag(created: str) -> str:
    """Return the short name of the stream made at ``created``; "" where that is not known."""
    return blake2b(created.encode(), digest_size=TAG_BYTES).hexdigest() if created else ""


def text_of_positions(positions: Mapping[int, Position]) -> str:
    """Return ``positions`` as text without white space: ``0:12@1f0c2d3e``, more where a change set is under way."""
    return ",".join(_text(position) for _, position in sorted(positions.items()))


def _text(position: Position) -> str:
    resume = str(position.resume) if position.resume != position.seq + 1 else ""
    names = "+".join(quote(f"{each.number}/{each.session}/{each.node}", safe="") for each in position.aborted)
    more = f"/{resume}" if resume or names else ""
    made = tag(position.created)
    return f"{position.shard}:{position.seq}{more}{f'/{names}' if names else ''}{f'@{made}' if made else ''}"


def parse_position(text: str, shards: Iterable[int]) -> dict[int, FeedPlace]:
    """Return the place of every one of ``shards`` that ``text`` names; raises ConfigError."""
    wanted = sorted(shards)
    try:
        places = [_place(part, wanted) for part in text.split(",")]
    except ValueError:
        example = ",".join(f"{shard}:12" for shard in wanted)
        raise ConfigError(
            f"{text!r} is not a position", advice=f"write it as {example}, or as a node said it"
        ) from None
    found = {place.shard: place for place in places}
    if len(found) != len(places) or sorted(found) != wanted:
        named = ", ".join(map(str, wanted))
        raise ConfigError(f"position {text!r} does not name each shard once", advice=f"the shards are {named}")
    return found


def _place(text: str, shards: list[int]) -> FeedPlace:
    numbers, _, made = text.partition("@")
    place, _, more = numbers.partition("/")
    resume, _, names = more.partition("/")
    head, colon, last = place.rpartition(":")
    if not colon and len(shards) != 1:
        raise ValueError(text)
    shard, seq = (_number(head) if colon else shards[0]), _number(last)
    if made and (len(made) != 2 * TAG_BYTES or not made.isalnum()):
        raise ValueError(text)
    aborted = tuple(_name(unquote(name)) for name in names.split("+")) if names else ()
    after = _number(resume) if resume else seq + 1
    if not 1 <= after <= seq + 1:
        raise ValueError(text)
    return FeedPlace(shard, seq, after, aborted, made)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or int(text[:20]) > LARGEST:
        raise ValueError(text)
    return int(text)


def _name(text: str) -> ChangeSetId:
    number, session, node = text.split("/", 2)
    return ChangeSetId(node, session, _number(number))
