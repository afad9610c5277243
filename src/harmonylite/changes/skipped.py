"""What a mirror lacks because a message was skipped.

Invariant: an entry names the message and, as far as it can be read, what it holds; it is part of the mirror, so that a
snapshot says what it lacks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated

import msgspec
from msgspec import Meta

from harmonylite.changes.fragments import Fragment
from harmonylite.errors import PoisonError
from harmonylite.foreign import Codec, Line, Long, Seconds, Seq, Shard
from harmonylite.model import StreamInfo, text_of

KEYS_KEPT = 20
"""Keys of each table that are named."""
TABLES_KEPT = 100
"""Tables that are named."""
KEY_LENGTH = 200
"""Characters of a key that are kept."""


class LeftOut(msgspec.Struct, frozen=True):
    """One message that was left out. ``created``: the identity of the stream whose message ``seq`` it is; ``at``: when,
    seconds since the epoch; ``reason``: why the node was paused there; ``change_set``: "" where it can't be read;
    ``rows``: by table how many it changes; ``keys``: some of their keys.
    """

    shard: Shard
    seq: Seq
    created: Line = ""
    at: Seconds = 0.0
    reason: Long = ""
    change_set: Long = ""
    rows: Annotated[dict[Long, Seq], Meta(max_length=TABLES_KEPT)] = {}
    keys: Annotated[dict[Long, list[Long]], Meta(max_length=TABLES_KEPT)] = {}

    @property
    def sentence(self) -> str:
        """What it held, as a sentence."""
        if not self.rows:
            return "what it holds can't be read"
        tables = [f"{count} of {table} ({', '.join(self.keys[table])})" for table, count in self.rows.items()]
        return f"change set {self.change_set}, rows: {'; '.join(tables)}"


CODEC = Codec("what is remembered of a message that was left out", LeftOut, most=4 * 1024 * 1024)


def described(entry: LeftOut, fragments: Iterable[Fragment]) -> LeftOut:
    """Return ``entry`` with what the fragments of its change set hold, as far as they can be read."""
    rows: dict[str, int] = {}
    keys: dict[str, list[str]] = {}
    name = entry.change_set
    for fragment in fragments:
        name = str(fragment.id)
        try:
            for table, key in _keys_in(fragment):
                if table in rows or len(rows) < TABLES_KEPT:
                    rows[table] = rows.get(table, 0) + 1
                    if len(keys.setdefault(table, [])) < KEYS_KEPT:
                        keys[table].append(key)
        except PoisonError:
            continue
    return msgspec.structs.replace(entry, change_set=name, rows=rows, keys=keys)


def _keys_in(fragment: Fragment) -> Iterable[tuple[str, str]]:
    if not fragment.has_rows:
        return
    for block in fragment.decoded():
        for part in block:
            images = [*part.deletes, *part.inserts, *(row for group in part.updates for row in group.rows)]
            for image in images:
                # the rowid beside a key is NULL where the key has a value
                key = [value for value in image[: part.keys] if value is not None] or [None]
                yield part.table, ", ".join(text_of(value)[:KEY_LENGTH] for value in key)


def outstanding(entries: Iterable[LeftOut], right: Mapping[int, int], created: Mapping[int, str]) -> list[LeftOut]:
    """Return what a mirror still lacks once it was found right at the positions ``right``, in the streams ``created``.

    What was left out of a stream before them is part of what was compared.
    """
    return [e for e in entries if e.created == created.get(e.shard) and e.seq > right[e.shard]]


def still_there(entries: Iterable[LeftOut], streams: Mapping[int, StreamInfo]) -> list[LeftOut]:
    """Return the entries whose numbers are those of the streams as they are now: only these are left out again."""
    return [e for e in entries if e.shard in streams and streams[e.shard].same(e.created, e.seq)]
