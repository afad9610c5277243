"""Merge schema changes of other nodes into this database, three ways if the object was changed here, too.

Invariant: pending changes of this node's application stay, because their change set is ordered later; everything else
in the file is what the stream says, or waits, visibly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Literal

import apsw

from harmonylite.db.apply import schema_section, table_changes
from harmonylite.db.apply.schema_objects import create_object, find_object
from harmonylite.db.apply.schema_section import SchemaSection, count_captured, is_new, number_of, of_mirror, remember
from harmonylite.db.mirror import former_names, table_moves
from harmonylite.db.sqlite.connection import transaction, value
from harmonylite.db.sqlite.introspection import TableRules
from harmonylite.db.sqlite.side_effect_triggers import drop_hooks
from harmonylite.db.sqlite.untrusted_ddl import Definition
from harmonylite.db.tracking.captured_schema import advance, captured_schema
from harmonylite.db.tracking.column_ids import Columns
from harmonylite.db.tracking.installed import Installed
from harmonylite.db.tracking.triggers import trigger_tables
from harmonylite.db.tracking.waiting_schema import any_waits, dropped_keys, forget, let_wait, waiting
from harmonylite.errors import DefinitionError
from harmonylite.model import ChangeSetId, WaitingChange
from harmonylite.schema.columns import added
from harmonylite.schema.names import folded
from harmonylite.schema.section import PRAGMA, Key, Known, SchemaChange, additive_part, key_of
from harmonylite.schema.sql import quote
from harmonylite.schema.table_text import called, merged, pending_move

Mode = Literal["all", "additive", "none"]
NOT_BY_ITSELF = "[schema] apply leaves it to this node's own migration, or to `harmonylite schema accept`"
BUILDS_ON = "what it builds on waits"
HALF_DONE = "tables exchange their names, and one of them can't be renamed here"
_REFUSED = (apsw.SQLError, apsw.ConstraintError, apsw.MismatchError, apsw.TooBigError, DefinitionError)


class _HalfDoneError(Exception):
    """Not all tables that exchange their names could be renamed."""


@dataclass
class SchemaChanges:
    """Applies sections to the database. ``mode``: which changes it applies; "none" only counts those that are here.

    ``left_out``: sentences about changes that failed, by object.
    """

    connection: apsw.Connection
    node: str
    session: str
    rules: TableRules
    mode: Mode
    left_out: dict[str, str] = field(default_factory=dict)
    _aside: dict[str, str] = field(default_factory=dict)
    _base: dict[Key, Known] = field(default_factory=dict)
    _gone: list[Key] = field(default_factory=list)
    _known: list[Known] = field(default_factory=list)

    def bring(self, sections: Sequence[SchemaSection], check: Callable[[], object] = bool) -> list[str] | None:
        """Apply ``sections`` in one transaction, of which ``check`` is the first: it may raise.

        Return what is new here; None: they have no change. Raises DatabaseBusyError with nothing changed.
        """
        if not any(section.changes or section.captured for section in sections):
            return None
        made: list[str] = []
        with transaction(self.connection, "take over schema changes", immediate=True):
            check()
            if not all(change.adds for section in sections for change in section.changes):
                drop_hooks(self.connection)  # the install creates them again
            schema_section.fold_new(self.connection, sections)
            for section in sections:
                if is_new(self.connection, section, "main"):
                    made += self._section(section)
                    wanted = [theirs for theirs in section.captured if self.rules.wanted(theirs.table)]
                    count_captured(self.connection, wanted)
                elif is_new(self.connection, section, "mirror"):
                    self._move_mirror(section)
                remember(self.connection, section)
        return made

    def _move_mirror(self, section: SchemaSection) -> None:
        """Apply a section to the mirror's rows and names, if the database has applied it already."""
        for change in section.changes:
            if self._wanted(change):
                self._count_names(change, section)

    def take(self, snapshot: Path) -> bool:
        """Add what the schema of another mirror has and this database never had; return whether there is any."""
        return self.bring([of_mirror(self.connection, snapshot)]) is not None

    def takes_off(self, change_set: ChangeSetId, columns: Mapping[int, Columns]) -> None:
        """Columns have no identity here."""

    def waiting(self) -> list[WaitingChange]:
        """Return the waiting changes that are not here, the oldest first."""
        return [each.shown for each in waiting(self.connection) if not self._is_here(each.change)]

    def accept(self) -> list[str]:
        """Apply all waiting changes in one transaction; return what is new here. Raises DatabaseBusyError."""
        made: list[str] = []
        if not any_waits(self.connection):
            return made
        with transaction(self.connection, "make the schema changes that wait", immediate=True):
            drop_hooks(self.connection)
            listed = waiting(self.connection)
            forget(self.connection, [each.number for each in listed])
            for (node, at), some in groupby(listed, lambda each: (each.node, each.at)):
                made += self._section(SchemaSection([each.change for each in some], node, at), forced=True)
        return made

    def follow(self, install: Callable[[Installed], Installed], before: Installed) -> Installed:
        """Install, and again if another process made a waiting change."""
        made = install(before)
        return made.again(install) if self.made_by_hand() else made

    def made_by_hand(self) -> bool:
        """Count waiting changes that another process made here; return whether there were any."""
        if not any_waits(self.connection):
            return False
        listed = waiting(self.connection)
        last = {each.change.key: each for each in listed if self._is_here(each.change)}
        self._base = {known.key: known for known in captured_schema(self.connection)}
        here = [key for key in dropped_keys(self.connection) if find_object(self.connection, *key)]
        kept = {key for key in here if self._unchanged(key, key[1])}
        last = {key: each for key, each in last.items() if key not in kept}
        done = [each for each in listed if each.change.key in last and each.number <= last[each.change.key].number]
        if done:
            with transaction(self.connection, "take note of a migration", immediate=True):
                forget(self.connection, [each.number for each in done])
                for each in done:
                    with self._counting():
                        self._count(each.change, SchemaSection([], each.node, each.at))
        return bool(done)

    def _section(self, section: SchemaSection, *, forced: bool = False) -> list[str]:
        """Apply one section; return what is new here. Of tables that exchange names, all wait or none."""
        wanted = [change for change in section.changes if self._wanted(change)]
        numbers = {change.key for change in wanted if change.kind == PRAGMA}
        forget(self.connection, [each.number for each in waiting(self.connection) if each.change.key in numbers])
        self.connection.execute("SAVEPOINT section")
        try:
            with self._counting():
                made = [str(change) for change in wanted if self._take(change, section, forced=forced)]
        except _HalfDoneError:
            self.connection.execute("ROLLBACK TO section")
            made = []
            for change in wanted:
                let_wait(self.connection, section.node, HALF_DONE, change, section.at)
        self.connection.execute("RELEASE section")
        return made

    @contextmanager
    def _counting(self) -> Iterator[None]:
        """Count the changes of one section as captured together, because all start from the state before it."""
        self._base = {known.key: known for known in captured_schema(self.connection)}
        self._gone, self._known, self._aside = [], [], {}
        yield
        if self._aside:
            raise _HalfDoneError
        advance(self.connection, gone=self._gone, known=self._known)

    # one change ------------------------------------------------------------------------------------------------

    def _wanted(self, change: SchemaChange) -> bool:
        return change.kind == PRAGMA or self.rules.wanted(change.table)

    def _take(self, change: SchemaChange, section: SchemaSection, *, forced: bool = False) -> bool:
        """Apply one change, or store it as waiting; return whether anything is new here."""
        others = not forced and section.node != self.node
        if others and {change.key, change.old_key} & dropped_keys(self.connection):
            let_wait(self.connection, section.node, BUILDS_ON, change, section.at)
            return False
        if self._is_here(change) or table_moves.made_twice(self.connection, change.was, change.name, section.base):
            self._count(change, section, self._ordered(change))
            return False
        whole = change
        if not forced and change.kind == "table" and change.new is not None:
            change = additive_part(change)
        if section.node == self.node and self._moved_on(change, section):
            self._count(change, section, self._ordered(change))
            return False
        why = "" if forced else self._why_wait(change, section)
        if why or (change is not whole and others):
            let_wait(self.connection, section.node, why or NOT_BY_ITSELF, whole, section.at)
        if why:
            return False
        what = f"schema {change.kind} {change.name}"
        self.connection.execute("SAVEPOINT change")
        try:
            done = self._make(change, section)
        except _REFUSED as error:
            self.connection.execute("ROLLBACK TO change")
            why = f"it could not be made here: {error}"
            let_wait(self.connection, section.node, why, change, section.at)
            self.left_out[what] = (
                f"{change} of another node could not be made here: {error}; migrate this database itself"
            )
            done = False
        else:
            self.left_out.pop(what, None)
        self.connection.execute("RELEASE change")
        return done

    def _why_wait(self, change: SchemaChange, section: SchemaSection) -> str:
        if self.mode == "none" or (not change.adds and section.node != self.node):
            return NOT_BY_ITSELF
        return ""

    def _moved_on(self, change: SchemaChange, section: SchemaSection) -> bool:
        """Return whether this node made the change itself and the file has changed further since.

        A change of an earlier session is missing also if the file is a backup that was put back.
        """
        if section.session == self.session or self.mode == "none":
            return True
        if not change.adds or table_moves.was_dropped(self.connection, change):
            return True
        name = self._locate(change) if change.kind == "table" else change.name
        return change.kind != PRAGMA and not self._unchanged(change.old_key, name or change.name)

    def _ordered(self, change: SchemaChange) -> str:
        """Return the stream's definition of an object once ``change`` is in the order."""
        base = self._base.get(change.old_key)
        if change.kind != "table" or base is None or change.new is None:
            return change.new or ""
        return merged(base.sql, change.old or "", change.new, base.sql, dict(change.moves)).sql

    def _is_here(self, change: SchemaChange) -> bool:
        """Return whether this database has the result of ``change``."""
        if change.kind == PRAGMA:
            return str(value(self.connection, f"PRAGMA main.{change.name}")) == change.new
        here = find_object(self.connection, change.kind, change.name)
        if change.new is None or here is None:
            return change.new is None and (here is None or here.kind != change.kind)
        if change.was is not None and folded(self._locate(change)) != folded(change.name):
            return False
        if here.same(Known(change.kind, change.name, change.table, change.new)):
            return True
        if not change.adds or change.kind != "table" or here.kind != "table" or here.sql.startswith("CREATE VIRTUAL"):
            return False
        return not added(here.sql, change.new)

    def _unchanged(self, key: Key, name: str) -> bool:
        """Return whether an object has no pending change here."""
        base, here = self._base.get(key), find_object(self.connection, key[0], name)
        if base is None or here is None:
            return base is None and here is None
        number = table_moves.number_of(self.connection, here.name) if base.number else 0
        return here.same(base) and number == base.number

    def _make(self, change: SchemaChange, section: SchemaSection) -> bool:
        if change.kind == PRAGMA:
            return self._set_number(change)
        if change.new is None:
            return self._drop(change, section)
        if change.kind == "table" and (table := self._locate(change)):
            return self._change_table(change, section, table)
        here = find_object(self.connection, change.kind, change.name)
        if here is not None and here.kind != change.kind:
            raise DefinitionError(f"{here.kind} {here.name} has its name")
        base = self._base.get(change.old_key)
        dropped = here is None and change.old is not None and base is not None
        if dropped or (here is not None and not self._unchanged(change.key, change.name)):
            self._count(change, section, change.new)
            return False  # this node's own is still to be sent, and will be the newer one
        if here is not None:
            self.connection.execute(f"DROP {change.kind.upper()} main.{quote(here.name)}")
        create_object(self.connection, Definition(change.kind, change.name, change.table, change.new))
        self._count(change, section)
        return True

    def _drop(self, change: SchemaChange, section: SchemaSection) -> bool:
        here = find_object(self.connection, change.kind, change.name)
        drops = here is not None and self._unchanged(change.key, change.name)
        if here is not None and drops:
            self.connection.execute(f"DROP {change.kind.upper()} main.{quote(here.name)}")
        self._count(change, section)
        return drops

    def _set_number(self, change: SchemaChange) -> bool:
        known = {k.name: k.sql for k in captured_schema(self.connection, PRAGMA)}
        mine = str(value(self.connection, f"PRAGMA main.{change.name}"))
        advance(self.connection, known=[Known(PRAGMA, change.name, "", change.new or "0")])
        if mine != known.get(change.name, mine):
            return False  # this node's own is still to be sent, and will be the newer one
        self.connection.execute(f"PRAGMA main.{change.name} = {number_of(change)}")
        return True

    # tables ----------------------------------------------------------------------------------------------------

    def _locate(self, change: SchemaChange) -> str:
        """Return the table's name here, "" if there is no such table."""
        if change.old is None:
            return change.name if table_changes.definition_of(self.connection, change.name) else ""
        base = self._base.get(change.old_key)
        names = trigger_tables(self.connection)
        if base is not None and base.number in names:
            return names[base.number]
        before = change.name if change.was is None else change.was
        if folded(before) in self._aside:
            return self._aside[folded(before)]
        for name in (before, change.name):
            if table_changes.definition_of(self.connection, name):
                return name
        return table_moves.name_now(self.connection, before)

    def _change_table(self, change: SchemaChange, section: SchemaSection, table: str) -> bool:
        """Apply ``change`` to the table that is ``table`` here."""
        assert change.new is not None
        mine = table_changes.definition_of(self.connection, table)
        captured = self._base
        key = change.old_key if change.old_key in captured else key_of("table", table)
        base = captured.get(key)
        pristine = self._unchanged(key, table)
        before = mine if pristine else base.sql if base is not None else ""
        named = dict(change.moves)
        own = {name: now for name, now in named.items() if pending_move(name, before, mine)}
        others = {name: now for name, now in named.items() if name not in own}
        resolved = table_moves.resolved(self.connection, table, others, mine, change.new)
        moves = own | resolved
        done = merged(before, change.old or "", change.new, mine, moves)
        renamed_here = (
            base is not None
            and folded(base.name) != folded(table)
            and folded(table) not in map(folded, self._aside.values())
        )
        if change.was is not None and folded(table) != folded(change.name) and not renamed_here:
            self._make_room(change, section)
            table_changes.rename_table(self.connection, table, change.name)
            self._aside.pop(folded(change.was), None)
            table = change.name
        if change.adds:
            table_changes.add_columns(self.connection, table, added(change.old, change.new))
        else:
            table_changes.rename_columns(self.connection, table, resolved)
            target = done.sql if folded(table) == folded(change.name) else called(done.sql, table)
            said = table_changes.bring_table(self.connection, table, target)
            self.left_out |= {f"schema of {table}: {sentence[:40]}": sentence for sentence in said}
        table_moves.note(self.connection, table, resolved)
        former_names.also_called(self.connection, table, own)
        known = "" if pristine else merged(before, change.old or "", change.new, before, moves).sql
        if pristine and folded(table) != folded(change.name):
            known = table_changes.definition_of(self.connection, table)
        self._count(change, section, known, key)
        return table_changes.definition_of(self.connection, table) != mine

    def _make_room(self, change: SchemaChange, section: SchemaSection) -> None:
        """Set aside a table whose name another one gets, if a later change of ``section`` renames it."""
        if not table_changes.definition_of(self.connection, change.name):
            return
        if not any(other.was is not None and folded(other.was) == folded(change.name) for other in section.changes):
            raise DefinitionError(f"there is another table {change.name}")
        self._aside[folded(change.name)] = f"{table_changes.ASIDE}_{len(self._aside)}"
        table_changes.rename_table(self.connection, change.name, self._aside[folded(change.name)])

    # what counts as captured -------------------------------------------------------------------------------------

    def _count(self, change: SchemaChange, section: SchemaSection, sql: str = "", key: Key | None = None) -> None:
        """Count a change as captured; ``sql``: what of a table is, where not all that is here; ``key``: as what the
        object was known.
        """
        if change.kind == PRAGMA:
            advance(self.connection, known=[Known(PRAGMA, change.name, "", change.new or "0")])
            return
        self._count_names(change, section)
        base = self._base.get(key or change.old_key)
        if change.new is None or change.was is not None:
            self._gone.append(key or change.old_key)
        if change.new is not None:
            here = find_object(self.connection, change.kind, change.name)
            text = sql or (here.sql if here is not None else change.new)
            number = base.number if base is not None and change.old is not None else 0
            if section.node == self.node and change.number:
                number = change.number
            elif here is not None and change.kind == "table":
                number = table_moves.number_of(self.connection, here.name) or number
            self._gone += [k.key for k in self._base.values() if number and k.number == number]
            known = Known(change.kind, change.name, change.table, text, number)
            if base is not None and here is None and change.was is None and folded(base.name) != folded(change.name):
                known = replace(base, sql=text)  # it has another name by now
            self._known.append(known)

    def _count_names(self, change: SchemaChange, section: SchemaSection) -> None:
        if change.kind == "table" and change.new is None:
            table_moves.drop_from_mirror(self.connection, change.name, section.at, section.node)
        elif change.was is not None:
            table_moves.rename_in_history(self.connection, change.was, change.name, section.at, section.node)
