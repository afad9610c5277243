"""Random application transactions, and what must hold of them later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import apsw

from harmonylite.db.sqlite.lossless import marks
from harmonylite.schema.sql import quote
from tests.simulation.rarer import GROWN, MEMO, MIGRATIONS, grown
from tests.simulation.shapes import SHAPES, Shape

CORE = (
    "CREATE TABLE own(id TEXT PRIMARY KEY NOT NULL, v)",
    "CREATE TABLE counter(id TEXT PRIMARY KEY NOT NULL, n INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE left_half(node TEXT, part INT, v, PRIMARY KEY(node, part))",
    "CREATE TABLE right_half(v, node TEXT PRIMARY KEY NOT NULL)",
    "CREATE TABLE flag(id TEXT PRIMARY KEY NOT NULL, up INTEGER NOT NULL)",
    "CREATE TABLE note(id INTEGER PRIMARY KEY, a TEXT, b TEXT)",
    "CREATE TABLE claim(id TEXT PRIMARY KEY NOT NULL, seat INTEGER NOT NULL UNIQUE)",
    "CREATE TABLE local_who(name TEXT, n INT)",
)
"""Tables of every run; `Ledger` knows what must become of them. ``local_who`` is not replicated."""

Note = tuple[str, Any, str]
"""A value, and the key and column that it was written to."""


@dataclass
class Ledger:
    """What applications did and may rely on. ``own``: ids inserted once and never touched again; ``counters``: how
    often each node counted; ``flags``: where each node's flag stands; ``notes``: every value written to ``note``
    and ``memo``;
    ``claims``: every id written to ``claim``; ``replaced``: those of both that a later writer saw and replaced.
    """

    own: set[str] = field(default_factory=set)
    counters: dict[str, int] = field(default_factory=dict)
    flags: dict[str, int] = field(default_factory=dict)
    notes: dict[str, tuple[Any, str]] = field(default_factory=dict)
    claims: set[str] = field(default_factory=set)
    replaced: set[str] = field(default_factory=set)
    serial: int = 0

    def fresh(self) -> int:
        """Return a number that was never returned before."""
        self.serial += 1
        return self.serial


@dataclass
class Application:
    """One node's application: its own connection, its own statements. It never hears of HarmonyLite.

    ``level``: how many migrations it has done.
    """

    node: str
    connection: apsw.Connection
    shapes: Sequence[Shape]
    ledger: Ledger
    rng: Random
    level: int = 0

    def migrate(self) -> None:
        """Let the next migration change the table that migrations change."""
        for sql in ("BEGIN IMMEDIATE", *MIGRATIONS[self.level][0], "COMMIT"):
            self.connection.execute(sql)
        self.level += 1

    @property
    def migrates(self) -> bool:
        """True while there is another migration to come."""
        return GROWN in self.shapes and self.level < len(MIGRATIONS)

    @property
    def renames(self) -> bool:
        """True when the next migration renames a column."""
        return any(" RENAME COLUMN " in sql for sql in MIGRATIONS[self.level][0])

    def transaction(self) -> None:
        """Commit one random transaction, or roll one back."""
        self.connection.execute("BEGIN IMMEDIATE")
        notes: list[Note] = []
        replaced: set[str] = set()
        own: list[str] = []
        claims: list[str] = []
        counted, flags = 0, dict(self.ledger.flags)
        for _ in range(self.rng.choice((1, 1, 2, 3, 8))):
            kind = self.rng.random()
            if kind < 0.07:
                own.append(self._own())
            elif kind < 0.14:
                counted += 1
                self._count()
            elif kind < 0.22:
                flags[self.node] = self._flag()
            elif kind < 0.30:
                self._halves()
            elif kind < 0.40:
                self._note(notes, replaced)
            elif kind < 0.46:
                claims.append(self._claim(replaced))
            elif self.shapes:
                shape = self.rng.choice(self.shapes)
                if shape.name == MEMO:
                    self._note(notes, replaced, MEMO, shape.columns[0][1])
                else:
                    self._shape(grown(shape, self.level))
            if not self.connection.in_transaction:  # a clause of the table's rolled all of it back
                return
        if self.rng.random() < 0.08:
            self.connection.execute("ROLLBACK")
            return
        self.connection.execute("COMMIT")
        self.last = notes
        self.ledger.own.update(own)
        self.ledger.counters[self.node] = self.ledger.counters.get(self.node, 0) + counted
        self.ledger.flags = flags
        self.ledger.claims.update(claims)
        self.ledger.notes.update({text: (key, column) for text, key, column in notes})
        self.ledger.replaced |= replaced

    # what the ledger knows of ----------------------------------------------------------------------------------

    def _own(self) -> str:
        key = f"{self.node}-{self.ledger.fresh()}"
        self.connection.execute("INSERT INTO own VALUES (?, ?)", (key, self.rng.choice((1, "x", None))))
        return key

    def _count(self) -> None:
        self.connection.execute("INSERT INTO counter VALUES (?, 1) ON CONFLICT DO UPDATE SET n = n + 1", (self.node,))

    def _flag(self) -> int:
        """Raise the own flag, or take it down: a value that comes back is a change all the same."""
        sql = "INSERT INTO flag VALUES (?, 1) ON CONFLICT DO UPDATE SET up = 1 - up RETURNING up"
        return int(self.connection.execute(sql, (self.node,)).get)

    def _claim(self, replaced: set[str]) -> str:
        """Take a seat, also one that somebody seen here has."""
        new, seat = f"{self.node}?{self.ledger.fresh()}", self.rng.choice((1, 2, 3))
        replaced.update(row[0] for row in self.connection.execute("SELECT id FROM claim WHERE seat = ?", (seat,)))
        self.connection.execute("DELETE FROM claim WHERE seat = ?", (seat,))
        self.connection.execute("INSERT INTO claim VALUES (?, ?)", (new, seat))
        return new

    def _halves(self) -> None:
        """Write one value into three rows of two tables, which nobody may ever see apart."""
        new = self.ledger.fresh()
        self.connection.execute("DELETE FROM left_half WHERE node = ?", (self.node,))
        if self.rng.random() < 0.2:
            self.connection.execute("DELETE FROM right_half WHERE node = ?", (self.node,))
            return
        self.connection.execute("INSERT INTO left_half VALUES (?1, 1, ?2), (?1, 2, ?2)", (self.node, new))
        self.connection.execute("INSERT OR REPLACE INTO right_half VALUES (?2, ?1)", (self.node, new))

    def _note(
        self, notes: list[Note], replaced: set[str], table: str = "note", keys: Sequence[Any] = (1, 2, 3)
    ) -> None:
        key = self.rng.choice(keys)
        seen = self.connection.execute(f"SELECT a, b FROM {table} WHERE id = ?", (key,)).fetchone()
        one, two = (f"{self.node}:{self.ledger.fresh()}" for _ in "ab")
        kind = self.rng.random()
        if seen is None or kind < 0.2:
            self.connection.execute(f"INSERT OR REPLACE INTO {table} VALUES (?, ?, ?)", (key, one, two))
            notes += [(one, key, "a"), (two, key, "b")]
            replaced.update(seen or ())
        elif kind < 0.35:
            self.connection.execute(f"DELETE FROM {table} WHERE id = ?", (key,))
            replaced.update(seen)
        else:
            column = self.rng.choice("ab")
            respelled = ", id = ?2" * (table == MEMO)
            self.connection.execute(f"UPDATE {table} SET {column} = ?1{respelled} WHERE id = ?2", (one, key))
            notes.append((one, key, column))
            replaced.add(seen[0 if column == "a" else 1])

    # any table -------------------------------------------------------------------------------------------------

    def _shape(self, shape: Shape) -> None:
        """Run one random statement; one that a constraint refuses changes nothing."""
        try:
            if shape.name in ("child", "orphan") and self.rng.random() < 0.4:
                self._parent()
            else:
                self._statement(shape)
        except (apsw.ConstraintError, apsw.MismatchError):
            pass

    def _parent(self) -> None:
        rng, key = self.rng, self.rng.choice((1, 2, 3))
        if rng.random() < 0.5:
            self.connection.execute("INSERT INTO parent VALUES (?, ?)", (key, rng.choice("ab")))
        elif rng.random() < 0.5:
            self.connection.execute("DELETE FROM parent WHERE id = ?", (key,))
        else:
            self.connection.execute("UPDATE parent SET id = ? WHERE id = ?", (rng.choice((1, 2, 3)), key))

    def _statement(self, shape: Shape) -> None:
        rng = self.rng
        kind = rng.random()
        if kind < 0.4:
            self._insert(shape, rng.choice(("INSERT", "INSERT", "INSERT OR IGNORE", "INSERT OR REPLACE")))
        elif kind < 0.75:
            self._update(shape, [c for c in shape.columns[shape.keys :] if rng.random() < 0.5])
        elif kind < 0.82:
            self._update(shape, list(shape.columns[: shape.keys]))
        elif kind < 0.86:
            self._swap(shape)
        elif kind < 0.90:
            self._come_and_go(shape)
        elif kind < 0.97:
            where, bound = self._where(shape)
            self.connection.execute(f"DELETE FROM {quote(shape.name)} WHERE {where}", bound)
        else:
            self.connection.execute(f"DELETE FROM {quote(shape.name)}")

    def _insert(self, shape: Shape, verb: str, then: str = "") -> Any:
        chosen = [c for i, c in enumerate(shape.columns) if i < shape.keys or self.rng.random() < 0.9]
        if not chosen:
            return None
        names = ", ".join(quote(name) for name, _ in chosen)
        places, bound = marks(self.rng.choice(values) for _, values in chosen)
        sql = f"{verb} INTO {quote(shape.name)}({names}) VALUES ({places})"
        others = [name for name, _ in chosen[shape.keys :]]
        if verb == "INSERT" and shape.keys and others and self.rng.random() < 0.3:
            sql += " ON CONFLICT DO UPDATE SET " + ", ".join(f"{quote(n)} = excluded.{quote(n)}" for n in others)
        return self.connection.execute(sql + then, bound).get

    def _come_and_go(self, shape: Shape) -> None:
        """Put a row in that displaces others, and take it out again: only the others tell that it was there."""
        if shape.keys and "WITHOUT ROWID" not in shape.ddl[0]:
            new = self._insert(shape, "INSERT OR REPLACE", f" RETURNING {shape.rowid}")
            self.connection.execute(f"DELETE FROM {quote(shape.name)} WHERE {shape.rowid} = ?", (new,))

    def _update(self, shape: Shape, columns: Sequence[tuple[str, tuple[Any, ...]]]) -> None:
        if not columns:
            return
        parts = [marks([self.rng.choice(values)]) for _, values in columns]
        sets = ", ".join(f"{quote(name)} = {place}" for (name, _), (place, _) in zip(columns, parts, strict=True))
        where, bound = self._where(shape)
        verb = self.rng.choice(("UPDATE", "UPDATE OR REPLACE", "UPDATE OR IGNORE"))
        values = [value for _, one in parts for value in one]
        self.connection.execute(f"UPDATE{verb[6:]} {quote(shape.name)} SET {sets} WHERE {where}", [*values, *bound])

    def _where(self, shape: Shape) -> tuple[str, list[Any]]:
        if not shape.keys:
            return f"{shape.rowid} = ?", [self.rng.choice((1, 2, 3, 4))]
        parts = [marks([self.rng.choice(values)]) for _, values in shape.columns[: shape.keys]]
        names = [quote(name) for name, _ in shape.columns[: shape.keys]]
        where = " AND ".join(f"{name} IS {place}" for name, (place, _) in zip(names, parts, strict=True))
        return where, [value for _, one in parts for value in one]

    def _swap(self, shape: Shape) -> None:
        """Let two rows exchange the value of a column, by way of a third one."""
        if len(shape.columns) <= shape.keys:
            return
        column = quote(self.rng.choice(shape.columns[shape.keys :])[0])
        one, two = self._where(shape), self._where(shape)
        table = quote(shape.name)
        reads = [
            self.connection.execute(f"SELECT CAST({column} AS BLOB) FROM {table} WHERE {w}", b).get
            for w, b in (one, two)
        ]
        if not all(isinstance(found, bytes) for found in reads) or one == two:
            return
        write = f"UPDATE {table} SET {column} = CAST(? AS TEXT) WHERE "
        self.connection.execute(write + one[0], [b"aside", *one[1]])
        self.connection.execute(write + two[0], [reads[0], *two[1]])
        self.connection.execute(write + one[0], [reads[1], *one[1]])


def choose_shapes(rng: Random, most: int) -> list[Shape]:
    """Return a few shapes."""
    return rng.sample(SHAPES, rng.randint(1, most))


def create(connection: apsw.Connection, shapes: Sequence[Shape], node: str) -> None:
    """Make the application's tables."""
    for sql in (*CORE, *(sql for shape in shapes for sql in shape.ddl)):
        connection.execute(sql)
    connection.execute("INSERT INTO local_who VALUES (?, 0)", (node + ":",))
