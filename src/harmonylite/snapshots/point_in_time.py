"""Point-in-time restore: a copy of the database's state at a position or a time, from a snapshot before it and the
streams.

Invariant: the copy holds whole change sets only, exactly those at or before the point, and nothing of ours; the file
appears under its name whole or not at all, and none that is there is overwritten.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from harmonylite.db.snapshot import lineage_of
from harmonylite.db.sqlite.connection import open_file
from harmonylite.db.uninstall import cleanup
from harmonylite.errors import (
    ObjectMissingError,
    PoisonError,
    SchemaWaitError,
    SnapshotDamagedError,
    SnapshotError,
    SnapshotRoomError,
)
from harmonylite.model import StreamInfo
from harmonylite.ports import ShardStream
from harmonylite.snapshots.divergence import diverged
from harmonylite.snapshots.manifest import Snapshot
from harmonylite.snapshots.replay import Replay, Unfit, replayed
from harmonylite.snapshots.repository import SnapshotRepository

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Restored:
    """What was made. ``positions``: the copy's; ``snapshot``: what it was made from; ``left_out``: for each
    message that can't be applied, and that the copy lacks with all of its change set, why.
    """

    file: Path
    positions: dict[int, int]
    snapshot: str
    left_out: tuple[Unfit, ...] = ()


def check_target(target: Path) -> None:
    """Raise SnapshotError if ``target`` exists, or can't be created."""
    if target.exists():
        raise SnapshotError(f"{target} is there already", advice="name a file that does not exist")
    if not target.parent.is_dir():
        raise SnapshotError(f"there is no folder {target.parent}", advice="make it, or name another file with -o")


async def restore(
    repository: SnapshotRepository,
    what: Replay,
    target: Path,
    *,
    at: float | None = None,
    position: int | None = None,
    schema: Path | None,
) -> Restored:
    """Make ``target``: the state at ``at`` (seconds since the epoch, the servers' clock), at ``position`` of the one
    shard, or now; without streams as the newest snapshot has it. ``schema``: a mirror with the schema of now, if there
    is one. Raises SnapshotError, saying how far back one can go when the point is out of reach.
    """
    check_target(target)
    if not what.streams and (at is not None or position is not None):
        raise SnapshotError(
            "without the streams there is only what snapshots hold",
            advice="leave -at and -position out for the newest one, or fetch one by its name",
        )
    streams = {stream.shard: await stream.info() for stream in what.streams}
    targets = await _targets(what.streams, streams, at, position)
    reachable = [s for s in await repository.candidates() if _leads_on(s, streams)]
    chosen = [s for s in reachable if all(s.positions[shard] <= end for shard, end in targets.items())]
    if at is not None and all(targets[shard] < info.first for shard, info in streams.items()):
        chosen = [s for s in chosen if s.at <= at]  # no message shows what was before the snapshot
    if not chosen:
        raise SnapshotError(
            f"{_point(at, position)} is out of reach: {await _earliest(what.streams, reachable)}",
            advice="see which snapshots there are with: harmonylite snapshot list",
        )
    building = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    best, file = await _nearest(repository, chosen, what.streams)
    try:
        try:
            ends, left_out = await _replay(file, what, building, targets, None, refused=schema is None)
        except (SchemaWaitError, PoisonError):
            if schema is None:
                raise
            # The schema changed since the snapshot: the one that the database has now can hold what came later.
            _forget(building)
            ends, left_out = await _replay(await repository.fetch_one(best), what, building, targets, schema)
        await asyncio.to_thread(_finish, building, target)
    finally:
        _forget(building)
    for error in left_out:
        log.warning("missed a change set for %(target)s: %(error)s", {"target": target, "error": error.message})
    return Restored(target, ends, best.name, left_out)


async def _nearest(
    repository: SnapshotRepository, chosen: Sequence[Snapshot], streams: Sequence[ShardStream]
) -> tuple[Snapshot, Path]:
    """Fetch the last of the ``chosen`` that is undamaged and agrees with the streams."""
    failed = SnapshotError("there is no snapshot to begin with")
    for snapshot in sorted(chosen, key=lambda s: sum(s.positions.values()), reverse=True):
        try:
            file = await repository.fetch_one(snapshot)
        except (SnapshotDamagedError, SnapshotRoomError, ObjectMissingError) as error:
            failed = error
        else:
            if not (why := await diverged(file, streams)):
                return snapshot, file
            file.unlink()
            failed = SnapshotError(f"snapshot {snapshot.name} can't be used: {why}")
        log.warning("trying an older snapshot: %(error)s", {"error": failed.message})
    raise failed


