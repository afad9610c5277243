"""The lineage of database and mirror: positions, their epoch, and the identity of their streams.

Invariant: epoch and ancestors are in the same file as the positions, and change in the same transaction.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import replace

import apsw

from harmonylite.changes.epochs import Lineage, drift
from harmonylite.db.mirror import mirror_file
from harmonylite.db.mirror.conflict_journal import RECENT, kept_blocks
from harmonylite.db.mirror.state import HISTORY, get_state, history_of, set_state
from harmonylite.db.sqlite.connection import rows, transaction
from harmonylite.errors import ForeignError
from harmonylite.foreign import Codec, Line, StreamEnds
from harmonylite.model import Position

LIMBO = "database-"
"""Name of an epoch that only one node knows: its mirror was made from its database."""
PAST = "past"


PAST_CODEC = Codec("where earlier histories were left", dict[Line, StreamEnds], most=64 * 1024**2)


def read_lineage(connection: apsw.Connection, schema: str) -> Lineage:
    """Return the lineage of ``main`` or ``mirror``; raises as `mirror_file.unreadable`."""
    history = history_of(connection, schema)
    text = get_state(connection, schema, PAST)
    try:
        past = PAST_CODEC.decode(str(text).encode()) if text else {}
    except ForeignError as error:
        raise mirror_file.unreadable(schema, error.message) from error
    return Lineage(history, mirror_file.positions(connection, schema), past)


def database_lineage(connection: apsw.Connection, mirror_as: str = "mirror") -> Lineage:
    """Return the database's lineage, with the positions of `mirror_file.merged_positions`."""
    own = read_lineage(connection, "main")
    if own.history != history_of(connection, mirror_as):
        return own
    return replace(own, positions=mirror_file.merged_positions(connection, mirror_as))


def shards_ahead(one: Lineage, other: Lineage) -> set[int]:
    """Return the shards in which ``one`` is ahead of ``other``; a shard without folds has no position."""
    return {s for s, p in one.positions.items() if p.seq > other.positions.get(s, Position(s)).seq}


def mirror_is_behind(connection: apsw.Connection) -> bool:
    """Return whether the database holds more than the mirror, as after a crash between their commits."""
    return bool(shards_ahead(database_lineage(connection), read_lineage(connection, "mirror")))


def is_older(connection: apsw.Connection) -> bool:
    """Return whether the database may be older than what its node knew: it is behind its mirror, like a restored
    backup, or there is no mirror yet.
    """
    there = get_state(connection, "mirror", "whole")
    return not there or drift(database_lineage(connection), read_lineage(connection, "mirror")) == "behind"


def have_diverged(connection: apsw.Connection) -> bool:
    """Return whether the database belongs to another mirror, which was lost, or replaced after the copy of the database
    was made that is now restored. A row that the database lacks may then be one that it never had.
    """
    one, other = (get_state(connection, schema, mirror_file.PAIR) for schema in ("main", "mirror"))
    return bool(one != other)


def write_history(connection: apsw.Connection, schema: str, lineage: Lineage) -> None:
    """Write epoch and ancestors into ``main`` or ``mirror``, in the transaction of the positions."""
    set_state(connection, schema, HISTORY, lineage.history)
    past = {name: dict(left) for name, left in lineage.past.items()}
    set_state(connection, schema, PAST, PAST_CODEC.encode(past).decode())


def begin_epoch(connection: apsw.Connection, lineage: Lineage) -> None:
    """Make ``main``, a copy of a mirror, the start of the epoch in ``lineage``; in a transaction.

    Remembered change sets up to there keep their numbers: the stream holds them, or has deleted them. No stream holds
    the later ones, and other messages will get their numbers, so they move below all present numbers. If the epoch is
    back in an older stream, all move, because the numbers are not of that stream.
    """
    recent = RECENT.replace("mirror.", "main.", 1)
    for shard, position in lineage.positions.items():
        least, most = rows(connection, f"SELECT min(seq), max(seq) FROM {recent} WHERE shard = ?", (shard,))[0]
        if most is not None:
            down, kept = most - min(0, least) + 1, 0 if lineage.is_back(shard) else position.seq
            connection.execute(f"UPDATE {recent} SET seq = seq - ? WHERE shard = ? AND seq > ?", (down, shard, kept))
    mirror_file.set_positions(connection, "main", lineage.positions)
    write_history(connection, "main", lineage)
    set_state(connection, "main", "whole", 1)


def folded_seqs(connection: apsw.Connection, shard: int) -> list[int]:
    """Return the last sequences of a shard's remembered change sets, oldest first."""
    found = rows(connection, f"SELECT seq FROM {RECENT} WHERE shard = ? ORDER BY seq", (shard,))
    return [seq for (seq,) in found]


def folded_set(connection: apsw.Connection, shard: int, seq: int) -> tuple[str, list[bytes]]:
    """Return writer and blocks of a change set of `folded_seqs`; no blocks for a large one."""
    node, blob = rows(connection, f"SELECT node, blocks FROM {RECENT} WHERE shard = ? AND seq = ?", (shard, seq))[0]
    return str(node), [body for body, _ in kept_blocks(blob)]


def rewind(connection: apsw.Connection, shard: int, end: int) -> None:
    """Set the positions of database and mirror back to ``end`` of a shard; no later message changed a row."""
    with transaction(connection, "set the positions to the stream's end"):
        for schema in ("main", "mirror"):
            position = mirror_file.positions(connection, schema).get(shard)
            if position is not None and position.seq > end:
                known = position.newest if position.newest is not None and position.newest[0] <= end else None
                moved = replace(position, seq=end, resume=min(position.resume, end + 1), newest=known)
                mirror_file.set_positions(connection, schema, {shard: moved})
        mirror_file.note_equal(connection)


def enter(connection: apsw.Connection, history: str, created: Mapping[int, str]) -> None:
    """Move database and mirror, at the same positions, to epoch ``history`` and to the streams created at
    ``created``.
    """
    with transaction(connection, f"continue in epoch {history}"):
        lineage = read_lineage(connection, "mirror")
        at = {shard: replace(p, created=created[shard]) for shard, p in lineage.positions.items()}
        for schema in ("main", "mirror"):
            mirror_file.set_positions(connection, schema, _own(connection, schema, at))
            write_history(connection, schema, lineage.next_epoch(history, at))
        mirror_file.note_equal(connection)


def _own(connection: apsw.Connection, schema: str, at: Mapping[int, Position]) -> dict[int, Position]:
    """Return the positions of ``schema`` itself, under the identities in ``at``: after a crash they may differ."""
    found = mirror_file.positions(connection, schema)
    return {shard: replace(found.get(shard, p), created=p.created) for shard, p in at.items()}


def adopt_lineage(connection: apsw.Connection) -> None:
    """Give the mirror, a copy of the database, the database's positions."""
    with transaction(connection, "take over the database's positions"):
        lineage = read_lineage(connection, "main")
        mirror_file.set_positions(connection, "mirror", lineage.positions)
        write_history(connection, "mirror", lineage.next_epoch(f"{LIMBO}{secrets.token_hex(8)}", lineage.positions))
        mirror_file.note_equal(connection)
