"""The table shapes of the simulation: what applications really have, and what breaks replication elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harmonylite.model import RawText

INTS: tuple[Any, ...] = (0, 1, 2, -1, 2**63 - 1, -(2**63), None)
TEXTS: tuple[Any, ...] = ("", "a", "A", "b", "é", "a\0b", RawText(b"\xff\xfe"), None)
ANY: tuple[Any, ...] = (
    *INTS,
    *TEXTS,
    1.0,
    0.0,
    -0.0,
    1e308,
    float("inf"),
    float("-inf"),
    0.1,
    b"",
    b"a",
    b"\0\xff",
    "1",
    "1.0",
    2.5,
)
FEW: tuple[Any, ...] = ("u1", "u2", "u3", "U1", "u4", None)
KEYS: tuple[Any, ...] = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class Shape:
    """One table. ``ddl``: makes it; ``columns``: name and values to choose from; ``keys``: how many of them, from the
    front, are its key (0: none of its own). ``fts``: a full-text index that the application's triggers keep.
    ``odd``: values may be refused, by a constraint or a type.
    """

    name: str
    ddl: tuple[str, ...]
    columns: tuple[tuple[str, tuple[Any, ...]], ...]
    keys: int = 1
    fts: str = ""
    by_row: bool = False

    @property
    def rowid(self) -> str:
        """A name that reaches the rowid; no ordinary column has it."""
        return "_rowid_" if any(name == "rowid" for name, _ in self.columns) else "rowid"


SHAPES: tuple[Shape, ...] = (
    Shape(
        "plain",
        ("CREATE TABLE plain(id INTEGER PRIMARY KEY, a TEXT, b INTEGER, c REAL, d NUMERIC, e BLOB)",),
        (("id", KEYS), ("a", TEXTS), ("b", ANY), ("c", ANY), ("d", ANY), ("e", ANY)),
    ),
    Shape(
        "texts",
        ("CREATE TABLE texts(k TEXT PRIMARY KEY NOT NULL, v)",),
        (("k", ("", "a", "A", "1", "é", "x\0y")), ("v", ANY)),
    ),
    Shape("nullable", ("CREATE TABLE nullable(k TEXT PRIMARY KEY, v)",), (("k", ("a", "b", None, None)), ("v", ANY))),
    Shape(
        "pair_key",
        ("CREATE TABLE pair_key(x INTEGER, y TEXT, v, w, PRIMARY KEY(y, x))",),
        (("x", (1, 2, None)), ("y", ("a", "b", None)), ("v", ANY), ("w", FEW)),
        keys=2,
    ),
    Shape(
        "loose", ("CREATE TABLE loose(k PRIMARY KEY, v)",), (("k", (1, 1.0, "1", b"1", None, 0.0, -0.0)), ("v", ANY))
    ),
    Shape(
        "blobs",
        ("CREATE TABLE blobs(k BLOB PRIMARY KEY NOT NULL, v TEXT)",),
        (("k", (b"", b"\0", b"ab", "ab", 1, 1.0)), ("v", TEXTS)),
    ),
    Shape(
        "compact",
        ("CREATE TABLE compact(k TEXT, n INT, v, PRIMARY KEY(k, n)) WITHOUT ROWID",),
        (("k", ("a", "b", "")), ("n", (1, 2)), ("v", ANY)),
        keys=2,
    ),
    Shape(
        "compact_any",
        ("CREATE TABLE compact_any(k PRIMARY KEY, v, w) WITHOUT ROWID",),
        (("k", (1, 1.0, "1", b"1", 2.5, -0.0, 0)), ("v", ANY), ("w", FEW)),
    ),
    Shape(
        "nocase_key",
        ("CREATE TABLE nocase_key(k TEXT COLLATE NOCASE PRIMARY KEY NOT NULL, v)",),
        (("k", ("a", "A", "b", "B", "é")), ("v", ANY)),
    ),
    Shape("no_key", ("CREATE TABLE no_key(a, b)",), (("a", FEW), ("b", ANY)), keys=0),
    Shape(
        "rowid_column",
        ('CREATE TABLE rowid_column("rowid" TEXT, "oid" PRIMARY KEY, v)',),
        (("oid", (1, 2, 3, "x")), ("rowid", TEXTS), ("v", ANY)),
    ),
    Shape(
        "strict",
        ("CREATE TABLE strict(id INTEGER PRIMARY KEY, a ANY, t TEXT NOT NULL, r REAL) STRICT",),
        (("id", KEYS), ("a", ANY), ("t", ("a", "b", RawText(b"\xe9"), "")), ("r", (1.0, -0.0, 2.5, None))),
    ),
    Shape(
        "computed",
        (
            "CREATE TABLE computed(id INTEGER PRIMARY KEY, a INT, twice AS (a * 2) STORED, b TEXT,"
            " low TEXT AS (lower(b)))",
        ),
        (("id", KEYS), ("a", (1, 2, 3, None)), ("b", FEW)),
    ),
    Shape(
        "computed_unique",
        ("CREATE TABLE computed_unique(id INTEGER PRIMARY KEY, b TEXT, low TEXT AS (lower(b)) UNIQUE)",),
        (("id", KEYS), ("b", FEW)),
    ),
    Shape(
        "order",
        ('CREATE TABLE "order"("group" INTEGER PRIMARY KEY, "first name" TEXT, "a.b" TEXT, "q""q" BLOB)',),
        (("group", KEYS), ("first name", TEXTS), ("a.b", TEXTS), ('q"q', ANY)),
    ),
    Shape(
        'ta"ble.ü x',
        ('CREATE TABLE "ta""ble.ü x"("ключ" TEXT PRIMARY KEY NOT NULL, "[v]" TEXT, "it\'s" INT)',),
        (("ключ", ("a", "b", "c")), ("[v]", TEXTS), ("it's", INTS)),
    ),
    Shape(
        "uniq", ("CREATE TABLE uniq(id INTEGER PRIMARY KEY, u TEXT UNIQUE, v)",), (("id", KEYS), ("u", FEW), ("v", ANY))
    ),
    Shape(
        "uniq_text",
        ("CREATE TABLE uniq_text(k TEXT PRIMARY KEY NOT NULL, u TEXT UNIQUE NOT NULL, w TEXT UNIQUE) WITHOUT ROWID",),
        (("k", ("a", "b", "c")), ("u", ("u1", "u2", "u3")), ("w", FEW)),
    ),
    Shape(
        "uniq_pair",
        ("CREATE TABLE uniq_pair(id INTEGER PRIMARY KEY, u TEXT, w INT, v, UNIQUE(u, w))",),
        (("id", KEYS), ("u", ("u1", "u2", None)), ("w", (1, 2)), ("v", FEW)),
    ),
    Shape(
        "uniq_nocase",
        ("CREATE TABLE uniq_nocase(id INTEGER PRIMARY KEY, u TEXT COLLATE NOCASE UNIQUE, v)",),
        (("id", KEYS), ("u", FEW), ("v", ANY)),
    ),
    Shape(
        "uniq_null_key",
        ("CREATE TABLE uniq_null_key(k TEXT PRIMARY KEY, u TEXT UNIQUE)",),
        (("k", ("a", "b", None)), ("u", FEW)),
    ),
    Shape("uniq_no_key", ("CREATE TABLE uniq_no_key(u TEXT UNIQUE, v)",), (("u", FEW), ("v", ANY)), keys=0),
    Shape(
        "partial",
        (
            "CREATE TABLE partial(id INTEGER PRIMARY KEY, u TEXT, gone INT)",
            "CREATE UNIQUE INDEX partial_u ON partial(u) WHERE gone = 0",
        ),
        (("id", KEYS), ("u", ("u1", "u2", "u3")), ("gone", (0, 0, 1))),
    ),
    Shape(
        "expression",
        (
            "CREATE TABLE expression(id INTEGER PRIMARY KEY, u TEXT, v)",
            "CREATE UNIQUE INDEX expression_u ON expression(lower(u))",
        ),
        (("id", KEYS), ("u", FEW), ("v", ANY)),
    ),
    Shape(
        "by_row",
        ("CREATE TABLE by_row(id INTEGER PRIMARY KEY, a, b, c TEXT)",),
        (("id", KEYS), ("a", ANY), ("b", FEW), ("c", TEXTS)),
        by_row=True,
    ),
    Shape(
        "by_row_uniq",
        ("CREATE TABLE by_row_uniq(id INTEGER PRIMARY KEY, a, u TEXT UNIQUE)",),
        (("id", KEYS), ("a", FEW), ("u", FEW)),
        by_row=True,
    ),
    Shape(
        "docs",
        (
            "CREATE TABLE docs(id INTEGER PRIMARY KEY, body TEXT)",
            "CREATE VIRTUAL TABLE docs_fts USING fts5(body, content='docs', content_rowid='id')",
            "CREATE TRIGGER docs_ai AFTER INSERT ON docs BEGIN"
            " INSERT INTO docs_fts(rowid, body) VALUES (new.id, new.body); END",
            "CREATE TRIGGER docs_ad AFTER DELETE ON docs BEGIN"
            " INSERT INTO docs_fts(docs_fts, rowid, body) VALUES ('delete', old.id, old.body); END",
            "CREATE TRIGGER docs_au AFTER UPDATE ON docs BEGIN"
            " INSERT INTO docs_fts(docs_fts, rowid, body) VALUES ('delete', old.id, old.body);"
            " INSERT INTO docs_fts(rowid, body) VALUES (new.id, new.body); END",
        ),
        (("id", KEYS), ("body", ("red fox", "blue fox", "red", "", None))),
        fts="docs_fts",
    ),
    Shape(
        "child",
        (
            "CREATE TABLE parent(id INTEGER PRIMARY KEY, v)",
            "CREATE TABLE child(id INTEGER PRIMARY KEY, p INT REFERENCES parent(id) ON DELETE CASCADE"
            " ON UPDATE CASCADE, v)",
            "CREATE INDEX child_p ON child(p)",
        ),
        (("id", KEYS), ("p", (1, 2, 3, None)), ("v", FEW)),
    ),
    Shape(
        "audited",
        (
            "CREATE TABLE audited(id INTEGER PRIMARY KEY, v)",
            "CREATE TABLE audit(k TEXT PRIMARY KEY NOT NULL, what TEXT)",
            "CREATE TRIGGER audited_i AFTER INSERT ON audited BEGIN UPDATE local_who SET n = n + 1;"
            " INSERT INTO audit SELECT name || n, 'insert ' || new.id FROM local_who; END",
            "CREATE TRIGGER audited_u AFTER UPDATE ON audited BEGIN UPDATE local_who SET n = n + 1;"
            " INSERT INTO audit SELECT name || n, 'update ' || new.id FROM local_who; END",
        ),
        (("id", KEYS), ("v", ANY)),
    ),
    Shape(
        "wide",
        (f"CREATE TABLE wide(id INTEGER PRIMARY KEY, {', '.join(f'c{i} TEXT' for i in range(70))})",),
        (("id", KEYS), *((f"c{i}", FEW) for i in range(70))),
    ),
    Shape(
        "only_key",
        ("CREATE TABLE only_key(a TEXT NOT NULL, b INT NOT NULL, PRIMARY KEY(a, b)) WITHOUT ROWID",),
        (("a", ("x", "y")), ("b", (1, 2))),
        keys=2,
    ),
    Shape("auto", ("CREATE TABLE auto(id INTEGER PRIMARY KEY AUTOINCREMENT, v)",), (("id", (None, 1, 2)), ("v", FEW))),
)
"""All shapes, by hand so that each is one that somebody has."""
