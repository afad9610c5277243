#!/usr/bin/env bash
# GDAL: appending one feature to a GeoPackage drops its two counting triggers for everybody; what another program inserts in
# between is never counted, and pyogrio reads as many features as are counted.
#
# Versions:  pyogrio 0.13.0 (GDAL 3.12.4)
# Guess:     To append is to INSERT: no schema change, and rows of others are counted by the triggers, which are part of the file.
# Behaviour: GDAL drops the triggers that keep gpkg_ogr_contents.feature_count, commits its rows without them, and makes each
#            again in a transaction of its own. Meanwhile others see the table without triggers. What they insert
#            then is in no count, GDAL takes the count for the number of features, and pyogrio's read() returns no
#            more than that. Each append moves the schema's version, so all connections prepare their statements again.
# For users: Exclude gpkg_ogr_contents, and set apply = "additive" in [schema], so that dropped triggers don't travel (the page on
#            extensions has both). UPDATE gpkg_ogr_contents SET feature_count = NULL makes GDAL count.
#
# Output:
#   the schema version moves with an append: True
#   triggers that another process saw during an append: 0
#   features in the table: 3
#   counted and read by GDAL, after one was inserted meanwhile: 2 and 2
#   counted and read by GDAL, after feature_count was set to NULL: 3 and 3
#   as stated
source "$(dirname "$0")/lib/lab.bash"
packages pyogrio==0.13.0
cat > "$work/add.py" <<'PY'
import struct
import sys

import numpy
from pyogrio.raw import write

point = numpy.array([struct.pack("<BI2d", 1, 1, 3.0, 4.0)], dtype=object)
names = [numpy.array(["x"], dtype=object)]
layer = {"layer": "place", "driver": "GPKG", "geometry_type": "Point", "crs": "EPSG:4326"}
new = {} if len(sys.argv) > 2 else {"layer_options": {"SPATIAL_INDEX": "NO"}}
write(sys.argv[1], point, names, ["name"], append=not new, **layer, **new)
PY
cat > "$work/read.py" <<'PY'
import sys

import pyogrio

fields = pyogrio.raw.read(sys.argv[1], layer="place")[3]
print(f"{pyogrio.read_info(sys.argv[1], layer='place')['features']} and {len(fields[0])}", end="")
PY
"$python" - <<'PY'
import sqlite3
import subprocess
import sys
import time

from lab import WORK, expect, finish

PATIENCE = 120.0
file = WORK / "a.gpkg"


def add(*append):
    return subprocess.Popen([sys.executable, "-W", "ignore", WORK / "add.py", file, *append])


def read():  # in a process of its own: two SQLite libraries in one process break each other's locks
    done = subprocess.run([sys.executable, WORK / "read.py", file], check=True, capture_output=True, text=True)
    return done.stdout


assert add().wait() == 0
db = sqlite3.connect(file, isolation_level=None, timeout=60)
db.execute("PRAGMA journal_mode = WAL")


def one(sql):
    return db.execute(sql).fetchone()[0]


def triggers():
    return one("SELECT count(*) FROM sqlite_master WHERE type = 'trigger' AND name LIKE '%feature_count%'")


def insert_without_triggers():
    """Insert a row where an append of another process has left the table without triggers; return how many it had."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        appending = add("append")
        while appending.poll() is None:
            if triggers() == 2:
                continue
            db.execute("BEGIN IMMEDIATE")
            found = triggers()
            if found == 0:
                db.execute("INSERT INTO place(name) VALUES ('mine')")
            db.execute("COMMIT")
            if found == 0:
                appending.wait()
                return found
        db.execute("DELETE FROM place WHERE fid > 1")
    return 2


before = one("PRAGMA schema_version")
assert add("append").wait() == 0
expect("the schema version moves with an append", one("PRAGMA schema_version") > before, True)
db.execute("DELETE FROM place WHERE fid > 1")
expect("triggers that another process saw during an append", insert_without_triggers(), 0)
expect("features in the table", one("SELECT count(*) FROM place"), 3)
expect("counted and read by GDAL, after one was inserted meanwhile", read(), "2 and 2")
db.execute("UPDATE gpkg_ogr_contents SET feature_count = NULL")
expect("counted and read by GDAL, after feature_count was set to NULL", read(), "3 and 3")
finish()
PY
