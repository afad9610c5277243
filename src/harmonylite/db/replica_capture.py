"""The half of a replica that sends: capture pending rows, and know what is in flight.

Invariant: as that of `harmonylite.db.replica`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TypeVar

from harmonylite.db.apply import log_reads
from harmonylite.db.apply.apply import Applying
from harmonylite.db.apply.own_change_sets import Flight, SchemaMovedError
from harmonylite.db.apply.schema_changes import SchemaChanges
from harmonylite.db.apply.schema_follow import SchemaFollow
from harmonylite.db.apply.schema_section import known_up_to
from harmonylite.db.capture.capture import Capture, NotUtf8Error, Outgoing, new_outgoing
from harmonylite.db.mirror.state import history_of
from harmonylite.db.replica_facts import ReplicaFacts
from harmonylite.db.tracking.captured_schema import changed_numbers
from harmonylite.db.tracking.change_log import ChangeLog
from harmonylite.db.tracking.installed import Installed
from harmonylite.errors import DatabaseBusyError
from harmonylite.model import ChangeSetId

T = TypeVar("T")


class ReplicaCapture(ReplicaFacts, ABC):
    """What a `Replica` captures."""

    _applying: Applying
    _log: ChangeLog
    _capture: Capture
    _schema: SchemaChanges | SchemaFollow
    _clock: Callable[[], float]

    @abstractmethod
    def reinstall(self) -> Installed:
        """Adapt triggers and mirror to the database's schema."""

    def pending_rows(self) -> int:
        """Return the number of rows that the log names, as last read."""
        return self._log.keys

    @property
    def holding(self) -> bool:
        """True while rows may be held back that a capture with nothing to send would release."""
        return self._applying.holding

    def capture(
        self, number: int, *, message_bytes: int, reading: Callable[[int], object] = int, ahead: bool = False
    ) -> Outgoing | None:
        """Capture the pending rows as change set ``number``; None: nothing differs. ``reading`` gets the count.

        ``ahead``: while earlier ones are in flight, which must not be closed: only what differs from them is pending.
        None also where it has to wait for them.
        """
        change_set, named = ChangeSetId(self.options.node, self.options.session, number), False
        while True:
            out: Outgoing | None = None
            try:
                self._applying.compare_stale()
                with self._applying.unit("capture"):
                    read = self._applying.read_log(named=named, ahead=ahead)
                    if read is not None:
                        reading(self.pending_rows())
                        out = self._outgoing(change_set, read.log_id)
                        over = self._applying.flights.in_the_air(self._installed.by_id)
                        if not ahead or (over is not None and not out.section):
                            of = self._log.busy.values()
                            self._capture.read(of, out, message_bytes=message_bytes, over=over or ())
            except BaseException as error:
                if out is not None:
                    out.close()
                if isinstance(error, SchemaMovedError):
                    self.reinstall()
                elif not isinstance(error, NotUtf8Error):
                    raise
                continue
            if read is not None and out is not None:
                return self._captured(out, read, ahead=ahead)
            if not self._applying.name_new_rows() and ahead:
                raise DatabaseBusyError("name new rows in the log: another process has a transaction open")
            named = True

    def _outgoing(self, change_set: ChangeSetId, log_id: int) -> Outgoing:
        """Return a change set with its schema section, and without rows; within the capture's transaction."""
        base, history = known_up_to(self.connection, self.positions()), history_of(self.connection, "mirror")
        made = self._installed
        section = [*made.section, *changed_numbers(self.connection, made.pragmas)]  # may fail: nothing is open yet
        out = new_outgoing(change_set, log_id, self._clock(), base, history)
        out.section = section
        return out

    def _captured(self, out: Outgoing, read: Flight, *, ahead: bool) -> Outgoing | None:
        """Return ``out``, in flight from now on, or None if nothing is to be sent."""
        if out.rows or (out.section and not ahead):
            if out.section:
                self._schema.takes_off(out.id, self._installed.columns)
            self._applying.flights.begin(out.id.number, replace(read, out=out))
            return out
        out.close()
        if not ahead:
            self._applying.nothing_differs(read)
            if self._applying.holding:
                self._applying.retry_held()
        return None

    def count_pending(self) -> int:
        """Read the log without capturing it; return the number of pending rows."""
        return self._in_step(lambda: log_reads.count(self._applying, self.connection, self._log))

    @property
    def unnoted(self) -> int:
        """How many rows are acknowledged, or logged without need, that the database does not record; see `note`."""
        return self._applying.unnoted

    def note(self, *, later: bool = False) -> None:
        """Record how far database and log are processed; see `Applying.note`. Raises DatabaseBusyError."""
        if self._applying.unnoted:
            self._in_step(partial(self._applying.note, later=later))

    def _in_step(self, work: Callable[[], T]) -> T:
        """Return what ``work`` returns under the installed schema; install again if the schema changed."""
        while True:
            try:
                return work()
            except SchemaMovedError:
                self.reinstall()

    def forget_flight(self, number: int) -> None:
        """Record that change set ``number`` never reached the stream; its rows stay pending."""
        self._applying.never_landed(number)

    def forget_flights(self) -> None:
        """Take what comes back from now on for change sets of an earlier session, whose rows the log still names."""
        self._applying.flights.clear()
