"""Rarer table shapes, and a table that migrations change while the schedule runs: drawn for some of the seeds."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from tests.simulation.shapes import ANY, FEW, INTS, KEYS, TEXTS, Shape

NUMBERS = (1, 1.0, "1", "1.0", 2.5, "x", 2**53 + 1, float(2**53), b"1", -0.0)

MEMO = "memo"
"""A table like ``note``, whose key is also written in other letters; the ledger knows of it."""

RARER: tuple[Shape, ...] = (
    Shape(
        MEMO,
        ("CREATE TABLE memo(id TEXT COLLATE NOCASE PRIMARY KEY NOT NULL, a TEXT, b TEXT)",),
        (("id", ("x", "X", "y")), ("a", ()), ("b", ())),
    ),
    Shape(
        "nocase_uniq",
        ("CREATE TABLE nocase_uniq(k TEXT COLLATE NOCASE PRIMARY KEY NOT NULL, u TEXT UNIQUE, v)",),
        (("k", ("a", "A", "b", "B")), ("u", FEW), ("v", FEW)),
    ),
    Shape(
        "nocase_compact",
        (
            "CREATE TABLE nocase_compact(k TEXT COLLATE NOCASE, n INT, u TEXT COLLATE NOCASE UNIQUE, PRIMARY KEY(n, k))"
            " WITHOUT ROWID",
        ),
        (("k", ("a", "A", "b")), ("n", (1, 2)), ("u", FEW)),
        keys=2,
    ),
    Shape(
        "rtrim_key",
        ("CREATE TABLE rtrim_key(k TEXT COLLATE RTRIM PRIMARY KEY, v)",),
        (("k", ("a", "a ", "b", None)), ("v", ANY)),
    ),
    Shape(
        "numeric_key",
        ("CREATE TABLE numeric_key(k NUMERIC PRIMARY KEY NOT NULL, u NUMERIC UNIQUE, v)",),
        (("k", NUMBERS), ("u", (*NUMBERS, None)), ("v", FEW)),
    ),
    Shape(
        "real_key",
        ("CREATE TABLE real_key(k REAL PRIMARY KEY NOT NULL, v REAL)",),
        (("k", (0.0, -0.0, 1, "1", 1e308, float("-inf"), "x")), ("v", NUMBERS)),
    ),
    Shape(
        "descending",  # no alias of the rowid, though it looks like one (SQLite: lang_createtable, section 5)
        ("CREATE TABLE descending(id INTEGER PRIMARY KEY DESC, v)",),
        (("id", (1, 2, 3, None, "x")), ("v", ANY)),
    ),
    Shape(
        "top",
        ("CREATE TABLE top(id INTEGER PRIMARY KEY, v)",),
        (("id", (2**63 - 1, 2**63 - 2, -(2**63), 0, -1)), ("v", INTS)),
    ),
    Shape("single", ("CREATE TABLE single(a)",), (("a", ANY),), keys=0),
    Shape("single_key", ("CREATE TABLE single_key(a INTEGER PRIMARY KEY)",), (("a", KEYS),)),
    Shape(
        "orphan",
        (
            "CREATE TABLE IF NOT EXISTS parent(id INTEGER PRIMARY KEY, v)",
            "CREATE TABLE orphan(id INTEGER PRIMARY KEY, p INT REFERENCES parent(id) ON DELETE SET NULL"
            " ON UPDATE SET NULL, q INT DEFAULT 1 REFERENCES parent(id) ON DELETE SET DEFAULT ON UPDATE CASCADE)",
        ),
        (("id", KEYS), ("p", (1, 2, None)), ("q", (1, 2, None))),
    ),
    Shape(
        "uniq_many",
        (
            "CREATE TABLE uniq_many(id INTEGER PRIMARY KEY, u TEXT UNIQUE, w TEXT COLLATE NOCASE, n INT, UNIQUE(w, n))",
            "CREATE UNIQUE INDEX uniq_many_n ON uniq_many(n) WHERE u IS NOT NULL",
        ),
        (("id", KEYS), ("u", FEW), ("w", FEW), ("n", (1, 2, 3, None))),
    ),
    Shape(
        "uniq_two",
        ("CREATE TABLE uniq_two(id INTEGER PRIMARY KEY, u TEXT UNIQUE, w TEXT UNIQUE, v)",),
        (("id", KEYS), ("u", FEW), ("w", FEW), ("v", FEW)),
    ),
    Shape(
        "uniq_null_pair",
        ("CREATE TABLE uniq_null_pair(x INT, y TEXT, u TEXT UNIQUE, v, PRIMARY KEY(x, y))",),
        (("x", (1, 2, None)), ("y", ("a", None)), ("u", FEW), ("v", FEW)),
        keys=2,
    ),
    Shape(
        "uniq_compact",
        ("CREATE TABLE uniq_compact(k, n INT, v TEXT, PRIMARY KEY(k, n), UNIQUE(v, n)) WITHOUT ROWID",),
        (("k", (1, 1.0, "1", 2)), ("n", (1, 2)), ("v", FEW)),
        keys=2,
    ),
    Shape(
        "computed_stored",
        (
            "CREATE TABLE computed_stored(id INTEGER PRIMARY KEY, a TEXT, b TEXT, both AS (a || b) STORED UNIQUE,"
            " also AS (both || '!'))",
        ),
        (("id", KEYS), ("a", FEW), ("b", FEW)),
    ),
    Shape(
        "stamped",
        (
            "CREATE TABLE stamped(id INTEGER PRIMARY KEY, v, n INT DEFAULT 0)",
            "CREATE TRIGGER stamped_u AFTER UPDATE OF v ON stamped BEGIN"
            " UPDATE stamped SET n = n + 1 WHERE id = new.id; END",
            "CREATE TRIGGER stamped_i BEFORE INSERT ON stamped BEGIN DELETE FROM stamped WHERE id = new.id + 1; END",
        ),
        (("id", KEYS), ("v", ANY)),
    ),
    Shape(
        "by_row_nocase",
        ("CREATE TABLE by_row_nocase(k TEXT COLLATE NOCASE PRIMARY KEY NOT NULL, a, b TEXT)",),
        (("k", ("a", "A", "b")), ("a", ANY), ("b", TEXTS)),
        by_row=True,
    ),
)

GROWN = Shape(
    "grown",
    ("CREATE TABLE grown(id INTEGER PRIMARY KEY, a TEXT, b)",),
    (("id", KEYS), ("a", TEXTS), ("b", ANY)),
)
MIGRATIONS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("ALTER TABLE grown ADD COLUMN c TEXT",), "abc"),
    (
        (
            "CREATE TABLE grown_new(id INTEGER PRIMARY KEY, a TEXT, b, c TEXT)",
            "INSERT INTO grown_new SELECT id, a, b, c FROM grown",
            "DROP TABLE grown",
            "ALTER TABLE grown_new RENAME TO grown",
        ),
        "abc",
    ),
    (("ALTER TABLE grown ADD COLUMN d INTEGER NOT NULL DEFAULT 7", "CREATE INDEX grown_d ON grown(d)"), "abcd"),
    (
        (
            "CREATE TABLE grown_new(id INTEGER PRIMARY KEY, a TEXT, b, c TEXT, d INTEGER NOT NULL DEFAULT 7, e)",
            "INSERT INTO grown_new SELECT id, a, b, upper(c), d, a FROM grown",
            "DROP TABLE grown",
            "ALTER TABLE grown_new RENAME TO grown",
        ),
        "abcde",
    ),
    (("ALTER TABLE grown DROP COLUMN b",), "acde"),
    (("ALTER TABLE grown RENAME COLUMN a TO f", "ALTER TABLE grown RENAME COLUMN d TO g"), "fcge"),
    (
        (
            "CREATE TABLE grown_new(id INTEGER PRIMARY KEY, c TEXT, g INTEGER NOT NULL DEFAULT 7, h DEFAULT 'x')",
            "INSERT INTO grown_new(id, c, g) SELECT id, c, g FROM grown",
            "DROP TABLE grown",
            "ALTER TABLE grown_new RENAME TO grown",
        ),
        "cgh",
    ),
)
"""What the applications' migrations do, one after the other, and the table's columns after each."""

VALUES = {"a": TEXTS, "b": ANY, "c": FEW, "d": (1, 2), "e": FEW, "f": TEXTS, "g": (1, 2), "h": FEW}


def grown(shape: Shape, level: int) -> Shape:
    """Return ``GROWN`` as it is after ``level`` migrations; every other shape as it is."""
    if shape.name != GROWN.name or not level:
        return shape
    columns = tuple((name, VALUES[name]) for name in MIGRATIONS[level - 1][1])
    return replace(GROWN, columns=(GROWN.columns[0], *columns))


def choose_rarer(rng: Random, *, growing: bool) -> list[Shape]:
    """Return a few of them; ``growing``: at times the table that migrations change, too."""
    found = rng.sample(RARER, rng.randint(1, 3))
    return [*found, GROWN] if growing and rng.random() < 0.4 else found
