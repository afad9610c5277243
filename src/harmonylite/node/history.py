"""Requests about the past: snapshots, a copy of an earlier state, a row's history.

Invariant: nothing here changes the node's own files; a file that is there already is never overwritten.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from harmonylite.db.sqlite.file_access import follow
from harmonylite.db.sqlite.thread import SqliteThread
from harmonylite.errors import (
    ConfigError,
    NotFoundError,
    NotRunningError,
    ObjectMissingError,
    SnapshotDamagedError,
    SnapshotRoomError,
)
from harmonylite.model import SqlValue
from harmonylite.node.control import Parts
from harmonylite.replication.row_history import Event, history
from harmonylite.schema.names import advice, find
from harmonylite.snapshots.manifest import Snapshot
from harmonylite.snapshots.point_in_time import check_target, restore
from harmonylite.snapshots.replay import Replay, Unfit
from harmonylite.snapshots.repository import SnapshotRepository
from harmonylite.web.values import row_json

log = logging.getLogger(__name__)


class History:
    """Implements `harmonylite.web.history_routes.HistoryActions`. ``replaying``: set by the node as it starts."""

    def __init__(self, thread: SqliteThread, parts: Parts) -> None:
        self._thread = thread
        self._parts = parts
        self.replaying: Replay | None = None

    def _there(self) -> tuple[SnapshotRepository, Replay]:
        if self._parts.repository is None or self.replaying is None:
            raise NotRunningError("the node is not connected to the store yet")
        return self._parts.repository, self.replaying

    async def snapshots(self) -> Sequence[dict[str, Any]]:
        """Return the snapshots in the store, the newest first; ``newest``: the one that new nodes start from."""
        repository, _ = self._there()
        pointed = await repository.newest()
        listed = await repository.catalog.listed()
        if pointed is not None and all(snapshot.name != pointed.name for snapshot in listed):
            listed = [pointed, *listed]
        name = pointed.name if pointed is not None else ""
        return [_snapshot_json(snapshot, newest=snapshot.name == name) for snapshot in listed]

    async def fetch_snapshot(self, name: str, target: str) -> dict[str, Any]:
        """Fetch a snapshot, "" for the newest one, unpacked and checked, into the new file ``target``."""
        repository, replaying = self._there()
        file = Path(target)
        await asyncio.to_thread(check_target, file)
        found = [s for s in await repository.candidates() if name in ("", s.name)]
        if not found:
            raise NotFoundError(
                f"there is no snapshot {name}" if name else "there is no snapshot yet",
                advice="see which there are with: harmonylite snapshot list",
            )
        for snapshot, older in zip(found, [*found[1:], None], strict=True):
            try:
                await repository.fetch_one(snapshot, file)
            except (SnapshotDamagedError, SnapshotRoomError, ObjectMissingError) as error:
                if older is None:
                    raise
                log.warning("%(error)s; trying %(snapshot)s", {"error": error.message, "snapshot": older.name})
            else:
                break
        await asyncio.to_thread(follow, file, replaying.options.database)
        return _snapshot_json(snapshot, newest=False) | {"file": str(file)}

    async def restore(self, target: str, at: float | None, position: int | None) -> dict[str, Any]:
        """Restore a copy of the database to a time or a position; see `harmonylite.snapshots.point_in_time`."""
        repository, replaying = self._there()
        mirror = replaying.folder / "mirror.db"
        schema = mirror if mirror.exists() else None
        made = await restore(repository, replaying, Path(target), at=at, position=position, schema=schema)
        found = {"file": str(made.file), "positions": made.positions, "snapshot": made.snapshot}
        return found | {"streams": bool(replaying.streams), "left_out": _left_out_json(made.left_out)}

    async def history(self, table: str, key: Sequence[str], limit: int) -> dict[str, Any]:
        """Return what happened to a row, the oldest first, as far back as the stream reaches."""
        _, replaying = self._there()
        replica = self._parts.replica
        if replica is None:
            raise NotRunningError("the database is not open yet")
        tables = await self._thread.run(lambda: dict(replica.tables))
        found = find(table, tables)
        if found is None:
            raise NotFoundError(f"there is no replicated table {table}", advice=advice(table, tables))
        shape = tables[found].shape
        names = [column.name for column in shape.keys if not column.pseudo] or [shape.rowid]
        if len(names) != len(key):
            raise ConfigError(f"the key of table {table} is {', '.join(names)}", advice="give a value for each")
        events, first, left_out = await history(replaying.streams, shape, key, most=limit)
        whole = {column.name for column in shape.keys if column.pseudo == "null"}
        listed = [_event_json(event, whole) for event in events]
        return {"table": found, "key": names, "first": first, "events": listed, "left_out": _left_out_json(left_out)}


def _snapshot_json(snapshot: Snapshot, *, newest: bool) -> dict[str, Any]:
    return {
        "name": snapshot.name,
        "node": snapshot.node,
        "at": snapshot.at,
        "bytes": snapshot.bytes,
        "size": snapshot.size,
        "positions": snapshot.positions,
        "sha256": snapshot.sha256,
        "newest": newest,
    }


def _left_out_json(left_out: Sequence[Unfit]) -> list[dict[str, Any]]:
    return [{"shard": error.shard, "seq": error.seq, "reason": error.message} for error in left_out]


def _event_json(event: Event, claims: Collection[str] = ()) -> dict[str, Any]:
    """Return an event. ``claims``: columns that identify rows whose key holds NULL, of no interest for others."""

    def shown(values: Mapping[str, SqlValue]) -> dict[str, Any]:
        return row_json({name: value for name, value in values.items() if value is not None or name not in claims})

    return {
        "kind": event.kind,
        "node": event.node,
        "shard": event.shard,
        "seq": event.seq,
        "at": event.at,
        "written": event.written,
        "before": shown(event.before),
        "after": shown(event.after),
    }
