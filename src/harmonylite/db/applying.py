"""Applying: fold cuts into the mirror and merge them into the database, each in one transaction.

Invariant: the positions move in the transaction that folds and merges what they stand for; whatever raises, nothing has
changed. A change set of this session that comes back clears what the log named up to where it was read.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import apsw

from harmonylite.changes.inbox import Cut, Piece
from harmonylite.db import bases, mirror
from harmonylite.db.connection import rows, transaction
from harmonylite.db.fold import Fold, Folded
from harmonylite.db.install import Installed, schema_version
from harmonylite.db.journal import Journal
from harmonylite.db.log import Log
from harmonylite.db.merge import Merge
from harmonylite.db.staging import Ahead
from harmonylite.db.triggers import HELD
from harmonylite.errors import DatabaseError
from harmonylite.model import ChangeSetId
from harmonylite.schema.sql import quote
from harmonylite.wire import KIND_CHANGES

LARGE = 10_000
"""A cut of at least this many rows gives its memory back."""


class SchemaMovedError(DatabaseError):
    """The schema changed since the last install; install and do it again."""


@dataclass
class Applied:
    """What applying one cut did. ``locked``: seconds the database's write lock was held."""

    rows: int = 0
    merged: int = 0
    conflicts: int = 0
    locked: float = 0.0
    own: list[ChangeSetId] = field(default_factory=list)


class Applying:
    """Knows this session's change sets under way (*flights*) besides what it is given.

    ``installed`` is set by whoever installs. ``folds`` counts the cuts that held change sets of others.
    """

    def __init__(
        self, connection: apsw.Connection, log: Log, journal: Journal, *, node: str, session: str, replicate: bool
    ) -> None:
        self.installed = Installed()
        self.folds = 0
        self._connection = connection
        self._log = log
        self._journal = journal
        self._node = node
        self._session = session
        self._replicate = replicate
        self._flights: dict[int, tuple[int, int]] = {}
        self._ahead: Ahead | None = None

    @contextmanager
    def unit(self, doing: str) -> Iterator[None]:
        """Run a transaction; when it fails, take the scratch tables for lost."""
        try:
            with transaction(self._connection, doing):
                yield
        except BaseException:
            self._log.forget()
            self._ahead = None
            for table in self.installed.tables.values():
                table.make_scratch(self._connection)
            raise

    def takes_off(self, number: int, newest: int) -> None:
        """Change set ``number`` was read with the log at ``newest``."""
        self._flights[number] = (newest, self.folds)

    def never_landed(self, number: int) -> None:
        """The change set ``number`` never got into the stream; its rows stay pending."""
        self._flights.pop(number, None)

    def stage_ahead(self, piece: Piece, number: int) -> int:
        """Stage ``piece``, block ``number`` of a change set that is not all here yet.

        Return the number of the block that it needs next, -1 when the rest is to wait until all is here.
        """
        ahead = self._ahead
        if ahead is None or (ahead.id, ahead.shard) != (piece.id, piece.shard):
            ahead = self._ahead = Ahead(piece.id, piece.shard)
        if number == ahead.blocks and not ahead.full:
            with self.unit("stage what is here"):
                ahead.stage(self._connection, self.installed.tables, piece)
        return -1 if ahead.full else ahead.blocks

    def apply(self, cut: Cut, *, merge: bool) -> Applied:
        """Fold, merge and move the positions in one transaction; see `Replica.apply`. Raises SchemaMovedError."""
        merge = merge and self._replicate
        done = Applied()
        written = self._journal.written
        pieces = [piece for piece in cut.pieces if piece.kind == KIND_CHANGES]
        own = [piece for piece in pieces if piece.id.node == self._node]
        with self.unit(f"apply {len(cut.pieces)} change sets"):
            fold = Fold(self._connection, self.installed.tables, self._journal, ahead=self._ahead)
            for piece in pieces:
                count = fold.piece(piece)
                self._journal.remember(piece, count)
                done.rows += count
            mirror.set_positions(self._connection, "mirror", cut.positions)
            locked = time.monotonic()
            if merge or not self._behind(cut):
                mirror.set_positions(self._connection, "main", cut.positions)
            self.same_schema()
            flight = self._land(own)
            held = self._held()
            echo = flight is not None and len(own) == len(pieces) and flight[1] == self.folds and not held
            if own and merge and bases.any_there(self._connection):
                bases.lay_over(self._connection, self.installed.tables, own)
            if merge and not echo:
                done.merged = self._merge(fold.done, own, held)
        self._ahead = fold.ahead
        done.locked = time.monotonic() - locked
        if done.rows >= LARGE:
            self._connection.execute("PRAGMA shrink_memory")
        done.conflicts = self._journal.written - written
        done.own = [piece.id for piece in own]
        self._flights = {n: f for n, f in self._flights.items() if n not in {p.id.number for p in self._mine(own)}}
        if len(own) < len(pieces):
            self.folds += 1
        return done

    def _mine(self, own: list[Piece]) -> list[Piece]:
        return [piece for piece in own if piece.id.session == self._session]

    def _land(self, own: list[Piece]) -> tuple[int, int] | None:
        """Clear the log up to where this session's returning change set was read; return its flight."""
        self._log.refresh(self.installed.by_id)
        flight = None
        for piece in self._mine(own):
            flight = self._flights.get(piece.id.number)
            if flight is not None:
                self.clear_log(flight[0])
        return flight

    def clear_log(self, upto: int) -> None:
        """Take what was logged up to ``upto`` for published or equal; runs in the caller's transaction."""
        self._log.clear(self.installed.by_id, upto)
        if bases.any_there(self._connection):
            bases.forget_unlogged(self._connection, self.installed.by_id)

    def _behind(self, cut: Cut) -> bool:
        """Tell whether the database is further than ``cut``: it was merged before a crash lost the mirror's commit."""
        merged = mirror.positions(self._connection, "main")
        return any(shard in merged and position.seq < merged[shard].seq for shard, position in cut.positions.items())

    def same_schema(self) -> None:
        """Raise SchemaMovedError when the database's schema is another than the one installed for."""
        if schema_version(self._connection) != self.installed.version:
            raise SchemaMovedError("the database's schema has changed")

    def retry_held(self) -> None:
        """Put back the held rows that nothing is in the way of any more."""
        with self.unit("try held rows again"):
            self.same_schema()
            self._log.refresh(self.installed.by_id)
            self._merge({}, [], self._held())

    def _held(self) -> set[int]:
        """Return the numbers of the tables of which rows are held."""
        return {number for (number,) in rows(self._connection, f"SELECT DISTINCT t FROM main.{quote(HELD)}")}

    def _merge(self, folded: dict[str, Folded], own: list[Piece], held: set[int]) -> int:
        merging = Merge(self._connection, self._log, own=own)
        for table in self.installed.tables.values():
            done = folded.get(table.shape.name)
            if done is None and table.id not in held:
                continue
            merging.table(table, done or Folded(), held=table.id in held)
        return merging.rows
