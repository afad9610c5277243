"""What a person may ask about messages that were left out: which they are, and to take one in after all.

Invariant: a message is taken in at its place in the order, never behind what came after it; where that can't be done,
nothing is changed.
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import msgspec

from harmonylite.changes.skipped import LeftOut
from harmonylite.db.mirror import skipped_messages
from harmonylite.db.replica import Replica
from harmonylite.db.snapshot import lineage_of
from harmonylite.db.sqlite.thread import SqliteThread
from harmonylite.errors import NotUndoneError, PoisonError, SchemaWaitError
from harmonylite.recovery.mirror_repair import RightMirror
from harmonylite.recovery.recover import Recovery
from harmonylite.replication.engine import Engine
from harmonylite.replication.skip import copy_of

REPAIR = "`harmonylite verify -repair` takes what the other nodes have"


def shown(entry: LeftOut) -> dict[str, Any]:
    """Return an entry as JSON-able values."""
    return {**msgspec.to_builtins(entry), "holds": entry.sentence}


async def undo(
    replica: Replica, thread: SqliteThread, engine: Engine, recovery: Recovery, shard: int, seq: int
) -> dict[str, Any]:
    """Take in a message that was left out; return its entry once the mirror holds it.

    Raises NotUndoneError, StreamError; nothing was changed then.
    """
    entry = await _entry(replica, thread, shard, seq)
    copy = await _copy(replica, engine, entry)
    what = f"message {seq} of shard {shard}"

    async def fetch() -> Path | None:
        taken = copy.with_suffix(".undo")
        return Path(await asyncio.to_thread(shutil.copyfile, copy, taken))

    source = RightMirror("the mirror from before it was left out", f"{what} is taken in after all", fetch, (entry,))
    recovery.repair(source)
    try:
        await asyncio.shield(source.done)
    except (PoisonError, SchemaWaitError) as error:
        raise NotUndoneError(f"{what} can't be taken in: {error.args[0]}") from error
    await thread.run(engine.receiver.skips.read)
    return shown(entry)


async def _entry(replica: Replica, thread: SqliteThread, shard: int, seq: int) -> LeftOut:
    found = await thread.run(skipped_messages.left_out, replica.connection)
    for entry in found:
        if (entry.shard, entry.seq) == (shard, seq):
            return entry
    listed = ", ".join(f"message {entry.seq} of shard {entry.shard}" for entry in found)
    raise NotUndoneError(f"message {seq} of shard {shard} is not left out here", advice=f"left out: {listed or 'none'}")


async def _copy(replica: Replica, engine: Engine, entry: LeftOut) -> Path:
    """Return the mirror from before the message; raises NotUndoneError when it and the streams don't reach it."""
    copy = copy_of(replica.options)
    if not copy.exists():
        raise NotUndoneError(f"{copy}, the mirror from before the message was left out, is gone", advice=REPAIR)
    lineage = await asyncio.to_thread(lineage_of, copy)
    for stream in engine.streams:
        info, position = await stream.info(), lineage.positions.get(stream.shard)
        if stream.shard == entry.shard and not (info.same(entry.created, entry.seq) and info.first <= entry.seq):
            raise NotUndoneError(
                f"the stream of shard {entry.shard} no longer holds message {entry.seq}", advice=REPAIR
            )
        if position is None or position.resume < info.first or not info.same(position.created, position.seq):
            raise NotUndoneError(
                f"the stream of shard {stream.shard} no longer holds all that came since the message was left out",
                advice=REPAIR,
            )
    return copy
