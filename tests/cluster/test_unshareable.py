"""Programs that can't share a file in WAL mode, beside a running node: what they see, what it says, and no row is lost.

What isn't here is left out with a reason; the exclusive locker is CPython's own library.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import closing

import apsw
import pytest

from tests.cluster.fix_cluster import Site, start
from tests.cluster.libraries import INSTALLED, PROGRAMS
from tests.cluster.processes import Node, agree, until, until_equal
from tests.needs import Need

pytestmark = pytest.mark.timeout(300)

TABLE = "CREATE TABLE v(id TEXT PRIMARY KEY, value)"
NODE_MODULES = INSTALLED / "node" / "node_modules"
LOCKER = """
import sqlite3, sys
c = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
c.execute("PRAGMA locking_mode = EXCLUSIVE")
c.execute("INSERT INTO v VALUES ('program', 'written')")
print("locked", flush=True)
sys.stdin.read()
"""
TURSO = """
import sys, turso
try:
    c = turso.connect(sys.argv[1])
    c.execute("INSERT INTO v VALUES ('program', 'written')")
    c.commit()
except Exception as error:
    print(error)
    sys.exit()
print("locked", flush=True)
sys.stdin.read()
"""


def pair(site: Site) -> tuple[Node, Node]:
    """Start two nodes; a row of each is at both."""
    here, there = nodes = [site.node(name, tables=TABLE) for name in ("a", "b")]
    start(nodes)
    for node in nodes:
        application = site.application(node)
        application.write(("INSERT INTO v VALUES (?, 'of a node')", [node.name]))
        application.aclose()  # pyturso wants the file to itself
    assert len(until_equal(nodes)["v"]) == 2
    return here, there


def program(script: str, file: Node) -> subprocess.Popen[str]:
    """Start a program in Python beside a node's database; the end of its input ends it."""
    pipe, modules = subprocess.PIPE, os.environ | {"PYTHONPATH": str(INSTALLED / "python")}
    command = [sys.executable, "-c", script, str(file.db)]
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=modules)


def javascript(library: str, file: Node) -> str:
    """Run a library for Node.js beside a node's database; return what it printed."""
    Need(library, "" if (NODE_MODULES / library).exists() else "make libraries WHICH=node").skip()
    done = subprocess.run(
        [shutil.which("node") or "node", str(PROGRAMS / "rewriting.js"), library, str(file.db)],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"NODE_PATH": str(NODE_MODULES)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def emptied(node: Node) -> bool:
    """Copy the log of a node's database, as an application may, and start it over; tell whether it is empty."""
    with closing(apsw.Connection(str(node.db))) as connection:
        connection.set_busy_timeout(5000)
        connection.execute("SELECT count(*) FROM v").fetchall()
        return connection.wal_checkpoint("main", apsw.SQLITE_CHECKPOINT_TRUNCATE) == (0, 0)


def holds_all(here: Node, there: Node, *names: str) -> None:
    """Wait until both have these rows and agree."""
    for node in (here, there):
        until(lambda: {row[0] for row in node.rows("SELECT id FROM v")} == set(names), f"all rows are at {node.name}")  # noqa: B023
        node.ready()
    agree([here, there])


@pytest.mark.parametrize("log", ["empty", "in use"])
def test_what_sql_js_writes_over_the_file_arrives_and_the_node_names_it(site: Site, log: str) -> None:
    here, there = pair(site)
    beside = site.application(here)
    if log == "empty":
        until(lambda: emptied(here), "the log is empty")
    javascript("sql.js", here)
    warning = until(lambda: here.health().get("warnings", {}).get("overwritten"), "health names it")
    assert "let such a program open a copy" in warning.lower()
    beside.write("INSERT INTO v VALUES ('later', 'by a connection that was open')")
    holds_all(here, there, "a", "b", "program", "later")


def test_node_sqlite3_wasm_is_refused_by_the_file_and_changes_nothing(site: Site) -> None:
    here, there = pair(site)
    assert "unable to open database file" in javascript("node-sqlite3-wasm", here)
    holds_all(here, there, "a", "b")


def test_the_rewrite_in_rust_is_kept_out_by_the_node_and_changes_nothing(site: Site) -> None:
    Need("pyturso", "" if (INSTALLED / "python" / "turso").exists() else "make libraries WHICH=python").skip()
    here, there = pair(site)
    with program(TURSO, here) as running:
        assert "locked by another process" in running.communicate(timeout=120)[0]
    holds_all(here, there, "a", "b")


@pytest.mark.parametrize("kind", ["locking_mode = EXCLUSIVE", "pyturso"])
def test_a_node_waits_visibly_while_a_program_locks_everybody_out_and_continues_after_it(site: Site, kind: str) -> None:
    if kind == "pyturso":
        Need("pyturso", "" if (INSTALLED / "python" / "turso").exists() else "make libraries WHICH=python").skip()
    here, there = pair(site)
    assert here.stop() == 0
    with program(TURSO if kind == "pyturso" else LOCKER, here) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "locked\n"
        here.start()
        until(lambda: here.waits("lock"), "it says what it waits for")
        site.application(there).write("INSERT INTO v VALUES ('meanwhile', 'elsewhere')")
        assert here.get("/readyz")[0] == 503
        assert here.alive
        running.communicate(timeout=120)
    holds_all(here, there, "a", "b", "program", "meanwhile")
