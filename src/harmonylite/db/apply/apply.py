"""Applying: fold batches into the mirror and merge them into the database, each in one transaction.

Invariant: the positions move in the transaction that folds and merges the rows that they cover; an error changes
nothing. A batch that brings the database no row doesn't write it: only the mirror's positions move, and the database's
follow with the next rows that it gets, or by `Applying.note` when no other transaction is open.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import apsw

from harmonylite.changes.reassembler import AtomicBatch, Fragment
from harmonylite.db.apply.flights import Flights
from harmonylite.db.apply.fold import Fold
from harmonylite.db.apply.merge import Merge
from harmonylite.db.apply.overruled import KnownRows
from harmonylite.db.apply.own_change_sets import Applied, Flight, SchemaMovedError, name_rows
from harmonylite.db.apply.rejected_rows import refusal
from harmonylite.db.apply.renumbering import settle_own
from harmonylite.db.apply.staging import Folded
from harmonylite.db.apply.unit import Unit
from harmonylite.db.capture import merge_base
from harmonylite.db.mirror import mirror_file
from harmonylite.db.mirror.compare import changed_keys
from harmonylite.db.mirror.conflict_journal import ConflictJournal
from harmonylite.db.mirror.positions import is_older, mirror_is_behind
from harmonylite.db.mirror.schema_history import Named, Own
from harmonylite.db.mirror.state import set_state
from harmonylite.db.sqlite.connection import LOCK_WAIT_MS, rows, transaction
from harmonylite.db.sqlite.other_transactions import OtherTransactions
from harmonylite.db.tracking.change_log import ChangeLog
from harmonylite.db.tracking.installed import STALE, Installed, schema_version
from harmonylite.db.tracking.tracked_table import TrackedTable
from harmonylite.db.tracking.triggers import HELD
from harmonylite.errors import DatabaseBusyError, DatabaseReplacedError, RowRefusedError
from harmonylite.schema.sql import quote

FEW = 64
"""Up to this many rows are few. Few new rows are published without a range in the log, which saves a transaction; of
few folded rows only the commit writes the mirror's pages."""
SHORT_WAIT_MS = 10
"""How long an optional write of the node waits for the lock, in milliseconds."""
MOST_UNNOTED = 1_000
"""Rows and change sets that may come back before the database records them, even if the application never rests: a
restart checks each of them again, and the log keeps them."""
MOST_POSTPONED = 10_000
"""From this many on they are recorded even if patience did not see the end of another transaction."""
LARGE = 10_000
"""Rows of a batch from which on memory is released after it."""


class _UndoneError(Exception):
    """Rolls back a trial transaction."""


