"""Merge the stream's schema into the database, three ways, where all changes of a schema travel.

Base is what the stream's schema was when this object was last in step with it, theirs is what it is now, mine is the
file. What is unchanged here becomes theirs. What the application changed stays: its own change set is ordered later.

Invariant: after it, each object is in step with the stream, or pending, or waits, visibly; an object that waits keeps
its base.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import apsw

from harmonylite.db.apply import table_changes
from harmonylite.db.apply.schema_objects import DatabaseObjects
from harmonylite.db.apply.schema_section import number_of
from harmonylite.db.mirror import table_moves
from harmonylite.db.sqlite.connection import value
from harmonylite.db.sqlite.introspection import TableRules, application_objects
from harmonylite.db.tracking import column_ids
from harmonylite.db.tracking.captured_schema import captured_schema, write
from harmonylite.db.tracking.column_ids import ColumnId, Columns
from harmonylite.db.tracking.triggers import trigger_tables
from harmonylite.errors import DefinitionError
from harmonylite.schema.catalog import Catalog, difference
from harmonylite.schema.merging import Declared, distinct, merge
from harmonylite.schema.names import folded
from harmonylite.schema.section import GONE, PRAGMA, Key, Known, SchemaChange
from harmonylite.schema.table_text import called, same_table

NOT_HERE = "this node writes no rows and no schema of others"
BUILDS_ON = "what it builds on waits"
REFUSED = (apsw.SQLError, apsw.ConstraintError, apsw.MismatchError, apsw.TooBigError, DefinitionError)


@dataclass
class _Table:
    """One table of the stream's. ``here``: its name in the database, "" where it is not."""

    base: Known | None
    theirs: Known
    here: str
    number: int
    waits: bool = False