async def _replay(
    file: Path,
    what: Replay,
    building: Path,
    targets: Mapping[int, int],
    schema: Path | None,
    *,
    refused: bool = True,
) -> tuple[dict[int, int], tuple[Unfit, ...]]:
    """Make ``building``; return where it ends, and what could not be applied. Raises SchemaWaitError while ``schema``
    is None, and PoisonError for a row that the tables refuse where ``refused`` is False: another schema may let it in.
    """
    left_out: list[Unfit] = []

    def on_skipped(error: Unfit) -> None:
        if isinstance(error, SchemaWaitError) and schema is None:
            raise error
        if isinstance(error, PoisonError) and error.refused and not refused:
            raise error
        left_out.append(error)

    try:
        async with replayed(
            what, file, targets, schema=schema or file, database=building, on_skipped=on_skipped
        ) as made:
            lineage = await asyncio.to_thread(lineage_of, made.options.mirror)
            return {shard: position.seq for shard, position in lineage.positions.items()}, tuple(left_out)
    finally:
        await asyncio.to_thread(file.unlink, missing_ok=True)


def _finish(building: Path, target: Path) -> None:
    """Remove our objects from the copy, make it one file, and give it its name."""
    cleanup(building)
    connection = open_file(building)
    try:
        connection.pragma("journal_mode", "delete")
    finally:
        connection.close()
    target.hardlink_to(building)


def _forget(building: Path) -> None:
    for side in ("", "-wal", "-shm", "-journal"):
        Path(f"{building}{side}").unlink(missing_ok=True)


def _leads_on(snapshot: Snapshot, streams: Mapping[int, StreamInfo]) -> bool:
    """Return whether every message after ``snapshot`` is kept."""
    return all(
        snapshot.created.get(shard, "") != ""
        and info.same(snapshot.created[shard], snapshot.positions[shard])
        and snapshot.resume[shard] >= info.first
        for shard, info in streams.items()
    )


async def _targets(
    shards: Sequence[ShardStream], streams: Mapping[int, StreamInfo], at: float | None, position: int | None
) -> dict[int, int]:
    if position is not None:
        if len(streams) > 1:
            raise SnapshotError("a position names a point of one shard, and there are several", advice="use --at")
        last = streams[0].last
        if position > last:
            raise SnapshotError(f"position {position} is in the future: the stream ends at {last}")
        return {0: position}
    if at is None:
        return {shard: info.last for shard, info in streams.items()}
    return {stream.shard: await last_before(stream, streams[stream.shard], at) for stream in shards}


async def last_before(stream: ShardStream, info: StreamInfo, at: float) -> int:
    """Return the newest sequence that was stored at or before ``at``; the one before the first kept when none was."""
    low, high = info.first - 1, info.last
    while low < high:
        middle = (low + high + 1) // 2
        message, seq = None, middle
        while message is None and seq <= high:
            message = await stream.get(seq)
            seq += message is None
        if message is None or message.time > at:
            high = middle - 1
        else:
            low = seq
    return low


def _point(at: float | None, position: int | None) -> str:
    return f"position {position}" if at is None else f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"


async def _earliest(shards: Sequence[ShardStream], reachable: Sequence[Snapshot]) -> str:
    """Return a sentence on how far back a restore can go."""
    if not reachable:
        return "no kept snapshot leads on to what the streams still hold"
    oldest = min(reachable, key=lambda s: sum(s.positions.values()))
    places = "; ".join(f"position {seq} of shard {shard}" for shard, seq in sorted(oldest.positions.items()))
    times = [m.time for s in shards if (m := await s.get(max(1, oldest.positions[s.shard]))) is not None]
    when = f" ({datetime.fromtimestamp(max(times), UTC):%Y-%m-%d %H:%M:%S} UTC)" if times else ""
    return f"the oldest point that can be reached is {places}{when}, with snapshot {oldest.name}"
