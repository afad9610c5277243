"""Vocabulary: the values and small records that every floor uses. Pure data, hardly any behaviour.

Invariant: no record holds an open resource; two records of equal content are equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

SqlValue: TypeAlias = "int | float | str | bytes | RawText | None"
"""One SQLite value, bit for bit. Text that is not UTF-8 travels as `RawText`."""

Row: TypeAlias = Sequence["SqlValue"]
"""Values of one row, in the order of the columns that are beside it."""


class RawText:
    """SQLite TEXT whose bytes are not UTF-8. ``data``: the bytes as stored.

    Not a dataclass: the MessagePack encoder would encode one as a map.
    """

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RawText) and other.data == self.data

    def __hash__(self) -> int:
        return hash((RawText, self.data))

    def __repr__(self) -> str:
        return f"RawText({self.data!r})"


def text_of(value: SqlValue) -> str:
    """Return a key's value as a user writes it on the command line."""
    match value:
        case None:
            return "NULL"
        case bytes():
            return f"x'{value.hex()}'"
        case RawText():
            return f"CAST(x'{value.data.hex()}' AS TEXT)"
    return str(value)


@dataclass(frozen=True, slots=True)
class StreamMessage:
    """One message of a shard's stream. ``time``: the server's time of storing, seconds since the epoch."""

    shard: int
    seq: int
    subject: str
    payload: bytes
    time: float = 0.0


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """State of one shard's stream. ``created``: the identity of its order (where it has none of ours, the server's
    creation time), an opaque text compared for equality.

    An empty stream has ``first == last + 1``. ``forks``: earlier values of ``created``, each with the last sequence up
    to which this stream is the same as that one was. ``most``: how many messages it keeps, 0 = all. ``now``: the
    server's clock when it answered, seconds since the epoch, 0 = it did not say. ``whole`` False: a copy, whose order
    may have messages after ``last``.
    """

    shard: int
    first: int
    last: int
    created: str
    messages: int = 0
    forks: tuple[tuple[str, int], ...] = ()
    most: int = 0
    now: float = field(default=0.0, compare=False)
    whole: bool = True

    def same(self, created: str, seq: int) -> bool:
        """Return whether sequence ``seq`` of the stream made at ``created`` ("" = unknown) is the same one here."""
        return created in ("", self.created) or any(created == old and seq <= upto for old, upto in self.forks)


@dataclass(frozen=True, slots=True)
class Position:
    """How far one shard's stream is folded.

    ``seq``: every change set whose last message is at or before it is folded. ``resume``: the first message to read
    after a restart: at most ``seq + 1``, lower where a change set in several messages is not whole yet.
    ``created``: the creation time of the stream that the numbers belong to. ``aborted``: the newest change sets that an
    abort message on this shard voids, oldest first: their pieces may come later, here or on another shard.
    ``newest``: sequence and name of the last change set up to there, which distinguishes the stream from one that lost
    its tail and continues with the same numbers; None: unknown.
    """

    shard: int
    seq: int = 0
    resume: int = 1
    created: str = ""
    aborted: tuple[ChangeSetId, ...] = ()
    newest: tuple[int, ChangeSetId] | None = None


@dataclass(frozen=True, slots=True)
class ChangeSetId:
    """Names one change set: node, the process's session (random text) and a number counted up within it."""

    node: str
    session: str
    number: int

    def __str__(self) -> str:
        return f"{self.node}/{self.session}/{self.number}"


@dataclass(frozen=True, slots=True)
class Conflict:
    """One entry of the conflict journal: a column that a writer changed was overruled.

    ``kind``: "update", "insert", "delete", "unique" or "join". ``key``/values: SQLite values.
    ``winner``/``loser``: node ids ("" where unknown). ``at``: seconds since the epoch.
    """

    table: str
    key: Mapping[str, SqlValue]
    column: str
    kind: str
    winning: SqlValue
    overruled: SqlValue
    winner: str
    loser: str
    shard: int
    seq: int
    at: float
    extra: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WaitingChange:
    """A schema change of another node that is not applied in this database.

    ``object``: what it is about, for a person ("table orders"); ``ddl``: the definition that the other node has;
    ``node``: that node, "" where unknown; ``why``: what it waits for, a sentence.
    """

    object: str
    ddl: str
    node: str
    why: str
