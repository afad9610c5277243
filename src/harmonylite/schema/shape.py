"""The shape of a table: its columns, its key, and the SQL fragments that follow from them.

Invariant: `TableShape.same` is true for two rows exactly when SQLite considers their keys equal; `differs` is true for
two values exactly when one bit of value or type differs, whatever the column's collation or affinity.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from re import DOTALL, IGNORECASE
from re import compile as pattern

from harmonylite.schema.names import folded
from harmonylite.schema.sql import quote

FILLERS = {"TEXT": "''", "INTEGER": "0", "REAL": "0.0", "NUMERIC": "0", "BLOB": "x''"}
"""By affinity: the value, on every node, of a NOT NULL column that has none."""

_CONFLICT_CLAUSE = pattern(r"\bON\b.*\bCONFLICT\b", IGNORECASE | DOTALL)
STAND_IN = "__harmonylite__stand_in"
"""The function of our connections that makes a value from an affinity and a key, a different one for each key."""

LAST = 1_000_000
"""The rank of a table without an identity."""

FLAT = 100
"""Terms in one chain of ORs."""


@dataclass(frozen=True, slots=True)
class Column:
    """One stored column. ``affinity``: TEXT, INTEGER, REAL, NUMERIC or BLOB; ``collation``: upper case.

    ``key``: position in the key, -1 outside it. ``pseudo``: "" for a real column, "rowid" if the table has no key
    of its own, "null" for the rowid that distinguishes rows whose key holds NULL (NULL itself for all others).
    ``defaulted``: its declaration names a default.
    """

    name: str
    affinity: str = "BLOB"
    collation: str = "BINARY"
    not_null: bool = False
    key: int = -1
    pseudo: str = ""
    defaulted: bool = False

    @property
    def fixed(self) -> bool:
        """True when keys that SQLite considers equal can't differ in this column's bits."""
        return bool(self.pseudo) or (self.collation == "BINARY" and self.affinity in ("TEXT", "INTEGER", "REAL"))


@dataclass(frozen=True)
class TableShape:
    """A replicated table. ``columns``: the key's first. ``rowid``: a name that reaches the rowid, "" WITHOUT ROWID.

    ``unique``: the columns of each further unique index that triggers can see; ``blind``: a unique index is partial
    or on expressions, so what it displaces is found by comparison only. ``identity``: the columns that identify a
    record where keys are counted (`harmonylite.schema.identity`); ``refers``: columns that refer to the number of such
    a table, with its name; ``rank``: tables of lower rank come first in a change set, so that new numbers are known.
    """

    name: str
    columns: tuple[Column, ...]
    rowid: str
    unique: tuple[tuple[str, ...], ...] = ()
    blind: bool = False
    integer_key: bool = False
    sql: str = ""
    indexes: tuple[str, ...] = field(default=())
    mirror_sql: str = ""
    identity: tuple[str, ...] = ()
    refers: tuple[tuple[str, str], ...] = ()
    rank: int = LAST

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of all columns, as change sets have them."""
        return tuple(column.name for column in self.columns)

    @cached_property
    def keys(self) -> tuple[Column, ...]:
        """The key's columns, in its order."""
        return tuple(column for column in self.columns if column.key >= 0)

    @cached_property
    def compared(self) -> tuple[int, ...]:
        """Indices of the columns that can differ between two rows of one key."""
        return tuple(i for i, c in enumerate(self.columns) if c.key < 0 or not c.fixed)

    @cached_property
    def pinned(self) -> bool:
        """True when all rows live on one shard; see `harmonylite.changes.sharding.shard_of`.

        Rows of different keys with NULL in different columns can claim the same rowid.
        """
        claims = self.nullable_key and len(self.keys) > 2
        return claims or self.has_unique or self.numbered or any(c.collation != "BINARY" for c in self.keys)

    @property
    def numbered(self) -> bool:
        """True when a fold may renumber rows of this table, or of a table that it refers to.

        All such tables are on the first shard, which is folded first: its order decides the numbers.
        """
        return bool(self.identity or self.refers)

    @property
    def counted(self) -> bool:
        """True when the key is one integer, which applications mostly count."""
        return len(self.keys) == 1 and self.keys[0].affinity == "INTEGER"

    @cached_property
    def nullable_key(self) -> bool:
        """True when a key may hold NULL, which SQLite allows outside INTEGER PRIMARY KEY and WITHOUT ROWID."""
        return any(column.pseudo == "null" for column in self.columns)

    @cached_property
    def conflict_clause(self) -> bool:
        """True when the definition may have an ON CONFLICT clause; one in a comment or a default counts, too."""
        return _CONFLICT_CLAUSE.search(self.sql) is not None

    @property
    def has_unique(self) -> bool:
        """True when rows of different keys can clash."""
        return bool(self.unique) or self.blind

    @cached_property
    def unique_columns(self) -> frozenset[str]:
        """Names of the columns that take part in further unique indexes; all columns where an index is blind."""
        if self.blind:
            return frozenset(self.names)
        return frozenset(name for columns in self.unique for name in columns)

    def read(self, column: Column, alias: str) -> str:
        """Return the expression for ``column`` of a row called ``alias``."""
        if column.pseudo == "rowid":
            return f"{alias}.{quote(self.rowid)}"
        if column.pseudo == "null":
            nulls = " OR ".join(f"{alias}.{quote(c.name)} IS NULL" for c in self.keys if not c.pseudo)
            return f"CASE WHEN {nulls} THEN {alias}.{quote(self.rowid)} END"
        return f"{alias}.{quote(column.name)}"

    def read_all(self, alias: str) -> str:
        """Return the list of expressions for all columns of a row called ``alias``."""
        return ", ".join(self.read(column, alias) for column in self.columns)

    def read_key(self, alias: str) -> str:
        """Return the list of expressions for the key of a row called ``alias``."""
        return ", ".join(self.read(column, alias) for column in self.keys)

    def write(self, names: Sequence[str] | None = None) -> str:
        """Return the list of columns to insert into, for the columns called ``names`` (all when None)."""
        wanted = self.columns if names is None else [self.column(name) for name in names]
        return ", ".join(quote(self.rowid if c.pseudo else c.name) for c in wanted)

    def fillers(self, present: Collection[int], key: Sequence[str]) -> dict[int, str]:
        """Return, by index, the SQL value of each column that a row lacks and that has no default.

        The row may be older than the migration that added the column. The node publishes rows that the migration
        filled, because they differ from the filler. If two rows with one value would displace each other, each gets
        its own: NULL, or one made from its key, which the expressions ``key`` give.
        """
        alone = self._alone(present)
        made: dict[int, str] = {}
        for i, column in enumerate(self.columns):
            if i in present or column.key >= 0:
                continue
            if column.not_null and (
                column.name in alone or (not column.defaulted and column.name in self.unique_columns)
            ):
                made[i] = f"{STAND_IN}('{column.affinity}', {', '.join(f'typeof({k}) || hex({k})' for k in key)})"
            elif column.not_null and not column.defaulted:
                made[i] = FILLERS[column.affinity]
            elif column.name in alone and column.defaulted:
                made[i] = "NULL"
        return made

    def _fillers_of(self, other: TableShape, present: Collection[int], key: Sequence[str]) -> dict[int, str]:
        """Return `fillers` as a table with these columns, under other constraints, has them."""
        there = {self.columns[i].name for i in present}
        same = [i for i, column in enumerate(other.columns) if column.name in there]
        made = {other.columns[i].name: value for i, value in other.fillers(same, key).items()}
        return {i: made[column.name] for i, column in enumerate(self.columns) if column.name in made}

    def _alone(self, present: Collection[int]) -> set[str]:
        """Return a column of each unique index for which a row with the columns ``present`` has no value."""
        there = {self.columns[i].name for i in present}
        ours = set(self.names)
        return {
            next(c for c in index if c in ours) for index in self.unique if ours & set(index) and not there & set(index)
        }

    def into(
        self,
        present: Collection[int],
        read: Callable[[int], str],
        key: Sequence[str] | None = None,
        *,
        like: TableShape | None = None,
    ) -> tuple[str, str]:
        """Return the columns to insert into and the expressions for rows with the columns ``present``.

        ``read`` returns the expression of one of them; ``key``: those of the key, if it is not among them; ``like``:
        the shape that decides what the rest is filled with, if another one than this.
        """
        key = [read(i) for i in range(len(self.keys)) if i in present] if key is None else key
        rest = self.fillers(present, key) if like is None else self._fillers_of(like, present, key)
        columns = self.write([self.columns[i].name for i in (*present, *rest)])
        return columns, ", ".join([*(read(i) for i in present), *rest.values()])

    def column(self, name: str) -> Column:
        """Return the column called ``name``; raises KeyError."""
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> dict[str, Column]:
        return {column.name: column for column in self.columns}

    def same(self, alias: str, other: str, prefix: str = "k") -> str:
        """Return the condition that row ``alias`` has the key held by ``other`` in its columns k0, k1, ..."""
        return self.same_as(alias, [f"{other}.{prefix}{i}" for i in range(len(self.keys))])

    def same_row(self, alias: str, other: str) -> str:
        """Return the condition that two rows of this table have the same key."""
        return self.same_as(alias, [self.read(column, other) for column in self.keys])

    def same_as(self, alias: str, values: Sequence[str]) -> str:
        """Return the condition that row ``alias`` has the key given by the expressions ``values``.

        The table's own column is on the left: its collation decides (SQLite: datatype3, section 7.1).
        """
        terms = []
        for column, value in zip(self.keys, values, strict=True):
            if column.pseudo == "null":
                terms.append(f"({value} IS NULL OR {alias}.{quote(self.rowid)} = {value})")
            else:
                operator = "IS" if self.nullable_key else "="
                terms.append(f"{self.read(column, alias)} {operator} {value}")
        return " AND ".join(terms)

    def places(self, alias: str) -> str:
        """Return the select list that identifies a row physically: its rowid, or its key WITHOUT ROWID."""
        return f"{alias}.{quote(self.rowid)}" if self.rowid else self.read_key(alias)

    def absent(self, alias: str) -> str:
        """Return the condition that an outer join found no row ``alias``."""
        return f"{alias}.{quote(self.rowid or self.keys[0].name)} IS NULL"

    def target(self) -> str:
        """Return the row value of a statement's target table that is compared with `places`."""
        if self.rowid:
            return quote(self.rowid)
        names = ", ".join(quote(c.name) for c in self.keys)
        return f"({names})" if len(self.keys) > 1 else names


