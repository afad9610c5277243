"""What programs with functions, collations and modules of their own do: ``files.py WHAT FILE [ARGUMENT …]``.

``gpkg-make`` and ``gpkg-add NAME X Y`` by pyogrio; ``make LIBRARY``, ``add LIBRARY NAME X Y`` and ``find LIBRARY X Y``
after ``spatialite-`` and ``vec-``. The finders print the names that an index finds, those of sqlite-vec by distance.
"""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

SPATIALITE = """
SELECT InitSpatialMetaData(1, 'WGS84_ONLY');
CREATE TABLE place(id INTEGER PRIMARY KEY, name TEXT);
SELECT AddGeometryColumn('place', 'geom', 4326, 'POINT', 'XY'), CreateSpatialIndex('place', 'geom');
"""
VECTORS = """
CREATE TABLE note(id INTEGER PRIMARY KEY, name TEXT, embedding TEXT);
CREATE VIRTUAL TABLE note_vec USING vec0(embedding float[2]);
CREATE TRIGGER note_insert AFTER INSERT ON note
    BEGIN INSERT INTO note_vec(rowid, embedding) VALUES (new.id, new.embedding); END;
CREATE TRIGGER note_update AFTER UPDATE OF embedding ON note
    BEGIN UPDATE note_vec SET embedding = new.embedding WHERE rowid = new.id; END;
CREATE TRIGGER note_delete AFTER DELETE ON note BEGIN DELETE FROM note_vec WHERE rowid = old.id; END;
"""
NEAREST = """
SELECT note.name FROM note_vec JOIN note ON note.id = note_vec.rowid
WHERE note_vec.embedding MATCH ? AND k = 2 ORDER BY distance
"""
INSIDE = """
SELECT name FROM place JOIN idx_place_geom ON pkid = id
WHERE xmin <= ?1 + 0.5 AND xmax >= ?1 - 0.5 AND ymin <= ?2 + 0.5 AND ymax >= ?2 - 0.5
"""


def geopackage(file: str, *place: str) -> None:
    """Write a feature with GDAL, the file too where it is not there: the first has no name."""
    import numpy

    write = import_module("pyogrio.raw").write
    name, x, y = (place[0], float(place[1]), float(place[2])) if place else ("first", 0.0, 0.0)
    geometries = numpy.array([struct.pack("<BI2d", 1, 1, x, y)], dtype=object)
    write(
        file,
        geometries,
        [numpy.array([name], dtype=object)],
        ["name"],
        layer="place",
        geometry_type="Point",
        crs="EPSG:4326",
        driver="GPKG",
        append=bool(place),
    )


def equipped(file: str, library: str) -> Any:
    """Return a connection with an extension."""
    import apsw

    connection = apsw.Connection(file)
    connection.set_busy_timeout(10_000)
    connection.enable_load_extension(True)
    connection.load_extension(library)
    return connection


def main(what: str, file: str, *arguments: str) -> None:
    """Do what is asked."""
    kind, verb = what.split("-")
    if kind == "gpkg":
        geopackage(file, *arguments)
        return
    library, *values = arguments
    connection = equipped(file, library)

    def run(sql: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        return connection.execute(sql, values).fetchall()  # type: ignore[no-any-return]

    if verb == "probe":
        run("SELECT 1")
    elif verb == "make":
        run({"spatialite": SPATIALITE, "vec": VECTORS}[kind])
    elif (kind, verb) == ("spatialite", "add"):
        run("INSERT INTO place(name, geom) VALUES (?, MakePoint(?, ?, 4326))", (values[0], *map(float, values[1:])))
    elif (kind, verb) == ("vec", "add"):
        run("INSERT INTO note(name, embedding) VALUES (?, ?)", (values[0], json.dumps([*map(float, values[1:])])))
    elif kind == "vec":
        print(" ".join(name for (name,) in run(NEAREST, (json.dumps([*map(float, values)]),))))
    else:
        print(" ".join(name for (name,) in run(INSIDE, [*map(float, values)])))


if __name__ == "__main__":
    main(*sys.argv[1:])
