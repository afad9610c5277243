"""What of the stream's schema decides how rows are folded, whatever this database has: defaults and unique indexes.

Invariant: a mirror fills in and displaces as every other does, also while this node's own changes are still to be sent
and those of others wait.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache

import apsw

from harmonylite.db.mirror import mirror_file
from harmonylite.db.mirror.state import get_state, history_of
from harmonylite.db.mirror.stream_schema import read_catalog
from harmonylite.db.sqlite.connection import open_scratch
from harmonylite.db.sqlite.untrusted_ddl import Definition, make_one
from harmonylite.db.tracking.column_ids import Columns
from harmonylite.errors import DefinitionError
from harmonylite.schema.columns import (
    REMEMBERED,
    ColumnText,
    columns_of,
    tokens_of,
    unquoted,
    with_default,
    without_check,
)
from harmonylite.schema.names import folded
from harmonylite.schema.section import Known
from harmonylite.schema.shape import TableShape
from harmonylite.schema.table_text import normal, parts_of
from harmonylite.wire import decode_value

BROUGHT = "sections"
"""The fact of database and mirror that holds up to where in the order they have been through schema sections."""


@dataclass
class StreamShapes:
    """``tables``: the stream's tables, by identity; ``indexes``: its unique indexes.

    ``behind``: the mirror has been through a section, but not through the rows that came with it: its indexes come
    after these; ``left_out``: some were left out for that reason.
    """

    tables: dict[str, Known] = field(default_factory=dict)
    indexes: dict[str, Known] = field(default_factory=dict)
    behind: bool = False
    empty: bool = True
    left_out: bool = False
    _by_table: dict[str, list[Known]] = field(default_factory=dict)
    _by_columns: dict[tuple[tuple[str, str], ...], str] = field(default_factory=dict)

    @classmethod
    def read(cls, connection: apsw.Connection) -> StreamShapes:
        """Return what the mirror knows."""
        made = cls(behind=lacks_rows(connection))
        for known in read_catalog(connection).values():
            made.empty = False
            if known.kind == "table" and known.id:
                made.tables[known.id] = known
                made._by_columns[tuple(sorted(known.columns))] = known.sql
            elif known.kind == "index" and known.sql.startswith("CREATE UNIQUE"):
                made.indexes[folded(known.name)] = known
                made._by_table.setdefault(folded(known.table), []).append(known)
        return made

    @cached_property
    def columns(self) -> dict[str, ColumnText]:
        """The stream's declarations of columns, by identity."""
        found = {}
        for known in self.tables.values():
            declared = columns_of(loosened(known.sql))
            found.update({id_: declared[name] for name, id_ in known.columns if name in declared})
        return found

    def indexes_of(self, shape: TableShape, made: Iterable[str], columns: Columns) -> list[str]:
        """Return the unique indexes that the mirror's table has: the stream's, as far as it can.

        ``made``: the names of those that it has already; ``columns``: which columns of the stream's its own are.
        """
        if self.empty:
            return list(shape.indexes)
        here = {folded(index_name(sql)): sql for sql in shape.indexes}
        there = {folded(name) for name in made}
        theirs = self._by_table.get(folded(shape.name), [])
        others = (self.indexes[name] for name in here if name in self.indexes)
        found = []
        for index in [*theirs, *(each for each in others if each not in theirs)]:
            mine, same = here.get(folded(index.name)), folded(index.table) == folded(shape.name)
            if self.behind and folded(index.name) not in there:
                self.left_out = True
                continue
            if mine is not None and (normal(mine) == normal(index.sql) or not same):
                found.append(mine)
            elif same and (_names_columns(shape, index.sql) or self._means_the_same(shape, columns, index)):
                found.append(index.sql)
        return found

    def _means_the_same(self, shape: TableShape, columns: Columns, index: Known) -> bool:
        """Return whether an index of some rows, or on an expression, can be had here: its columns have their names."""
        return _called(columns) in self._by_columns and _can_be_made(shape.mirror_sql, Definition.of(index))

    def definition_of(self, shape: TableShape, columns: Columns) -> str:
        """Return the definition of the mirror's table, with the stream's types and defaults."""
        if shape.mirror_sql != shape.sql:
            return shape.mirror_sql
        if self._by_columns.get(_called(columns)) == shape.sql:
            return shape.mirror_sql  # declared as the stream does, column by column
        parts = parts_of(shape.mirror_sql)
        if parts is None:
            return shape.mirror_sql
        keys = {folded(column.name) for column in shape.keys}
        strict = "strict" in normal(parts.tail)
        texts = []
        for name, column in parts.columns.items():
            known = columns.get(name)
            theirs = self.columns.get(known.id) if known is not None and known.id else None
            if theirs is None or name in keys or not _alike(column, theirs, but="null"):
                texts.append(column.text)
            elif not _alike(column, theirs):
                texts.append(column.text if strict or _demands(column) else with_default(column, theirs))
            else:
                texts.append(with_default(column, theirs) if strict else _declared(column, theirs))
        if texts == [column.text for column in parts.columns.values()]:
            return shape.mirror_sql
        return parts.text(texts)


