"""What the node's answers to commands must be made of, by path: the fields that the commands show.

Invariant: what has these types is shown without an error of Python's; another program may have taken the node's port,
and the node may be of another version than the command. Other fields pass as they are.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from harmonylite.foreign import Long, Seconds, Seq, Shard, Untyped
from harmonylite.node.peer_reports import Report

Positions = dict[str, Seq]


class Refusal(msgspec.Struct):
    """Why the node refuses, in an answer that has a code from 400 on."""

    error: str = ""
    exit_code: Annotated[int, Meta(ge=1, le=255)] = 1


CODEC = Untyped("the node's answer", check=Refusal, most=512 * 1024**2)


class Status(Report):
    """One node's report; a node that did not answer has a name only."""

    node_id: Long = ""
    progress: tuple[str, Seq, Seq] | None = None


class Cluster(msgspec.Struct):
    """The reports of all nodes."""

    nodes: list[Status]


class ConflictAnswer(msgspec.Struct):
    """An entry of the conflict journal."""

    at: Seconds
    table: str
    key: dict[str, Any]
    column: str
    kind: str
    winning: Any
    overruled: Any
    winner: str | None
    loser: str | None
    shard: Shard
    seq: Seq


class Conflicts(msgspec.Struct):
    """Entries of the conflict journal."""

    conflicts: list[ConflictAnswer]


class EventAnswer(msgspec.Struct):
    """What happened to a row once."""

    at: Seconds
    node: str
    kind: str
    shard: Shard
    seq: Seq
    before: dict[str, Any]
    after: dict[str, Any]


class SkippedAnswer(msgspec.Struct):
    """A message that can't be read or applied."""

    shard: Shard
    seq: Seq
    reason: Long


class HistoryAnswer(msgspec.Struct):
    """What happened to a row."""

    first: Positions
    events: list[EventAnswer]
    left_out: list[SkippedAnswer] = []


class Table(msgspec.Struct):
    """A table as compared with the mirror's."""

    table: str
    rows: Seq = 0
    missing: Seq = 0
    extra: Seq = 0
    different: Seq = 0
    sample: list[Any] = []


class Local(msgspec.Struct):
    """Database and mirror compared."""

    equal: bool = False
    pending_rows: Seq = 0
    held_rows: Seq = 0
    tables: list[Table] = []


class Agreement(msgspec.Struct):
    """How a node's mirror compares."""

    node_id: Long
    agrees: bool
    digest: str | None = None
    note: str | None = None


class Verified(msgspec.Struct):
    """What a comparison found."""

    agree: bool
    local: Local | None = None
    positions: Positions = {}
    nodes: list[Agreement] = []
    silent: list[Long] = []
    repaired: Seq = 0


class Listed(msgspec.Struct):
    """A snapshot in the store."""

    name: str
    node: str
    at: Seconds
    bytes: Seq
    size: Seq
    newest: bool
    positions: Positions = {}


class Snapshots(msgspec.Struct):
    """The snapshots in the store."""

    snapshots: list[Listed]


class Saved(msgspec.Struct):
    """The snapshot that was saved."""

    name: str
    bytes: Seq
    positions: Positions = {}


class Fetched(msgspec.Struct):
    """The file that was fetched."""

    name: str
    file: str
    size: Seq
    positions: Positions = {}


class RestoredAnswer(msgspec.Struct):
    """The copy that was made."""

    snapshot: str
    file: str
    positions: Positions = {}
    left_out: list[SkippedAnswer] = []


class ChangeAnswer(msgspec.Struct):
    """A row that a transaction changed."""

    table: str
    kind: str
    key: dict[str, Any]
    before: dict[str, Any]
    after: dict[str, Any]


class FeedAnswer(msgspec.Struct):
    """A line of the change feed: a transaction, a part of one, or only how far the feed is; the last one may be why it
    ends.
    """

    position: str | None = None
    origin: str = ""
    at: Seconds = 0.0
    changes: list[ChangeAnswer] = []
    skipped: str = ""
    error: str = ""
    exit_code: Annotated[int, Meta(ge=1, le=255)] = 1


class PositionAnswer(msgspec.Struct):
    """Where the node is."""

    position: str


class Moved(msgspec.Struct):
    """What was done to a region."""

    said: list[str] = []


ANSWERS: Final[dict[str, type[msgspec.Struct]]] = {
    "/v1/status": Status,
    "/v1/cluster": Cluster,
    "/v1/conflicts": Conflicts,
    "/v1/history": HistoryAnswer,
    "/v1/verify": Verified,
    "/v1/snapshots": Snapshots,
    "/v1/snapshot": Saved,
    "/v1/snapshot/fetch": Fetched,
    "/v1/snapshot/restore": RestoredAnswer,
    "/v1/region": Moved,
    "/v1/position": PositionAnswer,
    "/v1/wait": PositionAnswer,
}
"""Where a path is not named, its answer is not shown."""
