"""Whatever a node does to a database, it keeps mode, owner and group, and no copy is wider; damage is healed."""

from __future__ import annotations

import json
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

import apsw
import pytest

from harmonylite.db.repair import damage
from harmonylite.db.sqlite.clean_shutdown import note
from harmonylite.db.sqlite.file_access import Access, access_of
from tests.cluster.fix_cluster import Site, start
from tests.cluster.processes import Node, agree, until, until_equal
from tests.cluster.test_recovery_files import mirror_of, pair, scribble

pytestmark = pytest.mark.timeout(300)


def lie_in_an_index(path: Path) -> None:
    """Let an index say something else than its table, which only a look through both can find."""
    connection = apsw.Connection(str(path))
    connection.execute("CREATE INDEX IF NOT EXISTS by_note ON events(note)")
    connection.execute("UPDATE events SET note = 'the truth of it' WHERE id = 'a-1'")
    connection.pragma("wal_checkpoint", "truncate")
    found: Any = connection.execute(
        "SELECT rootpage, page_size FROM sqlite_schema, pragma_page_size WHERE name = 'by_note'"
    ).fetchall()
    root, size = found[0]
    connection.close()
    with path.open("r+b") as file:
        file.seek((root - 1) * size)
        page = file.read(size)
        assert b"the truth of it" in page
        file.seek((root - 1) * size)
        file.write(page.replace(b"the truth of it", b"the other of it"))
    assert damage(path) == "", "the quick check does not see it"
    assert "missing from index by_note" in damage(path, thorough=True)


def healed(node: Node, times: int) -> None:
    until(lambda: len(set(node.folder.glob("app.db.damaged-*[0-9]"))) >= times, "it is healed")
    node.ready()


def not_wider(node: Node, access: Access) -> None:
    """See that no file beside the database or in a folder of the node's lets anybody in whom the database keeps out."""
    for path in [*node.folder.glob(".*"), *(node.folder / "mirror").rglob("*")]:
        with suppress(FileNotFoundError):  # the node's own files come and go
            found = path.lstat().st_mode
            assert not stat.S_ISREG(found) or found & 0o777 & ~(access.mode | 0o600) == 0, path
    for side in ("-wal", "-shm"):
        assert access_of(Path(f"{node.db}{side}")) == access


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o660, 0o644], ids=oct)
def test_a_database_keeps_its_access_in_every_way_of_coming_back(site: Site, mode: int) -> None:
    a, b = pair(site)
    assert b.stop() == 0
    b.db.chmod(mode)
    if os.geteuid() == 0:
        os.chown(b.db, 12345, 23456)
    before = access_of(b.db)
    assert before is not None

    scribble(b.db, "fought")
    start([b])
    healed(b, 1)
    assert access_of(b.db) == before, "healed from the mirror"
    not_wider(b, before)

    for name, words in (("restored.db", ("restore",)), ("fetched.db", ("fetch",))):
        code, said = b.command("snapshot", *words, "-o", str(b.folder / name))
        assert code == 0, said
        assert access_of(b.folder / name) == before

    assert b.stop() == 0
    lie_in_an_index(b.db)
    note(mirror_of(b).parent, [b.db, mirror_of(b)])
    start([b])
    code, said = b.command("verify")
    assert (code, "is damaged: " in said, "verify -repair heals it" in said) == (4, True, True), said
    code, said = b.command("verify", "-repair", "-json")
    assert code == 4, said
    assert [bool(each["damage"]) for each in json.loads(said)["files"]] == [True, False]
    healed(b, 2)
    assert access_of(b.db) == before, "healed as it was found by verify"
    until(lambda: b.command("verify")[0] == 0, "all agree")
    assert b.value("SELECT note FROM events WHERE id = 'a-1'") == "the truth of it"

    scribble(b.db, "fought")
    scribble(mirror_of(b), "fought")
    assert b.stop() in (0, 5)
    start([b])
    healed(b, 3)
    assert access_of(b.db) == before, "healed from a snapshot"

    assert b.stop() == 0
    for path in b.folder.glob("app.db*"):
        path.unlink()
    start([b])
    assert access_of(b.db) == before, "made again, as its mirror remembers it"
    not_wider(b, before)
    b.db.unlink()
    until(lambda: access_of(b.db) == before, "made again under the running node")
    b.ready()
    until_equal([a, b])
    agree([a, b])


SLOW = """
    CREATE TABLE side(n);
    CREATE TRIGGER endless AFTER INSERT ON events BEGIN
        INSERT INTO side WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n;
    END;
"""


def test_a_stop_ends_what_a_remembered_schema_computes_without_end(site: Site) -> None:
    a = site.node("a", sections={"tables": {"exclude": ["side"]}})
    start([a])
    site.application(a).write("INSERT INTO events VALUES ('a-1', 'a', 1, NULL)")
    a.sent()
    connection = apsw.Connection(str(a.db))
    connection.set_busy_timeout(60_000)
    connection.execute(SLOW)
    connection.close()
    until(lambda: "side" in str(a.rows("SELECT name FROM sqlite_schema")), "it is there")
    until(lambda: remembers(a), "the mirror remembers it")
    assert a.command("snapshot", "save")[0] == 0
    late = site.node("late", tables=None, sections={"tables": {"exclude": ["side"]}})
    late.start()
    until(lambda: list(late.folder.glob(".app.db.building*")), "it is being made")
    assert late.stop() == 0
    assert not late.db.exists()


def remembers(node: Node) -> bool:
    connection = apsw.Connection(str(mirror_of(node)), flags=apsw.SQLITE_OPEN_READONLY)
    connection.set_busy_timeout(60_000)
    try:
        found = connection.execute("SELECT count(*) FROM __harmonylite__schema WHERE name = 'endless'").fetchall()
        return found == [(1,)]
    finally:
        connection.close()