@lru_cache(maxsize=REMEMBERED)
def loosened(sql: str) -> str:
    """Return a definition without STRICT: any column holds any value, and converts what it converted before."""
    parts = parts_of(sql)
    if parts is None or "strict" not in normal(parts.tail):
        return sql
    texts = [
        c.text[: c.after] + " BLOB" + c.text[c.text.upper().index("ANY", c.after) + len("ANY") :]
        if normal(c.text)[1:2] == ("any",)
        else c.text
        for c in parts.columns.values()
    ]
    tail = ") WITHOUT ROWID" if "without" in normal(parts.tail) else ")"
    return replace(parts, tail=tail).text(texts)


def _declared(mine: ColumnText, theirs: ColumnText) -> str:
    """Return the stream's declaration of a column, under its name here.

    What is computed or checked may name other columns, which have other names here: a mirror does neither.
    """
    mine_rest, rest = mine.text[mine.after :], theirs.text[theirs.after :]
    if "as" in normal(rest) or without_check(mine_rest) == without_check(rest):
        return mine.text
    return mine.text[: mine.after] + without_check(rest)


def _alike(mine: ColumnText, theirs: ColumnText, but: str = "") -> bool:
    """Return whether rows are filled in alike under two declarations of a column; ``but``: a word that may differ."""
    here, there = normal(mine.text), normal(theirs.text)
    return all((word in here) == (word in there) for word in ("null", "as", "primary") if word != but)


def _demands(column: ColumnText) -> bool:
    """Return whether a column must have a value; one that need not takes the stream's default as it is."""
    return "null" in normal(column.text)


def been_through(connection: apsw.Connection, schema: str) -> tuple[str, dict[int, int]]:
    """Return the epoch, and by shard the position up to which database or mirror have applied schema sections."""
    blob = get_state(connection, schema, BROUGHT)
    history, places = ("", []) if blob is None else decode_value(blob)
    return history, dict(places)


def lacks_rows(connection: apsw.Connection) -> bool:
    """Return whether the mirror has been through a section, but not through the rows of its change set."""
    history, places = been_through(connection, "mirror")
    if history != history_of(connection, "mirror"):
        return False
    at = mirror_file.positions(connection, "mirror")
    return any(shard not in at or seq > at[shard].seq for shard, seq in places.items())


def index_name(sql: str) -> str:
    """Return the name of an index in its text as SQLite keeps it."""
    return unquoted(tokens_of(sql)[3])


def _called(columns: Columns) -> tuple[tuple[str, str], ...]:
    """Return the names of columns with their identities, as a table of the stream has them."""
    return tuple(sorted((name, column.id) for name, column in columns.items()))


@lru_cache(maxsize=REMEMBERED)
def _can_be_made(table: str, index: Definition) -> bool:
    """Return whether an index can be made on a table of this definition, and its text does nothing else."""
    with closing(open_scratch()) as scratch:
        try:
            scratch.execute(table)
            make_one(scratch, index)
        except (apsw.Error, DefinitionError):  # a column or a function is missing, for example
            return False
    return True


def _names_columns(shape: TableShape, sql: str) -> bool:
    """Return whether an index is on columns of a table, and on nothing else."""
    within = [part.split() for part in " ".join(tokens_of(sql)[7:-1]).split(",")]
    names = {folded(name) for name in shape.names}
    return tokens_of(sql)[-1] == ")" and all(len(p) == 1 and folded(unquoted(p[0])) in names for p in within)
