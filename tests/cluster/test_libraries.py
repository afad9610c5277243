"""Beside each library: what it writes arrives bit for bit, what arrives it reads, and it may read and then write.

Each library runs in a process of its own, as the application would; those that aren't here are left out with a reason.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time

import pytest

from tests.cluster.fix_cluster import Site, make, start
from tests.cluster.libraries import BETTER, CPYTHON, DJANGO, INSTALLED, JDBC, LIBRARIES, ROOT, Library
from tests.cluster.processes import Node, until, until_equal
from tests.needs import Need

pytestmark = pytest.mark.timeout(300)

TABLE = "CREATE TABLE v(id TEXT PRIMARY KEY, value)"
WANTED = {
    "null": "NULL",
    "integer": "9223372036854775807",
    "real": "0.1",
    "text": "'gr\u00fc\u00df''e'",
    "blob": "X'00FF00'",
    "read": "'seen'",
}
"""What the second node has then, as SQLite's `quote` writes it; "read": the library read what the second node wrote."""
COUNTED = "CREATE TABLE t(id INTEGER PRIMARY KEY, n INTEGER); INSERT INTO t VALUES (1, 0), (2, 0);"
COUNT = 1000
FEW = COUNT * 3 // 20
"""As many may fail beside incoming commits on a busy machine; where merges don't give way, 42 to 50 % do."""

PERL = """
use DBI qw(:sql_types);
my $db = DBI->connect("dbi:SQLite:dbname=$ARGV[0]", "", "", {RaiseError => 1, sqlite_unicode => 1});
$db->do("PRAGMA busy_timeout = 5000");
$db->begin_work;
my ($seen) = $db->selectrow_array("SELECT value FROM v WHERE id = 'theirs'");
my @rows = (["null", undef, SQL_VARCHAR], ["integer", "9223372036854775807", SQL_BIGINT], ["real", 0.1, SQL_DOUBLE],
            ["text", "gr\\x{fc}\\x{df}'e", SQL_VARCHAR], ["blob", "\\0\\xff\\0", SQL_BLOB],
            ["read", $seen, SQL_VARCHAR]);
my $insert = $db->prepare("INSERT INTO v VALUES (?, ?)");
for (@rows) { $insert->bind_param(1, $_->[0]); $insert->bind_param(2, $_->[1], $_->[2]); $insert->execute }
$db->commit;
"""
DUCKDB = """
import duckdb, sys
db = duckdb.connect()
db.execute(f"LOAD '{sys.argv[2]}'")
db.execute(f"ATTACH '{sys.argv[1]}' AS app (TYPE sqlite)")
db.execute("BEGIN")
((seen,),) = db.execute("SELECT value FROM app.v WHERE id = 'theirs'").fetchall()
for row in (("null", None), ("text", "gr\u00fc\u00df'e"), ("read", seen)):
    db.execute("INSERT INTO app.v VALUES (?, ?)", row)
db.execute("COMMIT")
"""
SHELL = """
BEGIN;
SELECT value FROM v WHERE id = 'theirs';
INSERT INTO v VALUES ('null', NULL), ('integer', 9223372036854775807), ('real', 0.1), ('text', 'gr\u00fc\u00df''e'),
    ('blob', x'00ff00'), ('read', (SELECT value FROM v WHERE id = 'theirs'));
COMMIT;
"""


def beside(site: Site, table: str = TABLE) -> tuple[Node, Node]:
    """Start two nodes; a row of the second one's has arrived at the first."""
    here, there = nodes = [site.node(name, tables=None) for name in ("a", "b")]
    for node in nodes:
        make(node.db, table)
    start(nodes)
    site.application(there).write(("INSERT INTO v VALUES ('theirs', 'seen')", []))
    until(lambda: here.value("SELECT count(*) FROM v") == 1, "what the other node wrote is here")
    here.sent()  # nor does the node hold the lock of that any more, for which some libraries don't wait
    return here, there


