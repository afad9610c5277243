"""A replicated table on the node's connection: its shape, its number in the log, its scratch tables.

Scratch tables are in ``temp`` and hold nothing that a crash could lose: ``logged`` (keys that the log names, with the
newest log id), ``kept`` (the mirror's rows of these before a fold), ``touched`` (keys of the current fold),
``pending`` (those that the local writer changed), ``before`` (rows that a three-way merge starts from), ``own`` (rows
of this node's own change set that came back), ``incoming`` (rows of the current change set, with the old values of
changed columns), ``waiting`` (those of them whose turn has not come), ``image`` (rows above the watermark as they were
captured; it survives a rollback), ``flown`` (rows of change sets that stay in flight, with 1 in each column that they
set).

Invariant: a statement that is built here fits the shape that it was built for; a new shape makes a new table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import apsw

from harmonylite.db.sqlite.introspection import TableRules
from harmonylite.db.sqlite.lossless import codec_of, insert_rows
from harmonylite.db.tracking.scratch import Scratch
from harmonylite.db.tracking.triggers import log_columns, triggers
from harmonylite.schema.shape import TableShape, any_differs
from harmonylite.schema.sql import quote


@dataclass
class TrackedTable:
    """One table. ``id``: its number in the log. ``logged``: keys in the scratch table of that name.

    ``images``: there are rows in the scratch table ``image``. ``suspect``: a REPLACE may have displaced rows that no
    trigger saw, so database and mirror must be compared. ``streamed``: the mirror's table has the constraints that the
    stream knows, and no others of the database's.
    """

    connection: apsw.Connection = field(repr=False)
    id: int
    shape: TableShape
    by_row: bool = False
    logged: int = 0
    suspect: bool = False
    images: bool = False
    exact: bool = field(default=False)
    streamed: bool = False
    _sql: dict[tuple[object, ...], Callable[[], str]] = field(default_factory=dict, repr=False)

    def once(self, build: Callable[[], str], *which: object) -> str:
        """Return the statement ``which``, which is built once.

        When its shape changes, the table is tracked again.
        """
        kept = self._sql.get(which)
        if kept is None:
            kept = self._sql[which] = self._scratch.within(build())
        return kept()

    @cached_property
    def triggers(self) -> dict[str, str]:
        """The capture triggers: name and SQL."""
        return triggers(self.shape, self.id)

    @cached_property
    def main(self) -> str:
        """The table in the database."""
        return f"main.{quote(self.shape.name)}"

    @cached_property
    def mirror(self) -> str:
        """The table in the mirror."""
        return f"mirror.{quote(self.shape.name)}"

    @cached_property
    def base(self) -> str:
        """The table in the mirror's state before the current transaction."""
        return f"base.{quote(self.shape.name)}"

    @cached_property
    def _scratch(self) -> Scratch:
        return Scratch(self.connection, self.id, self.shape)

    def scratch(self, kind: str) -> str:
        """Return the name of one of the scratch tables, qualified; it is created if it is missing."""
        return self._scratch.name(kind)

    def empty(self, kind: str) -> None:
        """Delete all rows of one of the scratch tables."""
        self._scratch.empty(kind)

    def put(self, kind: str, present: Sequence[int], images: list[list[Any]], *, add: bool = False) -> None:
        """Put ``images``, rows of the columns ``present``, into a scratch table; ``add``: keep the rows that it has."""
        if not add:
            self.empty(kind)
        names = ", ".join(f"c{i}" for i in present)
        insert_rows(self.connection, f"INSERT INTO {self.scratch(kind)}({names})", len(present), images)

    def put_mirrored(self, kind: str) -> None:
        """Put the mirror's rows of all logged keys into a scratch table."""
        self.empty(kind)
        self.connection.execute(
            f"INSERT INTO {self.scratch(kind)}({self.column_list}) SELECT {self.shape.read_all('m')}"
            f" FROM {self.scratch('logged')} AS x CROSS JOIN {self.mirror} AS m ON {self.shape.same('m', 'x')}"
        )

    def drop_scratch(self) -> None:
        """Drop the scratch tables of the table that had this number until now."""
        self._scratch.drop()

    @cached_property
    def key_list(self) -> str:
        """The key's columns in scratch tables: k0, k1, ..."""
        return ", ".join(log_columns(len(self.shape.keys)))

    @cached_property
    def insert_into(self) -> str:
        """INSERT INTO, with OR ABORT if the table's definition has a conflict clause, which must not apply to the node.

        Only then, because a clause of the statement also overrules those in the triggers that it fires, even
        the one that SQLite calls the default (findings/sqlite-or-abort-is-not-the-default.sh).
        """
        return "INSERT OR ABORT INTO" if self.shape.conflict_clause else "INSERT INTO"

    @cached_property
    def update_verb(self) -> str:
        """UPDATE, likewise."""
        return "UPDATE OR ABORT" if self.shape.conflict_clause else "UPDATE"

    @cached_property
    def newest(self) -> str:
        """The statement that reads the table's number and its largest rowid."""
        return f"SELECT {self.id}, max({quote(self.shape.rowid)}) FROM {self.main}"

    @cached_property
    def column_list(self) -> str:
        """All columns in scratch tables: c0, c1, ..."""
        return ", ".join(f"c{i}" for i in range(len(self.shape.columns)))

    @property
    def in_logged(self) -> str:
        """The condition that the key held by ``x`` is logged."""
        terms = " AND ".join(f"l.k{i} IS x.k{i}" for i in range(len(self.shape.keys)))
        return f"EXISTS (SELECT 1 FROM {self.scratch('logged')} AS l WHERE {terms})"

    def update(self, values: Mapping[int, str], source: str) -> str:
        """Return the statement that sets columns, by index, in the database's rows ``d`` that ``source`` finds.

        ``source``: from FROM on; ``values``: expressions of the tables there. The limit keeps it a separate query,
        with its tables in the written order. Otherwise SQLite might flatten it, begin with the database's table, and
        scan that.
        """
        shape = self.shape
        places = [quote(shape.rowid)] if shape.rowid else [quote(c.name) for c in shape.keys]
        reads = [f"d.{place} AS p{i}" for i, place in enumerate(places)]
        reads += [f"{value} AS n{i}" for i, value in values.items()]
        sets = ", ".join(f"{quote(shape.columns[i].name)} = n.n{i}" for i in values)
        here = " AND ".join(f"t.{place} = n.p{i}" for i, place in enumerate(places))
        return (
            f"{self.update_verb} {self.main} AS t SET {sets} FROM (SELECT {', '.join(reads)} {source} LIMIT -1) AS n"
            f" WHERE {here}"
        )

    def as_captured(self, alias: str) -> str:
        """Return the condition that a row equals its image, bit for bit."""
        shape = self.shape
        same_key = shape.same(alias, "i", "c")
        other = any_differs((column, shape.read(column, alias), f"i.c{n}") for n, column in enumerate(shape.columns))
        return f"EXISTS (SELECT 1 FROM {self.scratch('image')} AS i WHERE {same_key} AND NOT ({other}))"

    def keys_equal(self, left: str, right: str) -> str:
        """Return the condition that two keys in scratch tables are equal; ``left``, ``right``: their prefixes."""
        return " AND ".join(
            f"{left}{i} IS {right}{i} COLLATE {quote(c.collation)}" for i, c in enumerate(self.shape.keys)
        )

    def forget(self) -> None:
        """Consider ``logged`` lost; between transactions the other scratch tables hold nothing that matters."""
        self.empty("logged")
        self.logged = 0


def tracking(
    connection: apsw.Connection, rules: TableRules, before: Mapping[int, TrackedTable], *, streamed: bool
) -> Callable[[int, TableShape], TrackedTable]:
    """Return what tracks a table of a number and a shape: as ``before``, by number, where it has the shape of then."""
    exact = codec_of(connection) != "utf-8"  # SQLite would put together what is broken UTF-16

    def track(number: int, shape: TableShape) -> TrackedTable:
        old = before.get(number)
        if old is not None and (old.shape is shape or old.shape == shape):
            return old
        return TrackedTable(connection, number, shape, rules.is_by_row(shape.name), exact=exact, streamed=streamed)

    return track
