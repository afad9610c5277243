"""Bring additions to the schema that another node made into this database.

Invariant: nothing that is here is removed or made in another way: what is missing is made, column by column where a
table is here already. What this SQLite can't make is left out, named, and waits for this node's own migration.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import apsw

from harmonylite.changes.reassembler import Fragment
from harmonylite.db.mirror import mirror_file
from harmonylite.db.mirror.database_schema import (
    captured_there,
    is_remembered,
    remembered,
    remembered_numbers,
)
from harmonylite.db.mirror.former_names import former_columns
from harmonylite.db.sqlite.connection import reading, rows, transaction, value
from harmonylite.db.sqlite.introspection import TableRules
from harmonylite.db.sqlite.side_effect_triggers import why_not
from harmonylite.db.sqlite.untrusted_ddl import Definition, decode, make_one
from harmonylite.db.tracking.captured_schema import advance, captured_schema
from harmonylite.db.tracking.waiting_schema import forget, let_wait, waiting
from harmonylite.errors import DefinitionError
from harmonylite.model import WaitingChange
from harmonylite.schema.columns import ColumnText, added, columns_of, is_one
from harmonylite.schema.names import folded
from harmonylite.schema.section import COLUMNS, PRAGMA, PRAGMAS, SECTION, Addition
from harmonylite.schema.shape import FILLERS, affinity_of
from harmonylite.schema.sql import quote
from harmonylite.wire import KIND_SCHEMA

NOT_BY_ITSELF = "[schema] apply leaves it to this node's own migration, or to `harmonylite schema accept`"
_CONTENT = re.compile(r"USING\s+fts5\b.*\bcontent\s*=\s*['\"]?[^\s'\",)]", re.IGNORECASE | re.DOTALL)


def section_of(fragment: Fragment) -> list[Addition]:
    """Return the schema section at the head of a change set; nothing where it has none. Raises PoisonError."""
    if fragment.kind != KIND_SCHEMA:
        return []
    head = next((block[0] for block in fragment.decoded() if block), None)
    if head is None or head.table != SECTION or head.columns != COLUMNS:
        raise fragment.broken("a change set that says so has no schema section")
    found = []
    for row in head.inserts:
        if len(row) != len(COLUMNS) or not all(isinstance(part, str) for i, part in enumerate(row) if i != 3):
            raise fragment.broken("a line of a schema section is not kind, name, table, old and new definition")
        addition = Addition(*row)
        try:
            if addition.kind == PRAGMA:
                _number(addition)
            else:
                decode((addition.kind, addition.name, addition.table, addition.new))
            if addition.old is not None and not isinstance(addition.old, str):
                raise DefinitionError("an old definition is no text")
        except (DefinitionError, ValueError) as error:
            raise fragment.broken(f"schema section: {error}") from error
        found.append(addition)
    return found


def of_mirror(connection: apsw.Connection, snapshot: Path) -> ToBring:
    """Return what the schema of another mirror, the file ``snapshot``, has, without what is known to have gone here."""
    with reading(snapshot) as other:
        return _of_mirror(connection, other)


def _of_mirror(connection: apsw.Connection, other: apsw.Connection) -> ToBring:
    definitions = remembered(other) if is_remembered(other, "main") else []
    numbers = [Addition(PRAGMA, name, "", None, str(n)) for name, n in remembered_numbers(other).items()]
    dropped = {name for name, number in mirror_file.table_ids(connection).items() if number == mirror_file.DROPPED}
    found = []
    for each in definitions:
        if each.table in dropped:
            continue
        gone = ", ".join(quote(name) for name in former_columns(connection, each.table)) if each.kind == "table" else ""
        found.append(Addition(each.kind, each.name, each.table, f"CREATE TABLE t({gone})" if gone else None, each.sql))
    found.sort(key=lambda a: Definition(a.kind, a.name, a.table, a.new).rank)
    captured = captured_there(other) if definitions else []
    return ToBring([*found, *numbers], [Addition(k.kind, k.name, k.table, None, k.sql) for k in captured])


def _number(addition: Addition) -> int:
    number = int(addition.new)
    if addition.name not in PRAGMAS or not -(2**31) <= number < 2**31:
        raise ValueError(f"{addition.name[:100]!r} is no number of a file's")
    return number


@dataclass(frozen=True)
class ToBring:
    """What to ``make`` here, and what counts as ``captured`` then, where it is here; ``node``: whose that is."""

    make: list[Addition]
    captured: list[Addition]
    node: str = ""


@dataclass
class SchemaAdditions:
    """Brings sections into the database. ``apply`` False: only counts as captured what is here by now.

    ``left_out``: sentences about what could not be made, by object.
    """

    connection: apsw.Connection
    node: str
    rules: TableRules
    apply: bool
    left_out: dict[str, str] = field(default_factory=dict)

    def sections(self, fragments: Iterable[Fragment]) -> list[ToBring]:
        """Return the sections of change sets. Raises PoisonError."""
        found = {fragment.id: fragment for fragment in fragments if fragment.kind == KIND_SCHEMA}
        read = {name: section_of(fragment) for name, fragment in found.items()}
        return [ToBring([] if name.node == self.node else added, added, name.node) for name, added in read.items()]

    def bring(self, sections: Sequence[ToBring]) -> list[str] | None:
        """Make what ``sections`` add, in one transaction.

        Return what is new here; None: there was nothing to look at. Raises DatabaseBusyError with nothing changed.
        """
        if not any(section.make or section.captured for section in sections):
            return None
        made: list[str] = []
        with transaction(self.connection, "take over schema changes", immediate=True):
            for section in sections:
                wanted = [addition for addition in section.make if self._wanted(addition)]
                forget(self.connection, self._superseded(section.captured))
                if self.apply:
                    made += [str(addition) for addition in wanted if self._try(addition)]
                else:
                    let_wait(self.connection, section.node, NOT_BY_ITSELF, [a for a in wanted if not self._is_made(a)])
                own = section.node == self.node
                counted = [a for a in section.captured if self._wanted(a) and self._counts(a, own=own)]
                advance(self.connection, counted)
        return made

    def waiting(self) -> list[WaitingChange]:
        """Return what waits and is not here, the oldest first."""
        return [shown for _, addition, shown in waiting(self.connection) if not self._is_made(addition)]

    def _superseded(self, later: Iterable[Addition]) -> list[int]:
        """Return what waits of numbers that others than these took the place of."""
        set_to = {addition.key for addition in later if addition.kind == PRAGMA}
        return [number for number, addition, _ in waiting(self.connection) if addition.key in set_to] if set_to else []

    def accept(self) -> list[str]:
        """Make all that waits, in one transaction; return what is new here. Raises DatabaseBusyError."""
        made: list[str] = []
        with transaction(self.connection, "make the schema changes that wait", immediate=True):
            for number, addition, _ in waiting(self.connection):
                if self._try(addition):
                    made.append(str(addition))
                if self._is_made(addition):
                    forget(self.connection, [number])
                    advance(self.connection, [addition])
        return made

    def _is_made(self, addition: Addition) -> bool:
        """Return whether all of an addition is here: of a table that is there, each column."""
        if addition.kind == PRAGMA:
            return str(value(self.connection, f"PRAGMA main.{addition.name}")) == addition.new
        here = self._find(addition)
        if here is None or addition.kind != "table" or here[0] != "table":
            return here is not None
        mine = columns_of(here[1])
        return not mine or all(folded(column.name) in mine for column in added(addition.old, addition.new))

    def _wanted(self, addition: Addition) -> bool:
        return addition.kind == PRAGMA or self.rules.wanted(addition.table)

    def _counts(self, addition: Addition, *, own: bool) -> bool:
        """Return whether ``addition`` counts as captured from here on.

        What this file has otherwise by now, also where it is back at what it was before, is then a change to be sent.
        Of another node's number that is not set here, nothing is: this file's is no answer to it.
        """
        if addition.kind == PRAGMA:
            return own or self.apply or self._is_made(addition)
        return self._find(addition) is not None

    def _find(self, addition: Addition) -> tuple[str, str] | None:
        either = ("table", "view") if addition.kind in ("table", "view") else (addition.kind, addition.kind)
        found = rows(
            self.connection,
            "SELECT type, sql FROM main.sqlite_schema WHERE lower(name) = lower(?) AND type IN (?, ?)",
            (addition.name, *either),
        )
        return found[0] if found else None

    def _try(self, addition: Addition) -> bool:
        """Make one addition; when SQLite refuses it, leave it out. Return whether anything changed."""
        what = f"schema {addition.kind} {addition.name}"
        self.connection.execute("SAVEPOINT addition")
        try:
            changed = self._make(addition)
        except (apsw.SQLError, apsw.ConstraintError, DefinitionError) as error:
            self.connection.execute("ROLLBACK TO addition")
            self.left_out[what] = (
                f"{addition} of another node could not be made here: {error}; migrate this database itself"
            )
            changed = False
        else:
            self.left_out.pop(what, None)
        self.connection.execute("RELEASE addition")
        return changed

    def _make(self, addition: Addition) -> bool:
        if addition.kind == PRAGMA:
            return self._set_number(addition)
        here = self._find(addition)
        if here is None:
            self._create(Definition(addition.kind, addition.name, addition.table, addition.new))
            return True
        if addition.kind != "table" or here[0] != "table":
            return False
        mine = columns_of(here[1])
        missing = [c for c in added(addition.old, addition.new) if folded(c.name) not in mine]
        for column in missing if mine else ():
            self._add(addition.name, column)
        return bool(missing and mine)

    def _set_number(self, addition: Addition) -> bool:
        known = {k.name: k.sql for k in captured_schema(self.connection, PRAGMA)}
        mine = str(value(self.connection, f"PRAGMA main.{addition.name}"))
        if mine == addition.new or mine != known.get(addition.name, mine):
            return False  # this node's own is still to be sent, and will be the newer one
        self.connection.execute(f"PRAGMA main.{addition.name} = {_number(addition)}")
        return True

    def _create(self, definition: Definition) -> None:
        make_one(self.connection, definition)
        if definition.kind == "trigger" and (
            why := why_not(self.connection, definition.name, definition.table, definition.sql)
        ):
            raise DefinitionError(why)
        if definition.virtual and _CONTENT.search(definition.sql):
            name = quote(definition.name)
            self.connection.execute(f"INSERT INTO main.{name}({name}) VALUES ('rebuild')")

    def _add(self, table: str, column: ColumnText) -> None:
        if not is_one(column.text):
            raise DefinitionError(f"the declaration of column {column.name} is none that can be added")
        sql = f"ALTER TABLE main.{quote(table)} ADD COLUMN {column.text}"
        try:
            self.connection.execute(sql)
        except apsw.SQLError as error:
            if "NOT NULL column with default value NULL" not in str(error):
                raise
            # a migration filled the column on its way: the rows' own values come with it
            words = column.text[len(column.name) :].upper()
            declared = re.split(r"\b(?:NOT|NULL|CHECK|REFERENCES|COLLATE|CONSTRAINT)\b", words)[0]
            self.connection.execute(f"{sql} DEFAULT {FILLERS[affinity_of(declared.strip(' )]'))]}")
