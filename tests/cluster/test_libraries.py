"""Beside each library: what it writes arrives bit for bit, what arrives it reads, and it may read and then write.

Each library runs in a process of its own, as the application would; those that aren't here are left out with a reason.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from tests.cluster.fix_cluster import Site, make, start
from tests.cluster.processes import until
from tests.needs import Need

pytestmark = pytest.mark.timeout(200)

TABLE = "CREATE TABLE v(id TEXT PRIMARY KEY, value)"
WANTED = {
    "null": "NULL", "integer": "9223372036854775807", "real": "0.1", "text": "'gr\u00fc\u00df''e'", "blob": "X'00FF00'",
    "read": "'seen'",
}  # fmt: skip
"""What the second node has then, as SQLite's `quote` writes it; "read": the library read what the second node wrote."""

PYTHON = """
import sys
{0}
cursor.execute("PRAGMA busy_timeout = 5000")
def run(sql, *values):
    return cursor.execute(sql, values).fetchall()
run("BEGIN")
seen = run("SELECT value FROM v WHERE id = 'theirs'")[0][0]
for name, value in (("null", None), ("integer", 2**63 - 1), ("real", 0.1), ("text", "gr\\u00fc\\u00df'e"),
                    ("blob", b"\\0\\xff\\0"), ("read", seen)):
    run("INSERT INTO v VALUES (?, ?)", name, value)
run("COMMIT")
"""
CPYTHON = PYTHON.format("import sqlite3; cursor = sqlite3.connect(sys.argv[1], isolation_level=None).cursor()")
APSW = PYTHON.format("import apsw; cursor = apsw.Connection(sys.argv[1]).cursor()")

SCRIPT = """
const values = [["null", null], ["integer", 9223372036854775807n], ["real", 0.1], ["text", "gr\\u00fc\\u00df'e"],
                ["blob", Buffer.from([0, 255, 0])]];
db.exec("PRAGMA busy_timeout = 5000");
db.exec("BEGIN");
values.push(["read", db.prepare("SELECT value FROM v WHERE id = 'theirs'").get().value]);
const insert = db.prepare("INSERT INTO v VALUES (?, ?)");
for (const [name, value] of values) insert.run(name, value);
db.exec("COMMIT");
"""
OWN = 'const db = new (require("node:sqlite").DatabaseSync)(process.argv[1]);'
BETTER = 'const db = new (require("better-sqlite3"))(process.argv[1]);'

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
SHELL = """
BEGIN;
SELECT value FROM v WHERE id = 'theirs';
INSERT INTO v VALUES ('null', NULL), ('integer', 9223372036854775807), ('real', 0.1), ('text', 'gr\u00fc\u00df''e'),
    ('blob', x'00ff00'), ('read', (SELECT value FROM v WHERE id = 'theirs'));
COMMIT;
"""


@dataclass(frozen=True)
class Library:
    """``command``: what writes to the file that is its last argument. ``probe``: ends with 0 where the library is."""

    name: str
    command: Sequence[str]
    probe: Sequence[str]
    sent: str = ""

    @property
    def need(self) -> Need:
        """The library itself."""
        there = (
            shutil.which(self.probe[0]) and not subprocess.run(self.probe, check=False, capture_output=True).returncode
        )
        return Need(self.name, "" if there else "install it")

    def write(self, path: str) -> None:
        """Write as an application would; the process must end well."""
        done = subprocess.run(
            [*self.command, path], check=False, capture_output=True, text=True, input=self.sent, timeout=60
        )
        assert done.returncode == 0, done.stderr


LIBRARIES = [
    Library("CPython's sqlite3", [sys.executable, "-c", CPYTHON], [sys.executable, "-c", "import sqlite3"]),
    Library("apsw", [sys.executable, "-c", APSW], [sys.executable, "-c", "import apsw"]),
    Library(
        "sqlite3 (the shell)", ["sqlite3", "-bail", "-cmd", ".timeout 5000"], ["sqlite3", "-version"], sent=SHELL
    ),
    Library("node:sqlite", ["node", "-e", OWN + SCRIPT], ["node", "-e", 'require("node:sqlite")']),
    Library("better-sqlite3", ["node", "-e", BETTER + SCRIPT],
            ["node", "-e", 'new (require("better-sqlite3"))(":memory:")']),
    Library("DBD::SQLite", ["perl", "-e", PERL], ["perl", "-MDBD::SQLite", "-e", "1"]),
]  # fmt: skip


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda library: library.name)
def test_a_library_reads_and_then_writes_beside_a_node_and_its_values_arrive_bit_for_bit(
    site: Site, library: Library
) -> None:
    library.need.skip()
    here, there = nodes = [site.node(name, tables=None) for name in ("a", "b")]
    for node in nodes:
        make(node.db, TABLE)
    start(nodes)
    site.application(there).write(("INSERT INTO v VALUES ('theirs', 'seen')", []))
    until(lambda: here.value("SELECT count(*) FROM v") == 1, "what the other node wrote is here")
    library.write(str(here.db))
    for name, value in WANTED.items():
        until(lambda: there.value("SELECT quote(value) FROM v WHERE id = ?", [name]) == value, f"{name} arrives")  # noqa: B023
    assert here.value("SELECT count(*) FROM v") == len(WANTED) + 1
