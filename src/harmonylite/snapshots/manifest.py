"""The description beside a snapshot, and what the snapshot can be used for.

Invariant: a description is stored after its snapshot is whole and before the pointer names it, and says afterwards that
it was named. So snapshots can be found by listing the store, also when NATS lost its pointers, and one that lost the
race for the pointer is never taken for the cluster's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from harmonylite.changes.epochs import Lineage
from harmonylite.errors import ForeignError, SnapshotDamagedError
from harmonylite.foreign import Codec, Line, Name, PerShard, Seconds, Seq, Shard
from harmonylite.model import Position, StreamInfo

DESCRIPTION = ".json"
"""A description is called like its snapshot, and ends like this."""
PREFIX = "snapshot-"
NAME = rf"\A{PREFIX}[0-9A-Za-z_-]{{1,100}}\Z"
"""Names of snapshots: none that a store or a file system reads as a path."""
SnapshotName = Annotated[str, Meta(pattern=NAME)]


class Snapshot(msgspec.Struct, frozen=True):
    """One saved snapshot. ``positions``: shard to last folded sequence; ``resume``: where to read on from;
    ``created``: per shard the stream that they belong to; ``sha256``: of the uncompressed file; ``bytes``, ``size``:
    compressed and not; ``at``: seconds since the epoch; ``cluster``: whose it is; ``history``: see
    `harmonylite.changes.epochs`; ``begins``: nothing of that history was folded yet; ``named``: the pointer named
    it, so nodes may start from it; None: an earlier version saved it and does not say; ``origin``: the cluster's first
    history, "" likewise; ``signer``, ``signature``: see `harmonylite.snapshots.signing`.
    """

    name: SnapshotName
    node: Name
    positions: PerShard
    resume: PerShard
    created: Annotated[dict[Shard, Line], Meta(max_length=1024)]
    sha256: Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
    bytes: Seq
    at: Seconds
    older: list[SnapshotName] = []
    size: Seq = 0
    cluster: Line = ""
    history: Line = ""
    begins: bool = False
    named: bool | None = None
    origin: Line = ""
    signer: Annotated[str, Meta(pattern=r"\A(U[A-Z2-7]{55})?\Z")] = ""
    signature: Annotated[str, Meta(pattern=r"\A([0-9a-f]{128})?\Z")] = ""

    @property
    def lineage(self) -> Lineage:
        """What the description says of the snapshot's lineage: its epoch, and the first one."""
        return Lineage(self.history, past={self.origin: {}} if self.origin != self.history else {})


CODEC = Codec("the description of a snapshot", Snapshot, most=1024 * 1024)


@dataclass(frozen=True, slots=True)
class Packed:
    """A snapshot's file: its digest, its bytes, and its size unpacked."""

    sha256: str
    bytes: int
    size: int


def describe(
    name: str, node: str, cluster: str, lineage: Lineage, packed: Packed, *, at: float, begins: bool = False
) -> Snapshot:
    """Return the description of a snapshot that is at ``lineage``."""
    positions, resume, created = _at(lineage)
    return Snapshot(
        name,
        node,
        positions,
        resume,
        created,
        packed.sha256,
        packed.bytes,
        at,
        [],
        packed.size,
        cluster,
        lineage.history,
        begins,
        named=False,
        origin=lineage.origin,
    )


def is_at(snapshot: Snapshot, lineage: Lineage) -> bool:
    """Return whether a description fits a snapshot that is at ``lineage``."""
    said = (snapshot.positions, snapshot.resume, snapshot.created)
    if snapshot.origin not in ("", lineage.origin):
        return False
    return (said, snapshot.history) == (_at(lineage), lineage.history)


def _at(lineage: Lineage) -> tuple[dict[int, int], dict[int, int], dict[int, str]]:
    """Return sequence, where to read on from, and stream, by shard."""
    at: dict[int, Position] = dict(lineage.positions)
    return (
        {s: p.seq for s, p in at.items()},
        {s: p.resume for s, p in at.items()},
        {s: p.created for s, p in at.items()},
    )


def decode(data: bytes, what: str) -> Snapshot:
    """Return the description in ``data``; raises SnapshotDamagedError naming ``what``."""
    try:
        return CODEC.decode(data, what)
    except ForeignError as error:
        raise SnapshotDamagedError(error.message) from error


def read_description(file: Path) -> bytes:
    """Return what a file holds, as far as a description may go and one byte more."""
    with file.open("rb") as opened:
        return opened.read(CODEC.most + 1)


def encode(snapshot: Snapshot) -> bytes:
    """Return a description as it is stored."""
    return CODEC.encode(snapshot)


def fits(snapshot: Snapshot, streams: Iterable[StreamInfo]) -> bool:
    """Return whether a node that starts from ``snapshot`` can follow the streams as they are now."""
    return all(
        info.shard in snapshot.positions
        and bool(snapshot.created.get(info.shard))
        and info.same(snapshot.created[info.shard], snapshot.positions[info.shard])
        and snapshot.positions[info.shard] <= info.last
        and snapshot.resume.get(info.shard, 1) >= info.first
        for info in streams
    )


def is_behind(snapshot: Snapshot, known: Snapshot) -> bool:
    """Return whether ``snapshot`` is behind ``known``, of the same history, on some shard."""
    return snapshot.history == known.history and any(
        seq < known.positions.get(shard, 0) and snapshot.created.get(shard) == known.created.get(shard)
        for shard, seq in snapshot.positions.items()
    )


def saved_at(name: str) -> float:
    """Return when a snapshot was begun, in seconds since the epoch by its saver's clock; infinity for an odd name."""
    digits = name.removeprefix(PREFIX).partition("-")[0]
    return int(digits) / 1e9 if digits.isdecimal() else float("inf")


def usable(names: Iterable[str]) -> list[str]:
    """Return the names of snapshots that have a description, the newest first (names begin with the time)."""
    listed = set(names)
    return sorted((n for n in listed if re.match(NAME, n) and n + DESCRIPTION in listed), reverse=True)
