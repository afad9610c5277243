"""Find the row of a batch that SQLite refuses, by bisection.

SQLite names the column that refuses a value (of a STRICT table, NOT NULL, INTEGER PRIMARY KEY, an index on an
expression), but neither its row nor its message.

Invariant: it names a message only if all before it can be applied, and that one can't.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from io import BytesIO
from itertools import chain
from reprlib import Repr

from harmonylite.changes.reassembler import Fragment
from harmonylite.errors import PoisonError, RowRefusedError
from harmonylite.wire import Block, TableBlock, Updates, encode_block, encode_tables

Try = Callable[[Sequence[Fragment]], RowRefusedError | None]
"""Applies fragments, rolls back, and returns SQLite's refusal."""


def refusal(fragments: Sequence[Fragment], attempt: Try) -> PoisonError | None:
    """Return the error that names message, table and key of the first refused row.

    None if ``fragments`` have no refused row. Raises PoisonError, DatabaseError.
    """
    if attempt(()) is not None or attempt(fragments) is None:
        return None
    good = _last_good(len(fragments), lambda count: attempt(fragments[:count]) is None)
    before, fragment = fragments[:good], fragments[good]
    for block in fragment.blocks:
        for rows in replace(fragment, blocks=[block]).decoded():
            if attempt([*before, _only(fragment, rows)]) is not None:
                return _named(fragment, _singly(rows), lambda some: attempt([*before, _only(fragment, some)]))
    return None


def _last_good(bad: int, works: Callable[[int], bool]) -> int:
    """Return the largest count that works; 0 works, and ``bad`` doesn't."""
    good = 0
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if works(middle) else (good, middle)
    return good


def _named(fragment: Fragment, rows: Block, attempt: Callable[[Block], RowRefusedError | None]) -> PoisonError | None:
    """Return the error for the first refused one of ``rows``, which has one row per part."""
    good = _last_good(len(rows), lambda count: attempt(rows[:count]) is None)
    row = rows[good] if rows else None
    why = attempt([row]) if row is not None else None
    if row is None or why is None:
        return None
    (values,) = chain(row.inserts, *(group.rows for group in row.updates))
    key = ", ".join(_short.repr(value) for value in values[: row.keys])
    return PoisonError(
        f"message {fragment.seq} of shard {fragment.shard} can't be applied: SQLite refuses the row of table"
        f" {row.table} with the key {key}, written by node {fragment.id.node}: {why.__cause__ or why}",
        shard=fragment.shard,
        seq=fragment.seq,
        refused=True,
        advice=f"change the table here so that it takes the row, as that node's does, or leave the message out with:"
        f" harmonylite skip {fragment.shard} {fragment.seq}",
    )


def _singly(block: Block) -> Block:
    """Return the rows that ``block`` inserts or updates, each in a separate part."""
    found = []
    for part in block:
        head = (part.table, part.columns, part.keys)
        found += [TableBlock(*head, inserts=[row]) for row in part.inserts]
        for group in part.updates:
            pairs = zip(group.rows, group.old, strict=False)  # another check refuses a row without old values
            found += [TableBlock(*head, updates=[Updates(group.changed, [row], [old])]) for row, old in pairs]
    return found


def _only(fragment: Fragment, rows: Block) -> Fragment:
    """Return ``fragment`` with only ``rows``."""
    body, packed = encode_block([encode_tables(part) for part in rows], compress=False)
    return replace(fragment, blocks=[(0, len(body), packed)], spool=BytesIO(body))


_short = Repr()
_short.maxstring = _short.maxother = 80
