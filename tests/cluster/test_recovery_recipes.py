"""Every command of docs/recovery.md and docs/snapshots.md does what the page says it does."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from tests.cluster.fix_cluster import Site, start
from tests.cluster.processes import Node, agree, until, until_equal
from tests.cluster.test_other_cluster import Clusters

pytestmark = pytest.mark.timeout(300)

DOCS = Path(__file__).parents[2] / "docs"
BOOKS = "CREATE TABLE books(id INTEGER PRIMARY KEY, title TEXT)"


def recipe(page: str, heading: str) -> list[str]:
    """Return the commands of one section of a page."""
    text = (DOCS / page).read_text()
    section = text.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return [line for block in re.findall(r"```sh\n(.*?)```", section, re.DOTALL) for line in block.splitlines()]


class Desk:
    """A shell in a node's folder, as the pages assume it: ``config.toml``, ``app.db``, ``harmonylite`` on the path."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.folder = node.folder
        node.write_config()
        shutil.copy(node.config, self.folder / "config.toml")
        commands = self.folder / "bin"
        commands.mkdir(exist_ok=True)
        (commands / "harmonylite").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m harmonylite "$@"\n')
        (commands / "sqlite3").write_text(
            f"#!/bin/sh\nexec {shlex.quote(sys.executable)} -c"
            " 'import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=60).executescript(sys.argv[2])' \"$@\"\n"
        )
        for command in commands.iterdir():
            command.chmod(0o755)
        self.path = f"{commands}:{os.environ['PATH']}"

    def type(self, command: str) -> str:
        """Run one line; a node that is started so stays up."""
        if command == "harmonylite -config config.toml":
            start([self.node])
            return ""
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            cwd=self.folder,
            env={**os.environ, "PATH": self.path},
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}"
        return done.stdout


@pytest.fixture
def pair(site: Site) -> tuple[Node, Node]:
    nodes = [site.node(name, tables=BOOKS) for name in ("a", "b")]
    start(nodes)
    for node, number in zip(nodes, (1, 2), strict=True):
        site.application(node).write(("INSERT INTO books VALUES (?, 'by ' || ?)", [number, node.name]))
    until_equal(nodes)
    return nodes[0], nodes[1]


def titles(node: Node) -> list[str]:
    return [str(title) for (title,) in node.rows("SELECT title FROM books ORDER BY id")]


def test_every_recipe_of_the_pages_is_known_here() -> None:
    found = {
        heading
        for page in ("recovery.md", "snapshots.md")
        for heading in re.findall(r"\n## (.*)\n", (DOCS / page).read_text())
        if recipe(page, heading)
    }
    assert found == {
        "The database file was deleted, or the machine's disk was lost",
        "The machine is gone, and I only want its data",
        "The mirror is damaged or was deleted",
        "I restored an old backup of the database",
        "Someone dropped a table or a column",
        "Snapshots can't be saved or read",
        "A node is paused at a message",
        "NATS holds the streams of another cluster",
        "Two nodes differ and none is in the majority",
        "Signed snapshots",
        "Commands",
        "Back in time",
    }


def test_deleted_files_come_back(site: Site, pair: tuple[Node, Node]) -> None:
    a, b = pair
    for heading in (
        "The database file was deleted, or the machine's disk was lost",
        "The mirror is damaged or was deleted",
    ):
        assert b.stop() == 0
        desk = Desk(b)
        for command in recipe("recovery.md", heading):
            desk.type(command)
        until_equal([a, b])
        assert titles(b) == ["by a", "by b"]
    agree([a, b])


def test_a_file_of_another_cluster_is_merged_into_the_one_that_is_there(site: Site) -> None:
    clusters = Clusters(site)
    assert clusters.node.stop() == 0
    clusters.node.sections["nats"]["urls"] = [clusters.servers[1].url]
    desk = Desk(clusters.node)
    for command in recipe("recovery.md", "NATS holds the streams of another cluster"):
        desk.type(command)
    until_equal([clusters.node, clusters.staging])
    agree([clusters.node, clusters.staging])


def test_the_data_of_a_machine_that_is_gone_is_there_without_any_node(site: Site, pair: tuple[Node, Node]) -> None:
    for node in pair:
        assert node.stop() == 0
        for file in node.folder.glob("app.db*"):
            file.unlink()
        shutil.rmtree(node.folder / "mirror")
    desk = Desk(pair[0])
    for command in recipe("recovery.md", "The machine is gone, and I only want its data"):
        desk.type(command)
    found = apsw.Connection(str(desk.folder / "data.db")).execute("SELECT title FROM books ORDER BY id").fetchall()
    assert found == [("by a",), ("by b",)]


