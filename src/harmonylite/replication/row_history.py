"""Find what happened to a row: which node changed it when, as the stream still holds it.

Invariant: every event is in the order; aborted change sets are left out, and so are messages that can't be applied, by
name.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass, field
from tempfile import SpooledTemporaryFile
from typing import IO, Literal

from harmonylite.changes.reassembler import Fragment, Reassembler
from harmonylite.changes.sharding import home_of, shard_of
from harmonylite.db.apply.staging import check_updates, check_widths
from harmonylite.errors import PoisonError
from harmonylite.model import Position, RawText, SqlValue, text_of
from harmonylite.ports import ShardStream
from harmonylite.schema.section import SECTION
from harmonylite.schema.shape import TableShape
from harmonylite.wire import TableBlock

Kind = Literal["insert", "update", "delete"]


@dataclass(frozen=True)
class Event:
    """One change of a row. ``before``: what its writer last saw in the changed columns; ``after``: what it wrote.

    ``at``: when the stream stored it, ``written``: when it was captured; seconds since the epoch.
    """

    kind: Kind
    node: str
    shard: int
    seq: int
    at: float
    written: float
    before: Mapping[str, SqlValue] = field(default_factory=dict)
    after: Mapping[str, SqlValue] = field(default_factory=dict)


async def history(
    streams: Sequence[ShardStream], shape: TableShape, key: Sequence[str], *, most: int
) -> tuple[list[Event], dict[int, int], list[PoisonError]]:
    """Return the newest ``most`` changes of the row whose key is called ``key``, the oldest first; from which sequence
    on each shard was read; and why each message is left out that is poison. Raises StreamError.
    """
    found: list[Event] = []
    first: dict[int, int] = {}
    left_out: list[PoisonError] = []
    for stream in _holding(streams, shape, key):
        info = await stream.info()
        first[stream.shard] = info.first
        async with aclosing(change_sets(stream, info.first, info.last, len(streams), left_out)) as fragments:
            async for fragment in fragments:
                try:
                    found += events(fragment, shape, key)
                except PoisonError as error:
                    left_out.append(error)
    found.sort(key=lambda event: (event.at, event.seq))
    return found[-most:], first, left_out


def _holding(streams: Sequence[ShardStream], shape: TableShape, key: Sequence[str]) -> Sequence[ShardStream]:
    """Return the streams that can hold the row: one, where the type of the key is known from its column."""
    if len(streams) == 1:
        return streams
    if shape.pinned:
        wanted = {home_of(shape, len(streams))}
    elif all(column.affinity == "TEXT" for column in shape.keys):
        wanted = {shard_of(shape.name, tuple(key), len(streams))}
    elif all(column.affinity == "INTEGER" for column in shape.keys) and all(_is_int(part) for part in key):
        wanted = {shard_of(shape.name, tuple(map(int, key)), len(streams))}
    else:
        return streams
    return [stream for stream in streams if stream.shard in wanted]


def _is_int(text: str) -> bool:
    return text.removeprefix("-").isdigit()


async def change_sets(
    stream: ShardStream, first: int, last: int, shards: int, left_out: list[PoisonError]
) -> AsyncGenerator[Fragment, None]:
    """Yield the whole change sets of one shard from ``first`` to ``last``, each open until the next one is asked for;
    what can't be read goes to ``left_out``.
    """
    if last < first:
        return
    reassembler = Reassembler({stream.shard: Position(stream.shard, first - 1, first)}, shards=shards, spool=_spool)
    reader = stream.read(first)
    try:
        async for messages in reader:
            for message in messages:
                try:
                    reassembler.add(message)
                except PoisonError as error:
                    left_out.append(error)
                    reassembler.skip(message.shard, message.seq)
                    reassembler.add(message)
            while (batch := reassembler.take()) is not None:
                with closing(batch):
                    for fragment in batch.fragments:
                        yield fragment
            if messages[-1].seq >= last:
                return
    finally:
        reassembler.close()
        close = getattr(reader, "aclose", None)
        if close is not None:
            await close()


def _spool(most: int) -> IO[bytes]:
    return SpooledTemporaryFile(max_size=most)


def events(fragment: Fragment, shape: TableShape, key: Sequence[str]) -> list[Event]:
    """Return what ``fragment`` did to a row. Raises PoisonError for a fragment that no node can have applied."""
    about = (fragment.id.node, fragment.shard, fragment.seq, fragment.stored, fragment.time)
    width = len([column for column in shape.keys if not column.pseudo]) or 1

    def meant(row: Sequence[SqlValue]) -> bool:
        return [text_of(value) for value in row[:width]] == list(key)

    return [
        Event(kind, *about, before=before, after=after)
        for part in checked(fragment)
        if part.table == shape.name
        for kind, _, before, after in row_changes(fragment, part, meant)
    ]


def checked(fragment: Fragment) -> Iterator[TableBlock]:
    """Yield the changes of ``fragment`` by table. Raises PoisonError for one that no node can have applied."""
    if not fragment.has_rows:
        return
    for block in fragment.decoded():
        for part in block:
            if part.table == SECTION:
                continue
            check_widths(fragment, part)
            for group in part.updates:
                check_updates(fragment, part.table, group, len(part.columns))
            yield part


RowChange = tuple[Kind, Sequence[SqlValue], dict[str, SqlValue], dict[str, SqlValue]]
"""What was done, the row as its writer had it, and the changed columns before and after."""


def row_changes(
    fragment: Fragment, part: TableBlock, meant: Callable[[Sequence[SqlValue]], bool] = lambda _: True
) -> Iterator[RowChange]:
    """Yield the changes in ``part`` of rows that are ``meant``. Raises PoisonError for a value that SQLite has not."""
    for change in _row_changes(part, meant):
        if not all(map(_is_value, [*change[1], *change[2].values()])):
            raise fragment.broken(f"a value of {part.table} is not SQLite's")
        yield change


def _row_changes(part: TableBlock, meant: Callable[[Sequence[SqlValue]], bool]) -> Iterator[RowChange]:
    for row in filter(meant, part.deletes):
        yield "delete", row, dict(zip(part.columns, row, strict=True)), {}
    for row in filter(meant, part.inserts):
        yield "insert", row, {}, dict(zip(part.columns, row, strict=True))
    for group in part.updates:
        names = [part.columns[i] for i in group.changed]
        for row, old in zip(group.rows, group.old, strict=True):
            if meant(row):
                now = [row[i] for i in group.changed]
                yield "update", row, dict(zip(names, old, strict=True)), dict(zip(names, now, strict=True))


def _is_value(value: object) -> bool:
    """Return whether SQLite has such a value; a block can hold any."""
    if isinstance(value, int):
        return -(1 << 63) <= value < 1 << 63
    return value is None or isinstance(value, (float, str, bytes, RawText))
