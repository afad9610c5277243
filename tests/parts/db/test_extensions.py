"""[extensions]: every connection of the process has what it names; what can't be loaded is an error before any file."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from harmonylite.db.sqlite import extensions
from harmonylite.db.sqlite.connection import open_file
from harmonylite.errors import ConfigError
from harmonylite.extensions import bounds, geopackage
from tests.needs import LIBRARIES, Need
from tests.parts.db.fix_replicas import Group

SOURCE = """
#include <stddef.h>
/* The first members of sqlite3_api_routines that are needed, at their places (SQLite: sqlite3ext.h). */
typedef int (*compare)(void *, int, const void *, int, const void *);
typedef int (*create_collation)(void *, const char *, int, void *, compare);
static int backwards(void *x, int n, const void *a, int m, const void *b) {
  const unsigned char *p = a, *q = b;
  for (int i = 0; i < n && i < m; i++) if (p[i] != q[i]) return q[i] - p[i];
  return m - n;
}
int sqlite3_extension_init(void *db, char **error, const void *const *api) {
  (void)error;
  return ((create_collation)api[%d])(db, "backwards", 1, NULL, backwards);
}
"""
CREATE_COLLATION = 43
"""Place of sqlite3_create_collation in sqlite3_api_routines, which never moves (SQLite: loadext)."""


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    """Take back what a test gives this process's connections."""
    yield
    extensions.use((), "")


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """An extension with a collation, built here."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    source, made = tmp_path / "backwards.c", tmp_path / "backwards.so"
    source.write_text(SOURCE % CREATE_COLLATION)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", made, source], check=True)
    return made


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the application's."""
    (tmp_path / "the_shops_functions.py").write_text(
        "def register(connection):\n"
        "    connection.create_scalar_function('norm', lambda text: text.lower(), 1, deterministic=True)\n"
        "def broken(connection):\n    raise KeyError('no settings')\n"
        "number = 7\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return "the_shops_functions"


def test_a_library_and_a_module_are_there_in_every_new_connection(tmp_path: Path, library: Path, module: str) -> None:
    extensions.use([str(library)], f"{module}:register")
    for _ in range(2):
        connection = open_file(tmp_path / "app.db", create=True)
        sql = "SELECT norm('A'), 'a' < 'b' COLLATE backwards"
        assert connection.execute(sql).fetchall() == [("a", 0)]
        with pytest.raises(apsw.SQLError, match="not authorized"):
            connection.execute("SELECT load_extension(?)", (str(library),))
        connection.close()
    assert extensions.given_functions() == {"norm"}


def test_a_module_may_call_what_a_library_brings(
    tmp_path: Path, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = "SELECT 'a' < 'b' COLLATE backwards"
    (tmp_path / "calls_it.py").write_text(f"def register(connection):\n    connection.execute({call!r}).fetchall()\n")
    monkeypatch.syspath_prepend(tmp_path)
    extensions.use([str(library)], "calls_it:register")
    with pytest.raises(ConfigError, match=r"extensions\.python.*no such collation"):
        extensions.use([], "calls_it:register")


def test_tables_with_collations_of_icus_own_extension_are_replicated(
    group: Group, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = list((LIBRARIES / "python").glob("icu.cpython-*.so"))
    missing = "pip install --no-deps --target .venv/libraries/python sqlite-icu==1.0"
    Need("sqlite-icu", "" if found else missing).skip()
    (tmp_path / "icu_names.py").write_text(
        "def register(connection):\n"
        "    connection.execute(\"SELECT icu_load_collation('sv_SE', 'swedish')\").fetchall()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    extensions.use([str(found[0])], "icu_names:register")
    a, b = group.several(
        2,
        "CREATE TABLE t(name TEXT PRIMARY KEY COLLATE swedish, n INT)",
        "CREATE UNIQUE INDEX i ON t(upper(name) COLLATE swedish)",
    )
    a.run("INSERT INTO t VALUES ('z', 1), ('\u00e4', 2)")
    group.settle()
    b.run("INSERT INTO t VALUES ('\u00e5', 3)")
    b.run("UPDATE t SET n = 5 WHERE name = 'z'")
    group.settle()
    for member in (a, b):
        assert member.run("SELECT name, n FROM t ORDER BY name") == [("z", 5), ("\u00e5", 3), ("\u00e4", 2)]
        assert member.run("PRAGMA integrity_check") == [("ok",)]
        assert not member.replica.warnings
    group.close()


def test_a_node_keeps_an_index_on_the_applications_function(group: Group, module: str) -> None:
    extensions.use((), f"{module}:register")
    ddl = ("CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT)", "CREATE UNIQUE INDEX i ON t(norm(v))")
    a, b = group.several(2, *ddl)
    a.run("INSERT INTO t VALUES (1, 'One')")
    group.settle()
    b.run("UPDATE t SET v = 'TWO'")
    assert group.equal("t") == [(1, "TWO")]
    assert a.run("SELECT id FROM t WHERE norm(v) = 'two'") == [(1,)]
    assert not a.replica.warnings
    group.close()


@pytest.mark.parametrize(
    ("load", "python", "said"),
    [
        (["/no/such/file.so"], "", r"extensions\.load\[0\]: '/no/such/file\.so' can't be loaded"),
        (["no_such_name"], "", r"extensions\.load\[0\]: 'no_such_name' can't be loaded"),
        ([], "nothing", r"extensions\.python: 'nothing' is not \"package\.module:function\""),
        ([], "no_such_module:f", r"extensions\.python: .* can't be imported: ModuleNotFoundError: .*PYTHONPATH"),
        ([], "the_shops_functions:missing", r"can't be imported: AttributeError"),
        ([], "the_shops_functions:number", r"is not a function"),
        ([], "the_shops_functions:broken", r"extensions\.python: .* can't be loaded: KeyError: 'no settings'"),
    ],
)
def test_what_cannot_be_loaded_is_told_and_nothing_is_given(
    load: list[str], python: str, said: str, module: str, tmp_path: Path
) -> None:
    del module
    with pytest.raises(ConfigError, match=said):
        extensions.use(load, python)
    open_file(tmp_path / "app.db", create=True).close()
    assert extensions.given_functions() == frozenset()


def test_the_second_of_two_libraries_is_named(library: Path) -> None:
    with pytest.raises(ConfigError, match=r"extensions\.load\[1\]"):
        extensions.use([str(library), "/no/such/file.so"], "")


# the functions of a GeoPackage ---------------------------------------------------------------------------------------


def gpkg(wkb: bytes, *, envelope: bytes = b"", kind: int = 0, empty: bool = False) -> bytes:
    """Return a geometry as GeoPackage stores it (GeoPackage 1.4, section 2.1.3)."""
    return b"GP\x00" + bytes([1 | kind << 1 | empty << 4]) + struct.pack("<i", 4326) + envelope + wkb


def point(x: float, y: float, *more: float, order: str = "<") -> bytes:
    """Return a point as well-known binary, with z, m or both when there are ``more``."""
    kind = 1 + {0: 0, 1: 1000, 2: 3000}[len(more)]
    return (b"\x01" if order == "<" else b"\x00") + struct.pack(f"{order}I{2 + len(more)}d", kind, x, y, *more)


def points(kind: int, *places: tuple[float, float]) -> bytes:
    """Return a list of points."""
    return b"\x01" + struct.pack("<2I", kind, len(places)) + b"".join(struct.pack("<2d", *place) for place in places)


RING = points(2, (0, 0), (4, 1), (2, 7), (0, 0))[5:]
GEOMETRIES = {
    "a point": (point(3, 4), (3, 3, 4, 4)),
    "a point with z": (point(3, 4, 9), (3, 3, 4, 4)),
    "a point with z and m, big-endian": (point(3, 4, 9, 8, order=">"), (3, 3, 4, 4)),
    "an empty point": (point(float("nan"), float("nan")), None),
    "a line": (points(2, (1, 5), (-2, 6)), (-2, 1, 5, 6)),
    "an arc": (points(8, (1, 5), (-2, 6), (0, 0)), (-2, 1, 0, 6)),
    "a polygon": (b"\x01" + struct.pack("<2I", 3, 1) + RING, (0, 4, 0, 7)),
    "an empty polygon": (b"\x01" + struct.pack("<2I", 3, 0), None),
    "many": (b"\x01" + struct.pack("<2I", 7, 2) + point(1, 2) + points(2, (5, 6), (7, 8)), (1, 7, 2, 8)),
}


@pytest.mark.parametrize(("wkb", "box"), GEOMETRIES.values(), ids=GEOMETRIES)
def test_bounds_are_those_of_all_points(wkb: bytes, box: tuple[float, ...] | None) -> None:
    assert bounds(gpkg(wkb)) == box
    for cut in range(len(wkb)):
        assert bounds(gpkg(wkb[:cut])) is None, "what is cut off is no geometry"


def test_bounds_that_stand_before_a_geometry_are_taken() -> None:
    assert bounds(gpkg(b"", envelope=struct.pack("<4d", 1, 2, 3, 4), kind=1)) == (1, 2, 3, 4)
    assert bounds(gpkg(b"", envelope=struct.pack("<8d", *range(8)), kind=4)) == (0, 1, 2, 3)
    assert bounds(gpkg(point(1, 2), empty=True)) is None
    assert bounds(gpkg(b"\x01" + struct.pack("<2I", 7, 1) * 1 + b"\x01\x07\x00\x00\x00\x01\x00\x00\x00" * 60)) is None


def test_the_index_of_a_geopackage_is_right_on_every_node(group: Group) -> None:
    """The triggers as the format's extension F.3 has them, shortened to insert and delete."""
    ddl = (
        "CREATE TABLE place(fid INTEGER PRIMARY KEY, geom BLOB)",
        "CREATE VIRTUAL TABLE rtree_place_geom USING rtree(id, minx, maxx, miny, maxy)",
        "CREATE TRIGGER rtree_place_geom_insert AFTER INSERT ON place"
        " WHEN (new.geom NOT NULL AND NOT ST_IsEmpty(NEW.geom)) BEGIN INSERT OR REPLACE INTO rtree_place_geom VALUES"
        " (NEW.fid, ST_MinX(NEW.geom), ST_MaxX(NEW.geom), ST_MinY(NEW.geom), ST_MaxY(NEW.geom)); END",
        "CREATE TRIGGER rtree_place_geom_delete AFTER DELETE ON place WHEN old.geom NOT NULL"
        " BEGIN DELETE FROM rtree_place_geom WHERE id = OLD.fid; END",
    )
    extensions.use((), "harmonylite.extensions:geopackage")
    a, b = group.several(2, *ddl)
    geopackage(a.app)
    geopackage(b.app)
    insert = "INSERT INTO place VALUES (?, ?)"
    for fid, geometry in enumerate((gpkg(point(3, 4)), gpkg(points(2, (1, 5), (-2, 6))), gpkg(b"", empty=True), None)):
        a.run(insert, (fid, geometry))
    group.settle()
    b.run("DELETE FROM place WHERE fid = 0")
    group.equal("place")
    for member in (a, b):
        assert member.run("SELECT * FROM rtree_place_geom") == [(1, -2.0, 1.0, 5.0, 6.0)]
        assert not member.replica.warnings
    group.close()