def arrives(here: Node, there: Node, wanted: dict[str, str]) -> None:
    """Wait until the second node has what the library wrote."""
    for name, value in wanted.items():
        until(lambda: there.value("SELECT quote(value) FROM v WHERE id = ?", [name]) == value, f"{name} arrives")  # noqa: B023
    assert here.value("SELECT count(*) FROM v") == len(wanted) + 1


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda library: library.name)
def test_a_library_reads_and_then_writes_beside_a_node_and_its_values_arrive_bit_for_bit(
    site: Site, library: Library
) -> None:
    library.need.skip()
    here, there = beside(site)
    assert int(library.run("timeout", here.db)) == library.timeout
    library.run("values", here.db)
    arrives(here, there, WANTED | {"integer": str(library.largest)})


@pytest.mark.parametrize(
    ("command", "probe", "sent"),
    [
        (["sqlite3", "-bail", "-cmd", ".timeout 5000"], ["sqlite3", "-version"], SHELL),
        (["perl", "-e", PERL], ["perl", "-MDBD::SQLite", "-e", "1"], ""),
    ],
    ids=["the shell", "DBD::SQLite"],
)
def test_a_program_without_a_library_of_its_own_does_the_same(
    site: Site, command: list[str], probe: list[str], sent: str
) -> None:
    there = shutil.which(probe[0]) and not subprocess.run(probe, check=False, capture_output=True).returncode
    Need(command[0], "" if there else "apt-get install sqlite3 libdbd-sqlite3-perl").skip()
    here, other = beside(site)
    done = subprocess.run([*command, str(here.db)], check=False, capture_output=True, text=True, input=sent, timeout=60)
    assert done.returncode == 0, done.stderr
    arrives(here, other, WANTED)


def test_duckdb_reads_and_writes_typed_columns_through_its_scanner(site: Site) -> None:
    modules = INSTALLED / "python"
    Need("duckdb", "" if (modules / "duckdb_extension_sqlite_scanner").exists() else "make libraries").skip()
    here, there = beside(site, "CREATE TABLE v(id TEXT PRIMARY KEY, value TEXT)")
    (extension,) = modules.glob("duckdb_extension_sqlite_scanner/extensions/*/*.duckdb_extension")
    done = subprocess.run(
        [sys.executable, "-c", DUCKDB, str(here.db), str(extension)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": str(modules)},
    )
    assert done.returncode == 0, done.stderr
    arrives(here, there, {name: WANTED[name] for name in ("null", "text", "read")})


@pytest.mark.parametrize(("incoming", "most"), [(False, 0), (True, FEW)], ids=["alone", "incoming commits"])
@pytest.mark.parametrize("library", [CPYTHON, DJANGO, BETTER, JDBC], ids=lambda library: library.name)
def test_transactions_that_read_and_then_write_as_the_library_makes_them(
    site: Site, library: Library, incoming: bool, most: int
) -> None:
    library.need.skip()
    nodes = [site.node(name, tables=COUNTED) for name in ("one", "two")]
    start(nodes)
    writer = site.application(nodes[1])
    number = 0
    with library.start("think", nodes[0].db, COUNT, 5) as application:
        while application.poll() is None:
            if incoming:
                number += 1
                writer.write(("UPDATE t SET n = ? WHERE id = 2", [number]))
            time.sleep(0.05)
        assert application.stdout is not None
        assert application.stderr is not None
        assert int(application.stdout.read()) <= most, application.stderr.read()[-500:]
    until_equal(nodes)


def test_every_library_is_a_line_of_the_docs_with_its_busy_timeout() -> None:
    text = (ROOT / "docs" / "compatibility.md").read_text()
    lines = {name.strip(): timeout for name, timeout in re.findall(r"^\| ([^|]+) \|[^|]+\| ([\d,]+) \|", text, re.M)}
    assert {library.name: f"{library.timeout:,}" for library in LIBRARIES}.items() <= lines.items()