def test_going_back_in_time_and_writing_the_old_state_again(site: Site, pair: tuple[Node, Node]) -> None:
    a, b = pair
    site.application(a).write("UPDATE books SET title = 'a mistake'")
    until_equal([a, b])
    desk = Desk(a)
    for command in recipe("recovery.md", "Snapshots can't be saved or read"):
        assert "snapshot-" in desk.type(command)
    for command in recipe("snapshots.md", "Commands"):
        desk.type(command)
    assert "books" in {
        row[0] for row in apsw.Connection(str(desk.folder / "newest.db")).execute("SELECT name FROM sqlite_schema")
    }
    a.sent()  # b may have had it before it was back here
    last = a.health()["shards"][0]["position"]
    for command in recipe("snapshots.md", "Back in time"):
        if "-at " in command:  # the page names a time before this cluster was there
            code, text = a.command(*shlex.split(command)[3:])
            assert (code, "out of reach" in text) == (9, True)
        else:
            told = desk.type(command.replace("4711", str(last - 1)))
            assert "history" not in command or ("a mistake" in told and "by a" in told)
    (desk.folder / "before.db").unlink()
    for command in recipe("recovery.md", "I restored an old backup of the database"):
        desk.type(command.replace("-position 1 ", f"-position {last - 1} "))
    until(lambda: titles(b) == ["by a", "by b"], "the old state is everywhere again")


def test_a_table_that_someone_dropped_is_brought_back(site: Site, pair: tuple[Node, Node]) -> None:
    a, b = pair
    assert a.command("snapshot", "save")[0] == 0
    site.application(a).write("DROP TABLE books")
    there = "SELECT count(*) FROM sqlite_schema WHERE name = 'books'"
    until(lambda: b.value(there) == 0, "it is dropped everywhere")
    desk = Desk(b)
    listed, restore, fill = recipe("recovery.md", "Someone dropped a table or a column")
    (place,) = re.findall(r"(\d+):(\d+)\s+drop table books", desk.type(listed))
    desk.type(restore.replace("4711", str(int(place[1]) - 1)))
    desk.type(fill)
    until(lambda: a.value(there) == 1, "it is there again")
    until_equal([a, b])
    assert titles(a) == titles(b) == ["by a", "by b"]


def test_a_key_is_made_and_snapshots_are_signed_with_it(site: Site, pair: tuple[Node, Node]) -> None:
    desk = Desk(pair[0])
    for command in recipe("snapshots.md", "Signed snapshots"):
        desk.type(command)
    key = desk.folder / "snapshots.key"
    for node in pair:
        assert node.stop() == 0
        node.sections["snapshot"] = {**node.sections.get("snapshot", {}), "sign_key": str(key)}
        node.start()
    for node in pair:
        node.ready()
    code, text = pair[1].command("snapshot", "save")
    assert code == 0, text
    code, text = pair[0].command("snapshot", "fetch", "-o", str(desk.folder / "fetched.db"))
    assert code == 0, text


def test_a_node_that_is_wrong_begins_from_a_snapshot_of_the_right_one(site: Site, pair: tuple[Node, Node]) -> None:
    right, wrong = pair
    assert wrong.stop() == 0
    for path in (wrong.db, wrong.folder / "mirror" / "app.db" / "mirror.db"):
        connection = apsw.Connection(str(path))
        connection.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0)
        connection.execute("UPDATE books SET title = 'rotten' WHERE id = 1")
        connection.close()
    start([wrong])
    code, text = right.command("verify")
    assert (code, "NOT all agree" in text) == (4, True)
    assert wrong.stop() == 0
    desk = Desk(wrong)
    shutil.copy(right.config, desk.folder / "right.toml")
    for command in recipe("recovery.md", "Two nodes differ and none is in the majority"):
        desk.type(command)
    until(lambda: titles(wrong) == ["by a", "by b"], "it has what the right one has")
    assert "rotten" in wrong.command("conflicts", "-json")[1]


def test_a_message_that_a_node_is_paused_at_is_left_out_and_taken_in_later(site: Site) -> None:
    loose = "CREATE TABLE books(id INTEGER PRIMARY KEY, title)"
    by_hand = {"schema": {"apply": "none"}}  # else both would have one definition
    a = site.node("a", sections=by_hand, tables=loose)
    b = site.node("b", sections=by_hand, tables=loose.replace("title", "title TEXT NOT NULL"))
    start([a, b])
    site.application(a).write("INSERT INTO books VALUES (1, NULL)")
    (reason,) = until(lambda: [why for why in b.health()["waits"] if "NOT NULL" in why], "it is paused")
    seq = reason.split("message ")[1].split()[0]
    desk = Desk(b)
    skip, listed, undo, verify = (
        line.replace("4711", seq) for line in recipe("recovery.md", "A node is paused at a message")
    )
    desk.type(f"{skip} -yes")
    b.ready()
    assert "books" in desk.type(listed)
    site.application(b).write(
        "ALTER TABLE books RENAME TO old", loose, "INSERT INTO books SELECT * FROM old", "DROP TABLE old"
    )
    b.sent()  # it has seen the new table
    b.ready()
    desk.type(undo)
    desk.type(verify)
    until_equal([a, b])