class Applying:
    """Applies batches, and knows this session's change sets in ``flights``. ``check`` raises on invalid reads.

    `install` sets ``installed``. ``folds`` counts the batches with change sets of other nodes. ``naming_own``: change
    sets of this node come back that the log no longer names, because they also went into another order. ``holding``:
    held rows may no longer conflict and must be tried again. ``unnoted``: how many rows are back, or in the log without
    need, that the database does not record. ``siblings``: nodes for whose change sets ``naming_own`` is true as well:
    the writer of the rows pending here saw them.
    """

    def __init__(
        self,
        connection: apsw.Connection,
        log: ChangeLog,
        journal: ConflictJournal,
        others: OtherTransactions,
        check: Callable[[], None],
        *,
        node: str,
        session: str,
        replicate: bool,
    ) -> None:
        self.installed, self.folds, self.naming_own, self.holding = Installed(), 0, False, True
        self.siblings: frozenset[str] = frozenset()
        self._connection, self._others = connection, others
        self.unit = Unit(connection, log, check, self._undone)
        self._log, self._journal, self._replicate = log, journal, replicate
        self._node, self._session = node, session
        self.flights = Flights(session)
        self._back: Flight | None = None
        others.check_within_commits(connection)
        self.unnoted, self.known = 0, KnownRows(connection)
        self._kept = False

    def _undone(self) -> None:
        self.holding = True

    def read_log(self, *, named: bool, ahead: bool) -> Flight | None:
        """Read the log for a capture, in its transaction; None while many new rows are not ``named`` in it.

        ``ahead``: or any, because only their entry in the log distinguishes them from those in flight.
        """
        self.same_schema()
        tables = self.installed.by_id
        if not named and self.many_new(1 if ahead else FEW):
            return None
        if not ahead:
            self.flights.clear()
        log_id = self._log.refresh(tables, unread=named)
        self._log.keep_images(tables, log_id)
        return Flight(log_id, self.folds, self.seen(), tables)

    def many_new(self, many: int = FEW) -> bool:
        """Return whether enough rows are above the watermarks to name them in the log, once."""
        return self._log.find_above_watermark(self.installed.by_id) >= many

    def seen(self) -> int:
        """See `ChangeLog.seen`."""
        return self._log.seen()

    @contextmanager
    def reading(self, doing: str = "read the log") -> Iterator[None]:
        """Run a read transaction under the installed schema. Raises SchemaMovedError."""
        with self.unit(doing):
            self.same_schema()
            yield

    def name_new_rows(self) -> bool:
        """Name the rows above the watermarks in the log, if the write lock is free; return whether it was."""
        return self._others.politely(self._name_new_rows)

    def _name_new_rows(self, until: float) -> bool:
        self._others.wait(until, again=True)
        self._connection.set_busy_timeout(SHORT_WAIT_MS)
        try:
            with transaction(self._connection, "name new rows in the log", immediate=True):
                self._log.name_new(self.installed.tables.values())
        except BaseException as error:
            self._log.watermarks.forget()
            if not isinstance(error, DatabaseBusyError):
                raise
            return False
        finally:
            self._connection.set_busy_timeout(LOCK_WAIT_MS)
        return True

    def never_landed(self, number: int) -> None:
        """Record that change set ``number`` never reached the stream; its rows stay pending."""
        self.flights.forget(number)
        self._log.drop_images()

    def nothing_differs(self, read: Flight) -> None:
        """Record that all rows that were read are equal in database and mirror."""
        if any(table.images for table in self._log.busy.values()) or read.log_id > self._log.cleared():
            self.unnoted += 1
        self._settled(read)
        self._log.drop_keys(read.log_id)
        if merge_base.any_there(self._connection):  # no base may outlive the log entry of its row
            self.note()

    def _settled(self, read: Flight) -> None:
        """Record that no row that was read is pending or in flight any more."""
        self._back = read
        self._log.settle(read.log_id, read.seen)
        if not self.flights:
            self._log.drop_images()

    def note(self, *, later: bool = False) -> None:
        """Record in the database what its mirror knows of it, politely: positions, log, watermarks.

        ``later``: not during a transaction of another process, unless very much is unnoted. Raises SchemaMovedError,
        DatabaseBusyError.
        """
        self._others.politely(partial(self._note, later=later and self.unnoted < MOST_POSTPONED))
        self._back, self.unnoted = None, 0

    def _note(self, until: float, *, later: bool = False) -> None:
        self._others.wait(until, again=True)
        if later and self._others.busy():
            raise DatabaseBusyError("note what is back: another process has a transaction open")
        with self.unit("note what is back", immediate=True):
            self.same_schema()
            self._must_not_have_gone_back()
            if self._back is not None:
                self.clear_log(self._back.log_id, self._back.seen)
            own = mirror_file.positions(self._connection, "main")
            there = mirror_file.positions(self._connection, "mirror").items()
            moved = {s: p for s, p in there if s not in own or p.seq >= own[s].seq}
            mirror_file.set_database_positions(self._connection, moved)

    def _must_not_have_gone_back(self) -> None:
        if mirror_file.went_back(self._connection):  # a backup that was put back must not be called up to date
            raise DatabaseReplacedError("the database went back to an earlier state while the node ran")

    def apply(self, batch: AtomicBatch, *, merge: bool, until: float | None = None) -> Applied:
        """Fold, merge and move the positions in one transaction; see `Replica.apply`. Raises SchemaMovedError."""
        try:
            return self._others.politely(lambda ends: self._apply(batch, merge=merge, until=ends), until)
        except RowRefusedError as error:
            if (named := refusal(batch.fragments, partial(self._attempt, batch, merge=merge))) is not None:
                raise named from error
            raise

    def apply_within(self, batch: AtomicBatch, *, merge: bool) -> Applied:
        """Like `apply`, within the caller's transaction, which has changed the schema; it holds the write lock."""
        self._kept = merge and self._replicate
        try:
            if self._kept:
                self._log.keep_base(self.installed.by_id)
            return self._apply(batch, merge=merge)
        finally:
            self._kept = False

    def _attempt(self, batch: AtomicBatch, fragments: Sequence[Fragment], *, merge: bool) -> RowRefusedError | None:
        """Apply ``fragments`` of ``batch`` and roll back; return SQLite's refusal."""
        try:
            self._apply(replace(batch, fragments=tuple(fragments)), merge=merge, undo=True)
        except _UndoneError:
            return None
        except RowRefusedError as error:
            return error
        raise AssertionError("what is to be undone is never committed")

    def _apply(self, batch: AtomicBatch, *, merge: bool, undo: bool = False, until: float = 0.0) -> Applied:
        if merge:
            self.compare_stale()
        self.flights.check(self.installed.by_id)
        merge = merge and self._replicate
        done = Applied()
        written = self._journal.written
        fragments = [fragment for fragment in batch.fragments if fragment.has_rows]
        own = [fragment for fragment in fragments if fragment.id.node == self._node]
        landing = self.flights.landing(own)
        quiet = not merge or (not undo and self._brings_nothing(fragments, own, landing))
        named = self._named()
        with self.unit(f"apply {len(batch.fragments)} change sets"):
            fold = Fold(self._connection, named, self._journal, self.known)
            for fragment in fragments:
                count = fold.fragment(fragment)
                self._journal.remember(fragment, count)
                done.rows += count
            # a unique index that waits here lets the database have both rows
            quiet = quiet and not (merge and (named.moved or fold.displaced))
            mirror_file.set_positions(self._connection, "mirror", batch.positions)
            for back in landing.values():
                # many keys take time, for which the application must not wait: the lock is taken after it
                self._log.drop_keys(back.log_id)
            if quiet:
                self.same_schema()
                for back in landing.values():
                    mirror_file.set_settled(self._connection, back.log_id)
                self._forget_touched(fold.done.values())
                if not merge:  # it may have reached the position at which a crash left the database
                    mirror_file.note_equal(self._connection)
            else:
                if done.rows >= FEW:  # the application must not wait for the writes of the mirror's pages either
                    self._connection.cache_flush()
                self._others.wait(until, again=done.rows < FEW)  # a retry of few rows costs little
                self._into_database(done, fold, Own(named, own), fragments, landing)
            if undo:
                raise _UndoneError
        done.conflicts = self._journal.written - written
        done.own = [fragment.id for fragment in own]
        self.unit.then(named.log_placeless)
        self.unit.then(partial(self._committed, done.rows, own, quiet=quiet, others=len(own) < len(fragments)))
        return done

    def _committed(self, count: int, own: list[Fragment], *, quiet: bool, others: bool) -> None:
        if count >= LARGE:
            self._connection.execute("PRAGMA shrink_memory")
        for back in self.flights.land(own):
            self._settled(back)
        self.unnoted = self.unnoted + count if quiet else 0
        self._back = self._back if quiet else None
        self.folds += others

    def _brings_nothing(self, fragments: list[Fragment], own: list[Fragment], landing: dict[int, Flight]) -> bool:
        """Return whether the database has all rows of ``fragments``, and none waits for a merge: it is not written.

        This is so for a change set of this session that comes back before one of another node was folded.
        """
        flight = next(iter(landing.values()), None)
        echo = flight is not None and len(own) == len(fragments) and flight.folds == self.folds
        waits = self.naming_own or self._held() or merge_base.any_there(self._connection)
        return (echo or not fragments) and not waits

    def _into_database(
        self, done: Applied, fold: Fold, mine: Own, fragments: list[Fragment], landing: dict[int, Flight]
    ) -> None:
        """Merge the folded rows, and record all that the database must; it is locked from the first line on."""
        locked = time.monotonic()
        self._connection.execute(f"DELETE FROM main.{quote(HELD)} WHERE 0")  # one that reads first may be refused
        self._must_not_have_gone_back()
        mirror_file.set_database_positions(self._connection, mirror_file.positions(self._connection, "mirror"))
        self.same_schema()
        held = self._held()
        if self._back is not None:
            self.clear_log(self._back.log_id, self._back.seen)
        touched = self._touched(fold.done, held)
        tables = self.installed.tables.values() if fold.tables.moved else ()
        self._log.name_new([*touched, *(table for table in tables if table.shape.refers and table not in touched)])
        if self.naming_own:
            name_rows(self._log, mine)
        for number, flight in self.flights.coming(mine.fragments).items():
            # a table that was made again may lack rows that are back now
            if self.installed.by_id.keys() - flight.tables.keys():
                back = [fragment for fragment in mine.fragments if fragment.id.number == number]
                name_rows(self._log, Own(mine.named, back), but=flight.tables)
        self._log.refresh(self.installed.by_id, above=False)
        for flight in landing.values():
            self.clear_log(flight.log_id, flight.seen)
        settle_own(self._connection, self._log, self.installed.tables, mine)
        seen = [fragment for fragment in fragments if fragment.id.node in {self._node, *self.siblings}]
        for folded in fold.done.values() if seen else ():
            folded.effect.anything()  # its rows were pending until now, and may differ from the mirror's in any column
        done.merged = self._merge(fold.done, mine, held)
        if self.siblings and seen and merge_base.any_there(self._connection):
            # after the merge, which records the mirror's former rows: these moved the position
            merge_base.lay_over(self._connection, Own(mine.named, seen))
        done.locked = time.monotonic() - locked

    def _named(self) -> Named:
        return Named(self._connection, self.installed.tables, self.installed.numbers, self.installed.names)

    def _forget_touched(self, folded: Iterable[Folded]) -> None:
        """Empty the scratch tables after a fold without a merge: they would grow with every own change set."""
        for each in folded:
            each.table.empty("touched")

    def clear_log(self, upto: int, seen: int) -> None:
        """Clear the log up to ``upto``: its rows are acknowledged or equal. The transaction writes the database.

        It also raises watermarks over the rows above them, if no process wrote since the data_version ``seen``.
        """
        tables = self.installed.by_id
        self._log.clear(upto)
        if self.seen() == seen:
            above = self._log.watermarks.above_all(tables)
            self._log.watermarks.raise_all(tables[number] for number in above)
        if merge_base.any_there(self._connection):
            self._log.refresh(tables)
            merge_base.forget_unlogged(self._connection, tables)

    def compare_stale(self) -> None:
        """Compare tables that a migration rebuilt while database and mirror were at different positions.

        Before that, unlogged changes can't be distinguished from rows to be folded. Raises SchemaMovedError.
        """
        if not self.installed.stale or mirror_is_behind(self._connection) or is_older(self._connection):
            return
        with self.unit("compare rebuilt tables"):
            self.same_schema()
            for number in self.installed.stale:
                table = self.installed.by_id[number]
                self._log.append(table, changed_keys(table, replicate=self._replicate))
            set_state(self._connection, "main", STALE, "")
        self.installed.stale = frozenset()

    def same_schema(self) -> None:
        """Raise SchemaMovedError if the database's schema differs from the installed one."""
        if schema_version(self._connection) != self.installed.version:
            raise SchemaMovedError("the database's schema has changed")

    def retry_held(self) -> None:
        """Release held rows that no longer conflict."""
        self.holding = bool(self._held())
        if self.holding:
            self._others.politely(self._retry_held)

    def _retry_held(self, until: float) -> None:
        self._others.wait(until, again=True)
        with self.unit("try held rows again"):
            self.same_schema()
            held = self._held()
            self._log.name_new(table for table in self.installed.tables.values() if table.id in held)
            self._log.refresh(self.installed.by_id)
            self._merge({}, None, held)

    def _touched(self, folded: Iterable[str], held: Iterable[int]) -> list[TrackedTable]:
        """Return the database's tables that were folded, by name, or have held rows, by number."""
        tables, by_id = self.installed.tables, self.installed.by_id
        found = {table.id: table for name in folded if (table := tables.get(name)) is not None}
        found |= {number: by_id[number] for number in held if number in by_id}
        return [found[number] for number in sorted(found)]

    def _held(self) -> set[int]:
        """Return the numbers of tables with held rows."""
        return {number for (number,) in rows(self._connection, f"SELECT DISTINCT t FROM main.{quote(HELD)}")}

    def _merge(self, folded: dict[str, Folded], own: Own | None, held: set[int]) -> int:
        over = self.flights.staying(own.fragments if own is not None else ())
        merging = Merge(self._connection, self._log, own=own, over=over, kept=self._kept)
        for table in self._touched(folded, held):
            merging.table(table, folded.get(table.shape.name) or Folded(table), held=table.id in held)
            self._log.watermarks.raise_all([table])
        if held or merging.held:
            self.holding = bool(self._held())
        return merging.rows
