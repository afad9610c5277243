"""A file in another text encoding than the cluster's is refused at the start, and joins once it is converted."""

from __future__ import annotations

import re
import shutil
import subprocess
from contextlib import closing

import apsw
import pytest

from harmonylite.errors import EncodingError
from tests.cluster.fix_cluster import Site, start
from tests.cluster.processes import agree, until_equal
from tests.docs.guide import DOCS, blocks

TABLE = "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, v); CREATE INDEX t_v ON t(v COLLATE NOCASE);"
RECIPE = next(block.text for block in blocks(DOCS / "operating.md") if "PRAGMA encoding" in block.text)

pytestmark = pytest.mark.timeout(200)


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="the recipe needs SQLite's shell")
@pytest.mark.parametrize(("mine", "theirs"), [("UTF-16le", "UTF-8"), ("UTF-8", "UTF-16be"), ("UTF-16be", "UTF-16le")])
def test_another_encoding_is_refused_with_a_way_in(site: Site, mine: str, theirs: str) -> None:
    first = site.node("first", tables=f"PRAGMA encoding = '{theirs}'; {TABLE} INSERT INTO t VALUES ('of the first', 1)")
    other = site.node(
        "other",
        tables=f"PRAGMA encoding = '{mine}'; {TABLE} INSERT INTO t VALUES ('Größe 𝄞', 'é'); PRAGMA user_version = 17;"
        " PRAGMA application_id = -5",
    )
    start([first])
    for _ in range(2):  # the first refusal leaves nothing behind that changes the second
        other.log.write_bytes(b"")
        other.start()
        assert other.gone() == EncodingError.exit_code
        said = other.last_words()
        assert re.search(rf"the database \S*app\.db keeps its text in {mine}, the cluster in {theirs}", said), said
    bash = shutil.which("bash")
    assert bash is not None
    subprocess.run(
        [bash, "-euc", RECIPE.replace("'UTF-8'", f"'{theirs}'").replace("app.db", other.db.name)],
        cwd=other.db.parent,
        check=True,
    )
    with closing(apsw.Connection(str(other.db))) as connection:
        numbers = tuple(connection.pragma(name) for name in ("encoding", "user_version", "application_id"))
    assert numbers == (theirs, 17, -5)
    other.start()
    other.ready()
    assert until_equal([first, other])["t"]
    site.application(other).write("INSERT INTO t VALUES ('later', x'00ff')")
    assert len(until_equal([first, other])["t"]) == 3
    agree([first, other])