@dataclass
class SchemaMerge:
    """One merge, in the caller's transaction. ``made``: what is new here; ``waits``: what is not, and why.

    ``writes`` False: nothing is done here.
    """

    connection: apsw.Connection
    node: str
    rules: TableRules
    catalog: Catalog
    writes: bool = True
    made: list[str] = field(default_factory=list)
    waits: list[tuple[SchemaChange, str]] = field(default_factory=list)
    said: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.base = {known.key: known for known in captured_schema(self.connection)}
        self.wanted = {k: known for k, known in self.catalog.items() if self._is_wanted(known)}
        self.virtual = [known for known in self.wanted.values() if known.is_virtual]

    def run(self) -> None:
        """Bring the database from its base to the stream's schema."""
        listed = (Known(*row) for row in application_objects(self.connection))
        self.file = {known.key: known for known in listed if self.rules.wanted(known.table)}
        self.columns = column_ids.read_all(self.connection)
        self.next_number = column_ids.next_number(self.connection)
        self.objects, self.lost = DatabaseObjects(self.connection), set[str]()
        self._drop_objects()
        tables = self._tables()
        self._rename(tables)
        for table in tables:
            if table.here:
                self._change(table)
        for table in tables:
            if not table.here:
                self._create(table)
        self.gone = {folded(t.theirs.name) for t in tables if not t.here and t.base is not None and not t.waits}
        for key in [*self.base, *self.wanted]:
            self._other(key)
        write(self.connection, self.base.values())

    def _is_wanted(self, known: Known) -> bool:
        return known.kind == PRAGMA or self.rules.wanted(known.table)

    def differs(self) -> bool:
        """Return whether anything of the stream's schema is another than the database's base."""

        if self.base.keys() != self.wanted.keys():
            return True
        return not all(known.equals(self.wanted[key]) for key, known in self.base.items())

    def _attempt(self, change: SchemaChange, work: Callable[[], object]) -> bool:
        """Do ``work`` for a change, or let it wait; return whether it was done."""
        if not self.writes:
            self.waits.append((change, NOT_HERE))
            return False
        self.connection.execute("SAVEPOINT change")
        try:
            work()
        except REFUSED as error:
            self.connection.execute("ROLLBACK TO change")
            self.connection.execute("RELEASE change")
            self.waits.append((change, f"it could not be made here: {error}"))
            return False
        self.connection.execute("RELEASE change")
        return True

    # tables ------------------------------------------------------------------------------------------------------

    def _drop_objects(self) -> None:
        """Drop what the stream has no more: what comes may need its name. What is a table's goes, or stays, with it."""
        theirs = {known.id for known in self.wanted.values() if known.kind == "table"}
        lost = {folded(b.name) for b in self.base.values() if b.kind == "table" and b.id not in theirs}
        for key, base in list(self.base.items()):
            stays = key in self.wanted and self.wanted[key].kind == base.kind
            if base.kind in ("table", PRAGMA) or stays or _is_on(base, lost):
                continue
            here = self.file.get(key)
            if here is None or not here.same(base):
                del self.base[key]
                continue
            change = SchemaChange(base.kind, base.name, base.table, base.sql, None)
            if self._attempt(change, partial(self.objects.drop, base.kind, here.name)):
                self.made.append(str(change))
                del self.base[key]

    def _tables(self) -> list[_Table]:
        """Return the stream's tables with what is here of them, after dropping those that it has no more."""
        numbers = trigger_tables(self.connection)
        self.named = {folded(name): number for number, name in numbers.items()}
        theirs = {known.id: known for known in self.wanted.values() if known.kind == "table"}
        on: dict[str, list[Key]] = {}
        for key, known in self.base.items():
            if known.kind in ("index", "trigger"):
                on.setdefault(folded(known.table), []).append(key)
        tied = {known.number for known in self.base.values() if known.number}
        by_id = {known.id: known for known in self.base.values() if known.kind == "table"}
        for key, base in [(k, b) for k, b in self.base.items() if b.kind == "table" and b.id not in theirs]:
            called_here = self._here(base, numbers)
            if not called_here:
                self.lost.add(base.id)
            if not called_here or self._drop_table(base, called_here):
                del self.base[key]
                for gone in on.get(folded(base.name), ()):  # SQLite drops them with it
                    self.base.pop(gone, None)
                    self.file.pop(gone, None)
        table_moves.take_from_mirror(self.connection, self.lost)
        found = []
        for id_, known in theirs.items():
            was = by_id.get(id_)
            if was is not None:
                found.append(_Table(was, known, self._here(was, numbers), was.number))
                continue
            number = self.named.get(folded(known.name), 0)
            here = self.file.get(known.key)
            free = here is not None and here.kind == "table" and number not in tied
            found.append(_Table(None, known, here.name if here is not None and free else "", number if free else 0))
        return found

    def _here(self, base: Known, numbers: Mapping[int, str]) -> str:
        """Return what a table that is known is called here, "" where it is not."""
        if base.number in numbers:
            return numbers[base.number]
        there = self.file.get(base.key) if base.number != GONE else None
        if there is None or there.kind != "table" or folded(there.name) in self.named:
            return ""
        return there.name

    def _drop_table(self, base: Known, here: str) -> bool:
        """Drop a table that the stream has no more; return whether nothing of that is left to do.

        One that was changed here is a new one from now on, and sent. Rows that were never sent give way, and are in
        the journal: a message that another table of that name needs may come before their own.
        """
        change = SchemaChange("table", base.name, base.table, base.sql, None)
        if not self._is_pristine(base, here):
            self._untie(base, here)
            return True

        def drop() -> None:
            table_moves.journal_unsent(self.connection, self.node, here)
            self.objects.drop("table", here)

        if not self._attempt(change, drop):
            return False
        self.lost.add(base.id)
        self.made.append(str(change))
        return True

    def _is_pristine(self, base: Known, here: str) -> bool:
        mine = Declared(table_changes.definition_of(self.connection, here), self._ids(base.number))
        if folded(here) != folded(base.name):
            return False
        return same_table(base.sql, mine.sql) and (not mine.ids or dict(base.columns) == dict(mine.ids))

    def _ids(self, number: int) -> dict[str, str]:
        return {name: column.id for name, column in self.columns.get(number, {}).items() if column.id}

    def _untie(self, base: Known, here: str) -> None:
        """Take a table for one that the stream does not know: all of its rows are to be sent."""
        names = self.columns.get(base.number, {})
        self._keep(base.number, {name: ColumnId(self._number()) for name in names})
        table_moves.empty_in_mirror(self.connection, here)

    def _number(self) -> int:
        """Return a number that no column has."""
        self.next_number += 1
        return self.next_number - 1

    def _keep(self, number: int, columns: Columns) -> None:
        self.columns[number] = columns
        if number:
            column_ids.write(self.connection, "main", number, columns)

    def _rename(self, tables: Sequence[_Table]) -> None:
        """Give tables the stream's names, all at once; a name that the stream gave another one is that one's."""
        present = {n: table for n, table in enumerate(tables) if table.here}
        fixed = {n: folded(table.theirs.name) for n, table in present.items()}
        pending = {
            n: folded(table.here)
            for n, table in present.items()
            if table.base is not None and folded(table.here) not in (folded(table.base.name), fixed[n])
        }
        held = {folded(change.name) for change, _ in self.waits if change.kind == "table"}
        known = {folded(table.here) for table in present.values()} | held
        others = [
            k
            for k in self.file.values()
            if k.kind == "table" and folded(k.name) not in known and self.objects.is_there(k)
        ]
        coming = [folded(t.theirs.name) for t in tables if not t.here and t.base is None]
        there = {len(tables) + n: name for n, name in enumerate(coming) if name not in held}
        new = {2 * len(tables) + n: folded(k.name) for n, k in enumerate(others)}
        names = distinct({**fixed, **there}, pending, new)
        now = {table.here: (table.theirs.name if names[n] == fixed[n] else table.here) for n, table in present.items()}
        now |= {k.name: names[n] if names[n] != folded(k.name) else k.name for (n, k) in zip(new, others, strict=True)}
        moves = {old: to for old, to in now.items() if folded(old) != folded(to)}
        if not moves:
            return
        change = SchemaChange("table", next(iter(moves.values())), "", None, "", next(iter(moves)))
        if self._attempt(change, lambda: self._rename_all(moves)):
            for table in present.values():
                if table.here in moves:
                    self.made.append(f"rename table {table.here} to {moves[table.here]}")
                    table.here = moves[table.here]
            return
        self.waits.pop()
        why = "tables exchange their names, and one of them can't be renamed here"
        for table in present.values():
            if table.here in moves:
                self._wait(table, why)
                table.here, table.waits = "", True

    def _rename_all(self, moves: Mapping[str, str]) -> None:
        names = {folded(old) for old in moves}
        aside = {
            old: f"{table_changes.ASIDE}_{n}" if folded(to) in names else to
            for n, (old, to) in enumerate(moves.items())
        }
        for old, name in aside.items():
            self.objects.make_way(name)
            table_changes.rename_table(self.connection, old, name)
        for old, name in aside.items():
            if name != moves[old]:
                table_changes.rename_table(self.connection, name, moves[old])

    def _wait(self, table: _Table, why: str) -> None:
        self.waits.append((self._said(table), why))

    @staticmethod
    def _said(table: _Table) -> SchemaChange:
        base, theirs = table.base, table.theirs
        if base is None:
            return SchemaChange("table", theirs.name, theirs.table, None, theirs.sql)
        was = base.name if base.key != theirs.key else None
        moves = tuple(sorted(difference(base, theirs).items()))
        return SchemaChange("table", theirs.name, theirs.table, base.sql, theirs.sql, was, moves)

    def _change(self, table: _Table) -> None:
        base, theirs = table.base, table.theirs
        if base is not None and base.equals(theirs):
            return
        change = self._said(table)
        mine = Declared(table_changes.definition_of(self.connection, table.here), self._ids(table.number))
        done = merge(base.declared if base is not None else None, theirs.declared, mine)
        before = mine.sql
        if self._attempt(change, lambda: self._bring(table.here, mine.sql, done.made.sql, done.names)):
            if table_changes.definition_of(self.connection, table.here) != before and not change.was:
                self.made.append(str(change))
            self._in_step(table, base)
            self._tie(table, done.made, done.names)

    def _in_step(self, table: _Table, base: Known | None) -> None:
        if base is not None and self.base.get(base.key) == base:
            del self.base[base.key]
        self.base[table.theirs.key] = replace(table.theirs, number=table.number)

    def _bring(self, here: str, mine: str, target: str, names: Mapping[str, str]) -> None:
        table_changes.exchange_columns(self.connection, here, names)
        said = table_changes.bring_table(self.connection, here, called(target, here) if target != mine else target)
        self.said |= {f"schema of {here}: {sentence[:40]}": sentence for sentence in said}

    def _tie(self, table: _Table, made: Declared, names: Mapping[str, str]) -> None:
        """Write down which columns a table has now: one that became the stream's takes the stream's values."""
        if not table.number:
            return
        table_moves.note_rebuilt(self.connection, table.here, table.number)
        before = self.columns.get(table.number, {})
        old = {folded(now): before[name] for name, now in names.items() if name in before}
        columns: Columns = {}
        for name in map(folded, table_changes.names_of(self.connection, table.here)):
            id_, was = made.ids.get(name, ""), old.get(name)
            columns[name] = was if was is not None and was.id == id_ else ColumnId(self._number(), id_)
        self._keep(table.number, columns)

    def _create(self, table: _Table) -> None:
        theirs = table.theirs
        if table.waits:
            return
        if table.base is not None:  # it was dropped here, which is still to be sent
            self._in_step(table, table.base)
            return
        change = self._said(table)
        taken = self.objects.find("table", theirs.name)
        if taken is not None and taken.kind == "table":
            waits = any(folded(other.name) == folded(theirs.name) for other, _ in self.waits)
            self.waits.append((change, BUILDS_ON if waits else "there is a table of its name here"))
            return
        if self._attempt(change, lambda: self.objects.create_table(theirs, self.virtual)):
            self.made.append(str(change))
            self.base[theirs.key] = theirs

    # others ------------------------------------------------------------------------------------------------------

    def _other(self, key: Key) -> None:
        """Bring an index, a view, a trigger or a number of the file's in step."""
        base, theirs = self.base.get(key), self.wanted.get(key)
        if theirs is None or theirs.kind == "table" or base == theirs:
            return
        if theirs.kind == PRAGMA:
            self._set_number(base, theirs)
            return
        if base is not None and base.kind == "table":
            return
        here = self.file.get(key)
        now = self.objects.find(theirs.kind, theirs.name)  # SQLite renames in it what was renamed
        if here is not None and here.kind == "table" and now is None:
            here = None  # it has another name by now
        change = SchemaChange(
            theirs.kind, theirs.name, theirs.table, base.sql if base is not None else None, theirs.sql
        )
        unchanged = here.same(base) if here is not None and base is not None else here is base
        if not unchanged or (now is not None and now.same(theirs)) or _is_on(theirs, self.gone):
            self.base[key] = theirs  # what is here is as theirs, or still to be sent
        elif self._attempt(change, lambda: self.objects.make(theirs)):
            self.made.append(str(change))
            self.base[key] = theirs

    def _set_number(self, base: Known | None, theirs: Known) -> None:
        change = SchemaChange(PRAGMA, theirs.name, "", None, theirs.sql)
        mine = str(value(self.connection, f"PRAGMA main.{theirs.name}"))
        if mine in (theirs.sql, base.sql if base is not None else mine) and mine != theirs.sql:
            if not self._attempt(change, lambda: self._pragma(change)):
                return
            self.made.append(str(change))
        self.base[theirs.key] = theirs

    def _pragma(self, change: SchemaChange) -> None:
        self.connection.execute(f"PRAGMA main.{change.name} = {number_of(change)}")


def _is_on(known: Known, tables: Collection[str]) -> bool:
    """Return whether an object is an index or a trigger of one of some tables (folded)."""
    return known.kind in ("index", "trigger") and folded(known.table) in tables
