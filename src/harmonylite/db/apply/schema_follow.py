"""Follow the stream's schema, where all changes of a schema travel: fold sections, and merge what comes of them.

Invariant: a section is folded into the mirror once, and merged into the database once, each written down with it; a
mirror that is behind its database changes nothing in that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import apsw

from harmonylite.db.apply.schema_changes import Mode
from harmonylite.db.apply.schema_merge import SchemaMerge
from harmonylite.db.apply.schema_section import (
    SchemaSection,
    fold_new,
    is_new,
    read_further,
    remember,
    remember_all,
)
from harmonylite.db.mirror.database_schema import captured_there, is_remembered
from harmonylite.db.mirror.identities import tied_by_name, without_columns
from harmonylite.db.mirror.state import get_state
from harmonylite.db.mirror.stream_schema import has_catalog, read_catalog, writer_meant
from harmonylite.db.mirror.stream_shapes import been_through
from harmonylite.db.sqlite.connection import reading, transaction
from harmonylite.db.sqlite.introspection import TableRules, application_objects
from harmonylite.db.sqlite.side_effect_triggers import drop_hooks
from harmonylite.db.tracking import column_ids
from harmonylite.db.tracking.captured_schema import captured_schema, read_schema, write
from harmonylite.db.tracking.column_ids import Columns
from harmonylite.db.tracking.installed import Installed
from harmonylite.db.tracking.triggers import trigger_tables
from harmonylite.db.tracking.waiting_schema import any_waits, forget, let_wait, waiting
from harmonylite.model import ChangeSetId, WaitingChange
from harmonylite.schema.catalog import Catalog, identified, tables_of
from harmonylite.schema.names import folded
from harmonylite.schema.section import GONE, Key, Known, SchemaChange

FLIGHTS = 8
"""So many change sets under way are remembered with the columns that they were captured with; one is usual."""


@dataclass
class SchemaFollow:
    """Brings the stream's schema into the mirror and the database. ``mode`` "none": into the mirror alone.

    ``left_out``: sentences about what could not be kept, by object.
    """

    connection: apsw.Connection
    node: str
    session: str
    rules: TableRules
    mode: Mode = "all"
    left_out: dict[str, str] = field(default_factory=dict)
    _flights: dict[ChangeSetId, dict[int, Columns]] = field(default_factory=dict)

    def takes_off(self, change_set: ChangeSetId, columns: dict[int, Columns]) -> None:
        """Remember the columns that tables have in a change set with a section, by their number in the log."""
        self._flights[change_set] = columns
        for old in list(self._flights)[:-FLIGHTS]:
            del self._flights[old]

    def bring(self, sections: Sequence[SchemaSection], check: Callable[[], object] = bool) -> list[str] | None:
        """Fold and merge sections, in one transaction, of which ``check`` is the first: it may raise.

        Return what is new here; None: there was nothing to look at. Raises DatabaseBusyError with nothing changed.
        """
        if not sections:
            return None
        made: list[str] = []
        with transaction(self.connection, "take over schema changes", immediate=True):
            check()
            newer = [section for section in sections if is_new(self.connection, section, "main")]
            fold_new(self.connection, sections)
            for section in newer:
                if section.node == self.node:
                    self._landed(section)
            for section in sections:
                remember(self.connection, section)
            if newer and not self._is_ahead():
                made = self._merge(newer[-1].node, newer[-1].at)
        return made

    def take(self, snapshot: Path) -> bool:
        """Bring the schema of another mirror into the database, which is to get that mirror; return whether it has one.

        A database that was never merged takes what both have as it is there; one that knows more than that mirror
        keeps what it knows, to be sent.
        """
        with reading(snapshot) as other:
            catalog = _catalog_of(other)
            further = read_further(self.connection, other)
            history, places = been_through(other, "main")
        if not catalog:
            return False
        joined = bool(get_state(self.connection, "main", "joined"))
        with transaction(self.connection, "take over the schema of a snapshot", immediate=True):
            if not joined:
                self._tie_all(catalog)
            elif not further:
                self._leave_to_send(catalog)
            self._merge("", {}, catalog)
            remember_all(self.connection, history, places)
        return True

    def step(self) -> bool:
        """Merge what the mirror knows and the database does not have: one of them was put back, or is new.

        Return whether there was anything to look at.
        """
        if not has_catalog(self.connection) or not get_state(self.connection, "main", "joined"):
            return False
        with transaction(self.connection, "merge the stream's schema", immediate=True):
            return not self._is_ahead() and bool(self._merge("", {}))

    def waiting(self) -> list[WaitingChange]:
        """Return what waits."""
        return [each.shown for each in waiting(self.connection)]

    def accept(self) -> list[str]:
        """Make all that waits, in one transaction; return what is new here. Raises DatabaseBusyError."""
        if not any_waits(self.connection):
            return []
        with transaction(self.connection, "make the schema changes that wait", immediate=True):
            return self._merge("", {})

    def follow(self, install: Callable[[Installed], Installed], before: Installed) -> Installed:
        """Install, and once more where something that waited was made by another process, or can be made now."""
        made = install(before)
        if not any_waits(self.connection):
            return made
        with transaction(self.connection, "take note of a migration", immediate=True):
            self._merge("", {})
        return made.again(install)

    def _is_ahead(self) -> bool:
        """Return whether the database has been through sections that its mirror has not."""
        history, places = been_through(self.connection, "main")
        theirs, further = been_through(self.connection, "mirror")
        return history == theirs and any(seq > further.get(shard, -1) for shard, seq in places.items())

    def _merge(self, node: str, at: object, catalog: Catalog | None = None) -> list[str]:
        if catalog is None:
            catalog = read_catalog(self.connection)
        merging = SchemaMerge(self.connection, self.node, self.rules, catalog, writes=self.mode != "none")
        there = waiting(self.connection)
        if merging.differs():
            drop_hooks(self.connection)  # they are made once more when all is in step
            merging.run()
        wait = [change for change, _ in merging.waits]
        forget(self.connection, [each.number for each in there if each.change not in wait])
        self.left_out = dict(merging.said)
        for change, why in merging.waits:
            whose = next(((each.node, each.at) for each in there if each.change == change), (node, at))
            let_wait(self.connection, whose[0], why, change, dict(whose[1]))  # type: ignore[call-overload]
            self.left_out[f"schema {change.kind} {change.name}"] = f"{change} of another node waits: {why}"
        return merging.made

    # what the stream knows -------------------------------------------------------------------------------------

    def _landed(self, section: SchemaSection) -> None:
        """Let what came with this node's own section be the stream's; what it sent in this session is the base now.

        A file of an earlier session may be a backup that was put back: what it lacks was not changed here.
        """
        captured = {known.key: known for known in captured_schema(self.connection)}
        by_id = {known.id: known for known in captured.values() if known.id}
        by_number = {known.number: known for known in by_id.values() if known.number}
        stream = tables_of(read_catalog(self.connection).values())
        meant = writer_meant(self.connection, section.id)
        columns = column_ids.read_all(self.connection)
        ours, here = section.id in self._flights, trigger_tables(self.connection)
        next_number = int(get_state(self.connection, "main", "next_table") or 1)
        for change in section.changes:
            if change.kind != "table":
                if ours:
                    _count(captured, change)
                continue
            id_, ids = meant.get(folded(change.name), ("", {}))
            if change.new is None or id_ not in stream:
                continue
            known, other = (
                k if k is not None and captured.get(k.key) is k else None
                for k in (by_number.get(change.number), by_id.get(id_))
            )
            if (other is not None and other.number != change.number) or (known is not None and known.id != id_):
                continue
            gone = change.number > 0 and change.number not in here
            if known is None and not ours and gone and change.number >= next_number:
                continue  # the file is from before the table
            if known is None or ours:
                if known is not None:
                    del captured[known.key]
                listed, number = tuple(sorted(ids.items())), GONE if gone else change.number
                sent = Known("table", change.name, change.table, change.new, number, id_, listed)
                captured[sent.key] = by_id[id_] = by_number[number] = sent
            if change.number in columns:
                self._tie(section.id, change.number, columns[change.number], ids)
        write(self.connection, captured.values())

    def _tie(self, change_set: ChangeSetId, number: int, here: Columns, ids: dict[str, str]) -> None:
        then = self._flights.get(change_set, {}).get(number, here)
        known = {column.id for column in here.values() if column.id}
        sent = {then[name].number: id_ for name, id_ in ids.items() if name in then and id_ not in known}
        tied = {
            name: replace(column, id=sent[column.number]) if not column.id and column.number in sent else column
            for name, column in here.items()
        }
        if tied != here:
            column_ids.put(self.connection, "main", number, tied)

    def _tie_all(self, catalog: Catalog) -> None:
        """Take the tables of a database that joins for the stream's of their names."""
        numbers = {name: number for number, name in trigger_tables(self.connection).items()}
        objects = application_objects(self.connection)
        known = [each for each in read_schema(self.connection, self.rules, numbers, objects) if each.key in catalog]
        tied = [each for each in (tied_by_name(each, catalog) for each in known) if each is not None]
        write(self.connection, tied)
        for table in tied:
            if table.number:
                ids = dict(table.columns)
                here = column_ids.read(self.connection, "main", table.number)
                mine = {name: replace(column, id=ids.get(name, "")) for name, column in here.items()}
                column_ids.write(self.connection, "main", table.number, mine)

    def _leave_to_send(self, catalog: Catalog) -> None:
        """Count nothing as captured that another stream does not know."""
        theirs = tables_of(catalog.values())
        kept = []
        for known in captured_schema(self.connection):
            if known.kind == "table" and known.id:
                if known.id not in theirs:
                    continue
                there = {id_ for _, id_ in theirs[known.id].columns}
                gone = {name for name, id_ in known.columns if id_ not in there}
                known = without_columns(known, gone) if gone else known
            elif known.key not in catalog:
                continue
            kept.append(known)
        write(self.connection, kept)
        ids = {id_ for known in kept for _, id_ in known.columns}
        for number, columns in column_ids.read_all(self.connection).items():
            here = {name: c if c.id in ids else replace(c, id="") for name, c in columns.items()}
            column_ids.write(self.connection, "main", number, here)


def _count(captured: dict[Key, Known], change: SchemaChange) -> None:
    """Count what a line says of an index, a view, a trigger or a number of the file's as captured."""
    if change.new is not None:
        captured[change.key] = Known(change.kind, change.name, change.table, change.new)
    elif change.key in captured and captured[change.key].kind == change.kind:
        del captured[change.key]


def _catalog_of(other: apsw.Connection) -> Catalog:
    """Return the stream's schema as a snapshot, ``main`` of ``other``, knows it."""
    if has_catalog(other, "main"):
        return read_catalog(other, "main")
    listed = captured_there(other) if is_remembered(other, "main") else []
    return {known.key: identified(known, f"={folded(known.name)}") for known in listed}