def differs(column: Column, left: str, right: str) -> str:
    """Return the condition that two values of ``column`` differ in any bit.

    ``IS NOT`` alone considers 1 and 1.0, 0.0 and -0.0, and texts that the collation equates, equal.
    """
    plain = f"{left} IS NOT {right} COLLATE BINARY"
    if column.affinity == "TEXT" or (column.affinity == "INTEGER" and column.key >= 0):
        return f"({plain})"
    zero = f"({left} = 0 AND atan2(0, {left}) IS NOT atan2(0, {right}))"  # only the sign of zero differs
    if column.affinity == "REAL":
        return f"({plain} OR {zero})"
    return f"({plain} OR typeof({left}) IS NOT typeof({right}) OR {zero})"


def outline(shapes: Iterable[TableShape]) -> str:
    """Return a digest of tables, keys and columns: two databases that share it can hold each other's rows."""
    names = sorted((folded(shape.name), len(shape.keys), sorted(map(folded, shape.names))) for shape in shapes)
    return sha256(repr(names).encode()).hexdigest()[:16]


def any_of(terms: Sequence[str]) -> str:
    """Return the condition that at least one of ``terms`` holds, as flat as SQLite needs it (limits: depth 1,000).

    It is in parentheses, so an AND applies to all of it.
    """
    if len(terms) <= FLAT:
        return f"({' OR '.join(terms) or '0'})"
    half = len(terms) // 2
    return f"({any_of(terms[:half])} OR {any_of(terms[half:])})"


def any_differs(pairs: Iterable[tuple[Column, str, str]]) -> str:
    """Return the condition that at least one of ``pairs`` differs."""
    return any_of([differs(column, left, right) for column, left, right in pairs])


def affinity_of(declared: str) -> str:
    """Return the affinity of a declared type (SQLite: datatype3, section 3.1)."""
    kind = declared.upper()
    if "INT" in kind:
        return "INTEGER"
    if any(word in kind for word in ("CHAR", "CLOB", "TEXT")):
        return "TEXT"
    if "BLOB" in kind or not kind:
        return "BLOB"
    if any(word in kind for word in ("REAL", "FLOA", "DOUB")):
        return "REAL"
    return "NUMERIC"
