"""Tables with conflict clauses, and with what only the application's connection has: drawn for some of the seeds."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import apsw

from tests.simulation.shapes import FEW, KEYS, TEXTS, Shape

SMALL = (0, 1, 2, 3, None)


def _clause(clause: str) -> tuple[Shape, ...]:
    """Return tables whose constraints of each kind say ``clause``."""
    name, on = clause.lower(), f"ON CONFLICT {clause}"
    return (
        Shape(
            f"{name}_number",
            (
                f"CREATE TABLE {name}_number(id INTEGER PRIMARY KEY {on}, u TEXT UNIQUE {on},"
                f" v TEXT NOT NULL {on} DEFAULT 'd', n INT, CHECK (n < 3) {on})",
            ),
            (("id", KEYS), ("u", FEW), ("v", ("a", "b", None)), ("n", SMALL)),
        ),
        Shape(
            f"{name}_text",
            (
                f"CREATE TABLE {name}_text(k TEXT NOT NULL {on}, u TEXT, w TEXT, PRIMARY KEY(k) {on},"
                f" UNIQUE(u, w) {on}) WITHOUT ROWID",
            ),
            (("k", ("a", "b", "c", None)), ("u", ("u1", "u2")), ("w", ("w1", None))),
        ),
    )


CLAUSES = tuple(shape for clause in ("IGNORE", "REPLACE", "ROLLBACK", "ABORT", "FAIL") for shape in _clause(clause))

CALLING: tuple[Shape, ...] = (
    Shape(
        "plain_foreign",
        ("CREATE TABLE plain_foreign(id INTEGER PRIMARY KEY, v TEXT COLLATE unicase)",),
        (("id", KEYS), ("v", TEXTS)),
    ),
    Shape(
        "checked_foreign",
        ("CREATE TABLE checked_foreign(id INTEGER PRIMARY KEY, v TEXT DEFAULT (norm('D')) CHECK (norm(v) <> 'b'))",),
        (("id", KEYS), ("v", FEW)),
    ),
    Shape(
        "key_foreign",
        ("CREATE TABLE key_foreign(k TEXT COLLATE unicase PRIMARY KEY NOT NULL, v)",),
        (("k", ("a", "A", "b")), ("v", FEW)),
    ),
    Shape(
        "index_foreign",
        (
            "CREATE TABLE index_foreign(id INTEGER PRIMARY KEY, v TEXT)",
            "CREATE INDEX index_foreign_v ON index_foreign(norm(v))",
        ),
        (("id", KEYS), ("v", FEW)),
    ),
    Shape(
        "partial_foreign",
        (
            "CREATE TABLE partial_foreign(id INTEGER PRIMARY KEY, v TEXT)",
            "CREATE UNIQUE INDEX partial_foreign_v ON partial_foreign(v) WHERE norm(v) = 'u1'",
        ),
        (("id", KEYS), ("v", FEW)),
    ),
    Shape(
        "made_foreign",
        ("CREATE TABLE made_foreign(id INTEGER PRIMARY KEY, v TEXT, low TEXT AS (norm(v)) STORED)",),
        (("id", KEYS), ("v", FEW)),
    ),
    Shape(
        "trigger_foreign",
        (
            "CREATE TABLE trigger_foreign(id INTEGER PRIMARY KEY, v TEXT)",
            "CREATE TRIGGER trigger_foreign_i BEFORE INSERT ON trigger_foreign WHEN norm(new.v) = 'u2'"
            " BEGIN SELECT raise(IGNORE); END",
        ),
        (("id", KEYS), ("v", FEW)),
    ),
)
"""What the node lacks is in each; it replicates the first two and the last, and leaves the others out alone."""

REPLICATED = frozenset({"plain_foreign", "checked_foreign", "trigger_foreign"})


def drawn(seed: int) -> list[Shape]:
    """Return the tables that schedule ``seed`` has of these, none for most."""
    rng = Random(f"foreign {seed}")
    return [*rng.sample(CLAUSES, 2), rng.choice(CALLING)] if seed % 13 == 9 else []


def equip(connection: apsw.Connection, shapes: Sequence[Shape]) -> None:
    """Give an application's connection what its schema calls, if it calls anything."""
    if not any(shape in CALLING for shape in shapes):
        return

    def unicase(one: str, other: str) -> int:
        a, b = one.casefold(), other.casefold()
        return (a > b) - (a < b)

    def norm(*values: Any) -> Any:
        (text,) = values
        return text.strip().lower() if isinstance(text, str) else text

    connection.create_collation("unicase", unicase)
    connection.create_scalar_function("norm", norm, 1, deterministic=True)
    connection.pragma("trusted_schema", 1)


def are_replicated(shapes: Sequence[Shape], tables: Sequence[str]) -> list[str]:
    """Return which of ``shapes`` are replicated though they should not be, or the other way round."""
    foreign = {shape.name for shape in shapes} & {shape.name for shape in CALLING}
    return sorted(name for name in foreign if (name in tables) != (name in REPLICATED))
