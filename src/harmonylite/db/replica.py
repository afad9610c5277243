"""The replica: one node's database and mirror on one connection, and every operation on them.

Invariant: every public method is one or a few whole transactions; if it raises, the files and what this object
remembers of them are as before the current transaction.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

from harmonylite.changes.epochs import Relation
from harmonylite.changes.reassembler import AtomicBatch
from harmonylite.db import reconcile
from harmonylite.db.apply import log_reads
from harmonylite.db.apply.apply import Applying
from harmonylite.db.apply.own_change_sets import Applied, SchemaMovedError
from harmonylite.db.apply.schema_changes import SchemaChanges
from harmonylite.db.apply.schema_follow import SchemaFollow
from harmonylite.db.apply.schema_section import SchemaSection, is_new, sections_of
from harmonylite.db.capture.capture import Capture
from harmonylite.db.install import install
from harmonylite.db.mirror import file_facts, mirror_file
from harmonylite.db.mirror.compare import TableDifference
from harmonylite.db.mirror.conflict_journal import ConflictJournal
from harmonylite.db.mirror.database_schema import keep_schema
from harmonylite.db.mirror.swap import exchanged, must_fit, must_share_encoding
from harmonylite.db.replica_capture import ReplicaCapture
from harmonylite.db.replica_options import ReplicaOptions
from harmonylite.db.rolled_back import lacks_own, settled_at_start
from harmonylite.db.sqlite import real_digits
from harmonylite.db.sqlite.connection import configure, mapped, open_file, transaction
from harmonylite.db.sqlite.other_transactions import OtherTransactions
from harmonylite.db.sqlite.overwriting import Overwriting
from harmonylite.db.sqlite.side_effect_triggers import SideEffectTriggers
from harmonylite.db.sqlite.wal_mode import Wal
from harmonylite.db.statistics import Statistics
from harmonylite.db.tracking.change_log import ChangeLog
from harmonylite.db.tracking.installed import Installed, schema_version
from harmonylite.db.tracking.waiting_schema import any_waits
from harmonylite.errors import PoisonError, RowRefusedError, SchemaWaitError
from harmonylite.model import WaitingChange

__all__ = ["Replica", "ReplicaOptions"]

T = TypeVar("T")


class Replica(ReplicaCapture):
    """See the module. Nothing is opened in the constructor; all methods belong on one thread."""

    def __init__(self, options: ReplicaOptions, *, clock: Callable[[], float] = time.time) -> None:
        super().__init__(options)
        self._clock = clock
        self._seen = -1
        self.others, self.wal = OtherTransactions(options.database, options.patience), Wal()
        self.statistics, self._unlike = Statistics(), dict[str, str]()
        self.file = Overwriting(options.database, options.seen, self.wal)

    def open(self) -> None:
        """Open database and mirror (an empty one if missing); install triggers. Raises DatabaseError or a subclass."""
        o = self.options
        connection = self._connection = open_file(o.database)
        try:
            with mapped(f"open {o.database}"):
                digits = o.real_digits or real_digits.digits_there(connection)  # what comes next writes the header
                self.wal.enter(connection)
                configure(connection)
            mirror_file.attach_to(connection, o.mirror, o.database)
            real_digits.use(connection, digits or file_facts.remembered_digits(connection, "mirror"))
            self._log, self._journal = ChangeLog(connection), ConflictJournal(connection, o.node)
            self._capture = Capture(connection, shards=o.shards, compress=o.compress, most=o.capture_batch_rows)
            self._side_effects = SideEffectTriggers(connection)
            about = (connection, o.node, o.session, o.rules)
            self._schema = (SchemaFollow if o.sends_all else SchemaChanges)(*about, o.apply_here)
            self.others.seen = self._log.seen
            args = (connection, self._log, self._journal, self.others, self.file.check)
            self._applying = Applying(*args, node=o.node, session=o.session, replicate=o.replicate)
            if self.joined:
                with transaction(connection, "read the database's lineage"):
                    mirror_file.note_equal(connection)
            self._install()
            if isinstance(self._schema, SchemaFollow) and self._schema.step():
                self._install()
            if self.joined:
                self._log.settled = settled_at_start(connection, lacks=self.lacks_own())
            self.file.open(connection)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the files. Safe to call twice."""
        connection, self._connection, self._installed = self._connection, None, Installed()
        if connection is not None:
            self.file.close()
            connection.close()
            self.others.close()

    def reinstall(self) -> Installed:
        """Adapt triggers and mirror to the database's schema."""
        real_digits.use(self.connection, self.options.real_digits or real_digits.digits_there(self.connection))
        return self._install()

    def _install(self) -> Installed:
        connection, o, log = self.connection, self.options, self._log
        if not connection.in_transaction:
            self.others.wait(self.others.deadline())
        once = partial(install, connection, o, log, joined=self.joined)
        made = self._installed = self._applying.installed = self._schema.follow(once, self._installed)
        self._applying.folds += 1  # what is under way may be met by rows that a migration or VACUUM moved
        self._installed.warnings |= self._side_effects.renew({name: each.shape for name, each in made.tables.items()})
        reconcile.bring_back(connection, made, log, self._applying.unit)
        reconcile.join_tables(connection, made, log, self._journal, self._applying.unit, replicate=o.replicate)
        return made

    def schema_changed(self) -> bool:
        """Return whether the database's schema differs from the installed one."""
        with mapped("read the schema's version"):
            now = schema_version(self.connection), file_facts.header(self.connection)
        return now != (self._installed.version, self._installed.header)

    @property
    def warnings(self) -> dict[str, str]:
        """Sentences about tables and triggers that are left out, and about other weaknesses."""
        of_files = self.options.said | self._unlike | self.wal.warnings | self.statistics.warnings
        return self._installed.warnings | self._schema.left_out | of_files

    def lacks_own(self, *, newest: bool = False) -> bool:
        """Return whether rows that this node published are missing; see `rolled_back.lacks_own`."""
        if not (self.joined and self.options.replicate) or self.schema_changed():
            return False
        with self._applying.unit("look for rows that were published"):
            return lacks_own(self.connection, self._installed, self._log, self.options.node, newest=newest)

    def changed(self) -> bool:
        """Return whether another connection committed to the database since the last call (SQLite: data_version)."""
        self.file.check()
        self._seen, before = self.version(), self._seen
        return self._seen != before

    def version(self) -> int:
        """Return what changes with every commit of another connection (SQLite: data_version)."""
        with mapped("look at the database"):
            return self._applying.seen()

    def may_change(self) -> bool:
        """Return whether another process writes the database, whose commit then shows soon."""
        return self.others.may_write()

    def _must_be_in_step(self) -> None:
        if self.schema_changed():
            raise SchemaMovedError("the database's schema has changed")

    def apply(self, batch: AtomicBatch, *, merge: bool = True, until: float | None = None) -> Applied:
        """Fold a batch into the mirror and merge it into the database, with its positions, in one transaction.

        ``merge`` False: fold only; ``until``: see `OtherTransactions.politely`. What it raises has changed no row. If
        rows can't be applied, the schema that comes with them is there nevertheless.
        """
        sections = sections_of(batch.fragments)
        if not self._applying.naming_own and any(is_new(self.connection, section, "main") for section in sections):
            whole = partial(self._apply_whole, batch, sections, merge=merge)
            with suppress(SchemaWaitError, PoisonError, RowRefusedError):
                return self._in_step(lambda: self.others.politely(whole, until))
        if (made := self._in_step(lambda: self._schema.bring(sections, self._must_be_in_step))) is not None:
            self.reinstall()
        done = self._in_step(lambda: self._applying.apply(batch, merge=merge, until=until))
        if made is not None:
            self._finish_schema()
        return replace(done, schema=made or [])

    def _apply_whole(self, batch: AtomicBatch, sections: list[SchemaSection], until: float, *, merge: bool) -> Applied:
        """Apply a batch in one transaction with the changes of the schema that come in it; an error changes nothing."""
        before = self._installed
        self.others.wait(until)
        locked = time.monotonic()
        try:
            with self._applying.unit("apply change sets and their schema", immediate=True):
                self._must_be_in_step()
                made = self._schema.bring(sections) or []
                self._install()
                done = self._applying.apply_within(batch, merge=merge)
                self._finish_schema()
        except BaseException:
            self._installed = self._applying.installed = before
            self._log.start_over(before.by_id)
            raise
        return replace(done, schema=made, locked=time.monotonic() - locked)

    def _finish_schema(self) -> None:
        """Install what comes behind the rows of its change set: unique indexes, and what rows made impossible."""
        if self.options.sends_all and (self._installed.unfinished or any_waits(self.connection)):
            self._install()

    def waiting_schema(self) -> list[WaitingChange]:
        """Return the schema changes of other nodes that are not applied here, the oldest first."""
        return self._schema.waiting()

    def accept_schema(self) -> list[str]:
        """Apply the waiting changes; return those applied. Others still wait. Raises DatabaseBusyError."""
        return (self._schema.accept(), self.reinstall())[0]

    def retry_schema(self) -> bool:
        """Try what waits, where all changes come by themselves; return whether less waits. Raises DatabaseBusyError.

        The rows that a unique index waited for, for example, may have changed since.
        """
        waits = self.waiting_schema() if self.options.sends_all else []
        if not waits:
            return False
        self.reinstall()
        return self.waiting_schema() != waits

    def must_fit(self, snapshot: Path, *, whole: bool = False) -> None:
        """Apply the schema changes of ``snapshot`` that this database never had; raises as the functions of `swap`."""
        must_share_encoding(self.connection, self.options.database, snapshot)
        self._in_step(self._applying.same_schema)
        if self._schema.take(snapshot):
            self.reinstall()
        self._unlike = must_fit(self.connection, self.options.rules, snapshot, whole=whole)

    def copy_into_mirror(self, history: str = "") -> int:
        """Make the mirror a copy of the database, at the beginning of ``history``; return the newest log id in it."""
        self._applying.known.forget()
        return reconcile.copy_into_mirror(self.connection, self._installed, self._log, self._applying.unit, history)

    def join_first(self, newest: int | None = None) -> None:
        """Start the cluster: the mirror, a copy of the database at log id ``newest``, is its beginning."""
        newest = self.copy_into_mirror() if newest is None else newest
        reconcile.join_first(self.connection, self._installed, self._log, self._applying.unit, newest)

    def set_created(self, created: dict[int, str]) -> None:
        """Record the streams of the positions: creation time by shard."""
        with self._applying.unit("note the streams"):
            at = {s: replace(p, created=created[s]) for s, p in self.positions().items() if p.created != created[s]}
            mirror_file.set_positions(self.connection, "mirror", at)

    def compare(self) -> list[TableDifference]:
        """Return how database and mirror differ in every table, without pending and held rows."""
        return self._in_step(lambda: log_reads.compare_all(self._applying, self.connection, self._log))

    def reconcile(self, *, first: bool, keep_log: bool = False) -> int:
        """Compare database and mirror whole and resolve every difference; return the number of conflicts.

        ``first``: the database was never joined: rows only it has are logged for publication; ``keep_log``: so are
        those that the log names. Else the mirror wins on every row that the log doesn't name, with a journal entry.
        """
        self._in_step(self._applying.same_schema)
        of = (self.connection, self._installed, self._log, self._journal, self._applying.unit)
        conflicts = reconcile.reconcile(*of, first=first, replicate=self.options.replicate, keep_log=keep_log)
        keep_schema(self.connection)
        return conflicts

    def adopt(
        self,
        snapshot: Path,
        *,
        relation: Relation | Literal["deviates"] = "behind",
        further: Collection[int] | None = None,
        sent: Mapping[int, int] | None = None,
    ) -> int:
        """Replace the mirror by the file ``snapshot``; pending rows stay pending. Raises SchemaWaitError.

        ``relation``: how what is here relates to it. Behind: it is merged. Ahead: what only the database holds becomes
        pending, on the shards ``further`` (None: all). Diverged: rows only here become pending, other values lose and
        are journaled. Deviates: the mirror here is wrong; what came of it loses, journaled, too. ``sent``: see
        `reconcile.adopt`. Returns the number of conflicts. After a crash midway, adopt again.
        """
        before, o = self._journal.written, self.options
        self.must_fit(snapshot)
        with exchanged(self.connection, o.mirror, snapshot, o.readers, self._attach_mirror_again):
            self.reinstall()
            args = (self.connection, self._installed, self._log)
            if relation in ("diverged", "deviates"):
                self.reconcile(first=relation == "diverged", keep_log=True)
            else:
                with self._applying.unit(f"adopt {snapshot.name}"):
                    mine = set(range(o.shards) if further is None else further) if relation == "ahead" else set()
                    if mine:
                        reconcile.keep_mine(*args, shards=o.shards, further=mine, replicate=o.replicate)
                    if len(mine) < o.shards:
                        adopt = partial(reconcile.adopt, node=o.node, shards=o.shards, replicate=o.replicate)
                        adopt(*args, further=mine, sent=sent)
        return self._journal.written - before

    def name_own(self, *, on: bool) -> None:
        """Log the rows of this node's change sets that come back, because those also went into another order."""
        self._applying.naming_own = on
        self._applying.siblings = self._applying.siblings if on else frozenset()

    def saw(self, nodes: frozenset[str]) -> None:
        """Count the rows of change sets of ``nodes`` as seen by the writer of pending rows, until `name_own` is off."""
        self._applying.siblings = nodes

    def keep_mine(self, further: Collection[int] | None = None) -> None:
        """Log every row in which the database, known to be newer on ``further`` (None: all shards), differs."""
        self._in_step(self._applying.same_schema)
        of, o = (self.connection, self._installed, self._log), self.options
        with self._applying.unit("keep what the mirror lacks"):
            reconcile.keep_mine(*of, shards=o.shards, further=further, replicate=o.replicate)
        if further is not None and len(further) < o.shards:
            self.reconcile(first=False)

    def _attach_mirror_again(self) -> None:
        mirror_file.attach_to(self.connection, self.options.mirror, self.options.database)
        self._applying.known.forget()
        self.reinstall()

    @property
    def suspicious(self) -> bool:
        """True while a REPLACE may have displaced rows that no trigger saw."""
        return any(table.suspect for table in self._installed.blind)

    def find_unlogged(self) -> int:
        """Log the rows of suspect tables that differ unseen: REPLACE through an index that triggers can't see."""
        if not (blind := self._installed.blind) or not self.joined:
            return 0
        self._in_step(lambda: log_reads.take_log(self._applying, self._log))
        of = (self.connection, self._log, self._applying.unit, self.others)
        return reconcile.log_unlogged(*of, blind, replicate=self.options.replicate)
