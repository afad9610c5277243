"""Files of programs with modules of their own, written by those programs: their indexes find what arrived.

Each program runs in a process of its own; what isn't here is left out with a reason.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.fix_cluster import Site, start
from tests.cluster.libraries import INSTALLED, PROGRAMS
from tests.cluster.processes import Node, environment, until
from tests.needs import Need

pytestmark = pytest.mark.timeout(300)

PYTHON = INSTALLED / "python"
MODULE = "mod_spatialite"
VEC = PYTHON / "sqlite_vec" / "vec0"


def run(what: str, file: Path, *arguments: str) -> str:
    """Let `beside/files.py` do something to a file; return what it printed."""
    done = subprocess.run(
        [sys.executable, str(PROGRAMS / "files.py"), what, str(file), *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env=environment() | {"PYTHONPATH": str(PYTHON)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def installed(name: str, module: str) -> Need:
    """Return the need of a package of `make libraries`."""
    return Need(name, "" if (PYTHON / module).exists() else "make libraries WHICH=python")


def pair(site: Site, what: str, *arguments: str, sections: Mapping[str, Mapping[str, Any]]) -> tuple[Node, Node]:
    """Start a node beside a file that a program made, and one that gets its file from it."""
    here, there = (site.node(name, tables=None, sections=sections) for name in ("a", "b"))
    here.db.parent.mkdir(parents=True, exist_ok=True)
    run(what, here.db, *arguments)
    start([here])
    assert here.command("snapshot", "save")[0] == 0
    start([there])
    return here, there


def whole(node: Node, *warned: str) -> None:
    """Nothing waits, and nothing is warned of but keyless tables that ``warned`` names."""
    node.ready()
    warnings = node.health()["warnings"]
    assert set(warnings) == set(warned), warnings


def test_a_geopackage_of_gdal_is_one_on_each_node_with_its_index(site: Site) -> None:
    installed("pyogrio", "pyogrio").skip()
    sections: dict[str, dict[str, Any]] = {
        "extensions": {"python": "harmonylite.extensions:geopackage"},
        "tables": {"exclude": ["gpkg_ogr_contents"]},
        "schema": {"apply": "additive"},  # GDAL drops its counting triggers while it adds features
    }
    here, there = pair(site, "gpkg-make", sections=sections)
    run("gpkg-add", here.db, "north", "10", "80")
    until(lambda: there.value("SELECT count(*) FROM place") == 2, "the feature arrives")
    run("gpkg-add", there.db, "south", "20", "-80")
    until(lambda: here.value("SELECT count(*) FROM place") == 3, "the other feature arrives")
    for node in (here, there):
        inside = "SELECT name FROM place JOIN rtree_place_geom ON id = fid WHERE minx > ? AND maxx < ? AND maxy < ?"
        assert node.rows(inside, [5, 15, 85]) == [("north",)]
        assert node.rows(inside, [15, 25, 0]) == [("south",)]
        assert node.value("PRAGMA application_id") == int.from_bytes(b"GPKG")
        whole(node, "gpkg_extensions")
    assert here.rows("SELECT * FROM gpkg_ogr_contents") == [("place", 3)], "counted here, rows of others too"


def test_a_spatialite_table_and_its_index_are_kept_on_each_node(site: Site) -> None:
    probe = [sys.executable, str(PROGRAMS / "files.py"), "spatialite-probe", ":memory:", MODULE]
    lacks = subprocess.run(probe, check=False, capture_output=True).returncode
    Need(MODULE, "apt-get install libsqlite3-mod-spatialite" if lacks else "").skip()
    here, there = pair(site, "spatialite-make", MODULE, sections={"extensions": {"load": [MODULE]}})
    run("spatialite-add", here.db, MODULE, "north", "10", "80")
    until(lambda: there.value("SELECT count(*) FROM place") == 1, "the row arrives")
    run("spatialite-add", there.db, MODULE, "south", "20", "-80")
    until(lambda: here.value("SELECT count(*) FROM place") == 2, "the other row arrives")
    for node in (here, there):
        assert run("spatialite-find", node.db, MODULE, "10", "80") == "north"
        assert run("spatialite-find", node.db, MODULE, "20", "-80") == "south"
        whole(node)


def test_a_vector_is_found_on_each_node_that_has_the_extension(site: Site) -> None:
    installed("sqlite-vec", "sqlite_vec").skip()
    here, there = pair(site, "vec-make", str(VEC), sections={"extensions": {"load": [str(VEC)]}})
    run("vec-add", here.db, str(VEC), "east", "1", "0")
    until(lambda: there.value("SELECT count(*) FROM note") == 1, "the row arrives")
    run("vec-add", there.db, str(VEC), "north", "0", "1")
    until(lambda: here.value("SELECT count(*) FROM note") == 2, "the other row arrives")
    for node in (here, there):
        assert run("vec-find", node.db, str(VEC), "0.1", "0.9") == "north east"
        whole(node)


def test_a_node_without_the_extension_has_the_rows_and_says_what_it_left_out(site: Site) -> None:
    """Its new file comes without the index; a file that has it keeps it, and the index goes stale by name."""
    installed("sqlite-vec", "sqlite_vec").skip()
    here, there = pair(site, "vec-make", str(VEC), sections={})
    run("vec-add", here.db, str(VEC), "east", "1", "0")
    until(lambda: there.value("SELECT count(*) FROM note") == 1, "the row arrives")
    site.application(there).write(("INSERT INTO note(name, embedding) VALUES ('north', '[0, 1]')", []))
    until(lambda: here.value("SELECT count(*) FROM note") == 2, "the other row arrives")
    assert run("vec-find", here.db, str(VEC), "0.1", "0.9") == "east", "nobody keeps the index for rows of others"
    assert there.rows("SELECT name FROM sqlite_schema WHERE name LIKE 'note%'") == [("note",)]
    assert "left table 'note_vec' out of the new database: this SQLite has no module vec0" in there.log.read_text()
    warnings = here.health()["warnings"]
    assert any("note_vec" in name and "vec0" in text for name, text in warnings.items()), warnings
    assert any("trigger" in text and "note_insert" in text for text in warnings.values()), warnings
