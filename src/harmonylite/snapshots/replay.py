"""Replay: bring a snapshot forward along the streams, in a separate folder, to an exact point.

Invariant: what comes out is what every node's mirror was at that point, whole change sets only; this node's own files
are not touched.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

from harmonylite.changes.reassembler import AtomicBatch, Reassembler
from harmonylite.changes.skipped import LeftOut, still_there
from harmonylite.db.mirror import skipped_messages
from harmonylite.db.replica import Replica
from harmonylite.db.replica_options import ReplicaOptions
from harmonylite.db.snapshot import begin_database, fill_database, install_mirror
from harmonylite.db.sqlite.deadline import Deadline
from harmonylite.db.sqlite.file_access import access_of
from harmonylite.db.sqlite.thread import SqliteThread
from harmonylite.errors import PoisonError, SchemaWaitError
from harmonylite.model import StreamMessage
from harmonylite.ports import ShardStream
from harmonylite.snapshots.roll_forward import BATCH_BYTES, close, spool

log = logging.getLogger(__name__)

Unfit: TypeAlias = PoisonError | SchemaWaitError
"""Why a message can't be applied."""
Passing = Callable[[Unfit], None]
"""Called with a message that can't be applied, which is left out then; it raises the error to end the replay
instead.
"""


def note(error: Unfit) -> None:
    """Log that the replay skips a message that can't be applied; raises SchemaWaitError."""
    if isinstance(error, SchemaWaitError):
        raise error
    log.warning("leaving out a message on the way to an earlier position: %(error)s", {"error": error.message})


@dataclass(frozen=True)
class Replay:
    """What a replay needs. ``folder``: where it may make a folder of its own; ``options``: those of the node's own
    replica, whose database has the access that copies of it get.
    """

    folder: Path
    options: ReplicaOptions
    streams: Sequence[ShardStream]

    @classmethod
    def of(cls, options: ReplicaOptions, streams: Sequence[ShardStream]) -> Replay:
        """Return what a replay needs that works in the private folder."""
        return cls(options.folder, options, streams)


@asynccontextmanager
async def replayed(
    what: Replay,
    snapshot: Path,
    targets: Mapping[int, int],
    *,
    schema: Path,
    database: Path | None = None,
    leave_out: Iterable[LeftOut] = (),
    on_skipped: Passing | None = None,
) -> AsyncIterator[Replica]:
    """Give a replica, closed, whose mirror is ``snapshot`` (taken over) brought forward to ``targets``.

    ``schema``: the mirror whose remembered schema the tables have. ``database``: also make the database, as this file;
    None: only the mirror is right. ``leave_out``: messages that it is to lack, besides those that the snapshot lacks.
    ``on_skipped``: called with what can't be applied, which is skipped and noted in the mirror; None: it raises.
    Its folder is gone after the block. Raises SchemaWaitError where a change set needs what the schema lacks,
    PoisonError, StreamError.
    """
    scratch = what.folder / f"replay-{snapshot.stem}"
    thread = SqliteThread()
    try:
        scratch.mkdir(mode=0o700)
        options = ReplicaOptions(
            database or scratch / "database.db", scratch, "", "replay", what.options.shards, rules=what.options.rules
        )
        access = access_of(what.options.database, what.options.mirror)
        with Deadline() as deadline:
            made = partial(begin_database, options, schema, deadline, access=access)
            replica = await thread.run(_opened, options, snapshot, made, deadline if database is not None else None)
        try:
            await thread.run(_lack, replica, list(leave_out))
            await bring_forward(
                replica, thread, what.streams, targets, merge=database is not None, on_skipped=on_skipped
            )
            ends = {shard: position.seq for shard, position in (await thread.run(replica.positions)).items()}
            log.info(
                "brought a snapshot forward to %(positions)s, as was asked for %(wanted)s",
                {"positions": ends, "wanted": dict(targets)},
            )
        finally:
            await thread.always(replica.close)
        yield replica
    finally:
        await thread.aclose()
        await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)


def _opened(options: ReplicaOptions, snapshot: Path, made: Callable[[], Path], filling: Deadline | None) -> Replica:
    building = made()
    install_mirror(options, snapshot)
    building.replace(options.database)
    if filling is not None:
        return fill_database(options, options.database, filling)
    replica = Replica(options)
    replica.open()
    return replica


def _lack(replica: Replica, entries: Iterable[LeftOut]) -> None:
    """Have the mirror lack what comes behind where it is of ``entries``; what comes before it holds, or says so."""
    positions = replica.positions()
    skipped_messages.remember(replica.connection, [e for e in entries if e.seq > positions[e.shard].seq])


async def bring_forward(
    replica: Replica,
    thread: SqliteThread,
    streams: Sequence[ShardStream],
    targets: Mapping[int, int],
    *,
    merge: bool,
    on_skipped: Passing | None = None,
) -> None:
    """Fold every shard up to exactly ``targets``, as far as change sets are whole there; ``merge``: into the database,
    too; ``on_skipped``: see `replayed`. Raises SchemaWaitError, PoisonError, StreamError.
    """

    async def pass_over(error: Unfit) -> None:
        if on_skipped is None:
            raise error
        on_skipped(error)
        entry = LeftOut(error.shard, error.seq, positions[error.shard].created, time.time(), error.message)
        await thread.run(skipped_messages.remember, replica.connection, [entry])
        reassembler.skip(error.shard, error.seq)

    positions = await thread.run(replica.positions)
    reassembler = Reassembler(positions, spool=spool)
    if lacking := await thread.run(skipped_messages.left_out, replica.connection):
        streams_now = {stream.shard: await stream.info() for stream in streams}
        for entry in still_there(lacking, streams_now):
            reassembler.skip(entry.shard, entry.seq)
    readers: dict[int, AsyncIterator[list[StreamMessage]]] = {}
    for stream in streams:
        if reassembler.read_up_to(stream.shard) < targets[stream.shard]:
            readers[stream.shard] = stream.read(reassembler.read_up_to(stream.shard) + 1)
    try:
        while readers:
            for shard, reader in list(readers.items()):
                await _add(reassembler, await anext(reader), targets[shard], pass_over)
                if reassembler.read_up_to(shard) >= targets[shard]:
                    await close(readers.pop(shard))
            while (batch := reassembler.take(most_bytes=BATCH_BYTES, limit=dict(targets))) is not None:
                await _apply(replica, thread, batch, pass_over, merge=merge)
    finally:
        reassembler.close()
        for reader in readers.values():
            await close(reader)


async def _add(
    reassembler: Reassembler,
    messages: Sequence[StreamMessage],
    target: int,
    pass_over: Callable[[Unfit], Awaitable[None]],
) -> None:
    """Add ``messages`` up to sequence ``target`` to ``reassembler``."""
    for message in messages:
        if message.seq > target:
            return
        try:
            reassembler.add(message)
        except PoisonError as error:
            await pass_over(error)
            reassembler.add(message)


async def _apply(
    replica: Replica,
    thread: SqliteThread,
    batch: AtomicBatch,
    pass_over: Callable[[Unfit], Awaitable[None]],
    *,
    merge: bool,
) -> None:
    """Apply ``batch`` without the change sets that do not fit, and close it."""
    whole = batch
    try:
        while True:
            try:
                await thread.run(replica.apply, batch, merge=merge)
            except (PoisonError, SchemaWaitError) as error:
                await pass_over(error)
                if not (held := batch.holding(error.shard, error.seq)):
                    raise
                batch = batch.without(held)
            else:
                return
    finally:
        whole.close()
