"""Files that are damaged, replaced or went back to an earlier state: healed from mirror or snapshot, nothing lost."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import apsw
import pytest

from harmonylite.db.sqlite.clean_shutdown import note, taken
from tests.cluster.fix_cluster import Site, start
from tests.cluster.processes import Node, agree, until, until_equal

pytestmark = pytest.mark.timeout(300)


def insert(name: str, n: int, note: str | None = None) -> tuple[str, list[object]]:
    return "INSERT INTO events VALUES (?, ?, ?, ?)", [f"{name}-{n}", name, n, note]


def ids(node: Node) -> list[str]:
    return [str(i) for (i,) in node.rows("SELECT id FROM events ORDER BY id")]


def mirror_of(node: Node) -> Path:
    return node.folder / "mirror" / node.db.name / "mirror.db"


def scribble(path: Path, root: str) -> None:
    """Overwrite the root page of the table or index ``root``, once the file has all that is in its log."""
    connection = apsw.Connection(str(path))
    connection.set_busy_timeout(10_000)
    until(lambda: emptied(connection), f"the log of {path.name} is in the file")
    found: Any = connection.execute(
        "SELECT rootpage, page_size FROM sqlite_schema, pragma_page_size WHERE name = ?", (root,)
    ).fetchall()
    page, size = found[0]
    connection.close()
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xa5" * size)


def emptied(connection: apsw.Connection) -> bool:
    """Copy the log, where the file has one, into the file and start it over; tell whether nobody was in the way."""
    connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
    try:
        return connection.wal_checkpoint("main", apsw.SQLITE_CHECKPOINT_TRUNCATE) in ((0, 0), (-1, -1))
    except apsw.BusyError:
        return False


def pair(site: Site) -> tuple[Node, Node]:
    nodes = [site.node(name) for name in ("a", "b")]
    start(nodes)
    site.application(nodes[0]).write(insert("a", 1), insert("a", 2))
    site.application(nodes[1]).write(insert("b", 1))
    until_equal(nodes)
    return nodes[0], nodes[1]


def test_a_damaged_mirror_is_put_aside_and_made_anew_and_pending_rows_are_published(site: Site) -> None:
    a, b = pair(site)
    assert b.stop() == 0
    site.application(b).write(insert("b", 2), "DELETE FROM events WHERE id = 'a-1'")
    site.application(a).write(insert("a", 3))
    scribble(mirror_of(b), "events")
    start([b])
    content = until_equal([a, b])
    assert ids(b) == ["a-2", "a-3", "b-1", "b-2"]
    assert len(content["events"]) == 4
    until(lambda: list(mirror_of(b).parent.glob("mirror.db.damaged-*")), "the damaged file is kept")
    agree([a, b])


def test_damage_that_a_clean_stop_did_not_see_is_found_soon_after_a_quick_start(site: Site) -> None:
    """The files look as they were left, so nothing waits for their check; it is made all the same."""
    a, b = (site.node(name) for name in ("a", "b"))
    start([a, b])
    for node, file in ((a, a.db), (b, mirror_of(b))):
        assert node.stop() == 0
        assert taken(mirror_of(node).parent) == {node.db, mirror_of(node)}
        scribble(file, "fought")
        note(mirror_of(node).parent, [node.db, mirror_of(node)])
        node.start()
        until(lambda: list(file.parent.glob(f"{file.name}.damaged-*")), "it is put aside")  # noqa: B023
        node.logged("replication with the files as opened")  # it was opened before it was checked
        node.ready()
    assert len(until_equal([a, b])["fought"]) == 5
    agree([a, b])


def test_a_mirror_that_is_damaged_while_the_node_runs_is_healed_without_a_person(site: Site) -> None:
    a, b = pair(site)
    b.sent()
    scribble(mirror_of(b), "events")
    writer = site.application(b)
    site.application(a).write(insert("a", 3))
    writer.write(insert("b", 2))
    until(lambda: len(ids(a)) == len(ids(b)) == 5, "both have all five rows")
    until_equal([a, b])
    b.ready()
    agree([a, b])


def test_damage_of_a_mirror_that_only_a_snapshot_meets_is_healed_too(site: Site) -> None:
    a, b = pair(site)
    scribble(mirror_of(b), "counters")
    code, text = b.command("snapshot", "save")
    assert code != 0
    assert "malformed" in text
    until(lambda: list(mirror_of(b).parent.glob("mirror.db.damaged-*")), "it is put aside")
    until(lambda: b.command("snapshot", "save")[0] == 0, "a snapshot is saved")
    b.ready()
    assert "Traceback" not in b.log.read_text()
    until_equal([a, b])
    agree([a, b])


@pytest.mark.parametrize("with_mirror", [True, False])
def test_a_damaged_database_is_healed_and_its_unsent_rows_are_saved(site: Site, with_mirror: bool) -> None:
    a, b = pair(site)
    assert b.stop() == 0
    site.application(b).write(
        insert("b", 2), "UPDATE events SET note = 'unsent' WHERE id = 'a-1'", "DELETE FROM events WHERE id = 'a-2'"
    )
    scribble(b.db, "fought")
    if not with_mirror:
        scribble(mirror_of(b), "fought")
    start([b])
    # the two are equal also before what was not sent is in the new file
    until(lambda: ids(a) == ["a-1", "b-1", "b-2"], "what was not sent arrives")
    until(lambda: a.value("SELECT note FROM events WHERE id = 'a-1'") == "unsent", "all of it")
    until_equal([a, b])
    assert len(b.rows("SELECT * FROM fought")) == 5
    assert list(b.folder.glob("app.db.damaged-*")), "the damaged file is kept"
    agree([a, b])


def test_a_file_that_is_no_database_and_never_was_replicated_is_left_alone(site: Site) -> None:
    node = site.node("a", tables=None)
    node.db.write_text("this is somebody's diary, not a database\n" * 100)
    node.start()
    assert node.gone() != 0
    assert "damaged, or no SQLite file" in node.log.read_text()
    assert node.db.read_text().startswith("this is somebody's diary")


def copy_database(source: Path, target: Path) -> None:
    """Copy a database with everything that is committed."""
    connection = apsw.Connection(str(source))
    connection.set_busy_timeout(60_000)
    connection.execute("VACUUM INTO ?", (str(target),))
    connection.close()


def test_a_database_restored_from_an_old_backup_catches_up_and_its_new_rows_are_published(site: Site) -> None:
    a, b = pair(site)
    backup = site.folder / "backup.db"
    copy_database(b.db, backup)
    site.application(a).write(
        "UPDATE events SET note = 'since' WHERE id = 'a-1'", "DELETE FROM events WHERE id = 'a-2'"
    )
    until_equal([a, b])
    assert b.stop() == 0
    for path in b.folder.glob("app.db*"):
        path.unlink()
    shutil.copy(backup, b.db)
    site.application(b).write(insert("b", 2))
    start([b])
    content = until_equal([a, b])
    assert ids(b) == ["a-1", "b-1", "b-2"]
    assert ("a-1", "a", 1, "since") in content["events"]
    agree([a, b])


@pytest.mark.parametrize("way", ["renamed over", "written into"])
def test_a_backup_that_is_restored_under_a_running_node_is_noticed(site: Site, way: str) -> None:
    a, b = pair(site)
    backup = site.folder / "backup.db"
    copy_database(b.db, backup)
    site.application(a).write("UPDATE events SET note = 'since' WHERE id = 'a-1'")
    until_equal([a, b])
    if way == "renamed over":
        for side in ("-wal", "-shm"):
            Path(f"{b.db}{side}").unlink(missing_ok=True)
        backup.replace(b.db)
    else:
        source, target = apsw.Connection(str(backup)), apsw.Connection(str(b.db))
        target.set_busy_timeout(60_000)
        with target.backup("main", source, "main") as copying:
            copying.step()
        source.close()
        target.close()
    b.logged("replication with the files as opened")
    site.application(b).write(insert("b", 2))
    until(lambda: len(ids(a)) == 4, "what is written then arrives")
    until_equal([a, b])
    assert a.value("SELECT note FROM events WHERE id = 'a-1'") == "since"
    agree([a, b])


def test_a_database_that_was_replaced_by_a_foreign_one_is_merged(site: Site) -> None:
    a, b = pair(site)
    assert b.stop() == 0
    for path in b.folder.glob("app.db*"):
        path.unlink()
    fresh = site.node("fresh")
    shutil.copy(fresh.db, b.db)
    site.application(b).write(insert("foreign", 1), insert("a", 1, "of the foreign one"))
    start([b])
    until_equal([a, b])
    assert ids(a) == ["a-1", "a-2", "b-1", "foreign-1"]
    assert a.value("SELECT note FROM events WHERE id = 'a-1'") is None, "the cluster's value stays"
    assert "of the foreign one" in b.command("conflicts", "-json")[1]
    agree([a, b])
