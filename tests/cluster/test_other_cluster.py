"""A node that is pointed at another cluster's NATS by mistake: nothing goes from one cluster to the other."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import apsw
import pytest

from tests.cluster.fix_cluster import Site, start
from tests.cluster.processes import Node, agree, until, until_equal
from tests.cluster.writing import Application

pytestmark = pytest.mark.timeout(300)

ANOTHER = "NATS holds the streams of another cluster"


def insert(name: str) -> tuple[str, list[object]]:
    return "INSERT INTO events VALUES (?, ?, 1, NULL)", [name, name]


def ids(node: Node) -> list[str]:
    return [str(i) for (i,) in node.rows("SELECT id FROM events ORDER BY id")]


def nothing(_: Node) -> None:
    """Leave the files as they are."""


def no_mirror(node: Node) -> None:
    (node.folder / "mirror" / node.db.name / "mirror.db").unlink()


def no_folder(node: Node) -> None:
    shutil.rmtree(node.folder / "mirror")


def damage(path: Path) -> None:
    """Overwrite the pages after the first one, as far as the second half."""
    content = bytearray(path.read_bytes())
    content[4096 : len(content) // 2] = b"\xaa" * (len(content) // 2 - 4096)
    path.write_bytes(content)


def damaged_mirror(node: Node) -> None:
    damage(node.folder / "mirror" / node.db.name / "mirror.db")


def restored(node: Node) -> None:
    """Put an earlier state in place, as `.restore` of an old backup does."""
    copy(node.folder / "backup.db", node.db)


def copy(source: Path, target: Path) -> None:
    """Copy a database by SQLite's own means."""
    old, new = apsw.Connection(str(source)), apsw.Connection(str(target))
    with new.backup("main", old, "main") as backup:
        backup.step()
    old.close()
    new.close()


class Clusters:
    """Production and staging: their nodes have written, and use the same names on servers of their own."""

    def __init__(self, site: Site, sections: Mapping[str, Mapping[str, object]] | None = None) -> None:
        self.servers = [site.server("nats-production"), site.server("nats-staging")]
        self.node = site.node("production", urls=[self.servers[0].url], sections=sections)
        self.staging = site.node("staging", urls=[self.servers[1].url])
        start([self.node, self.staging])
        self.writers: list[Application] = [site.application(node) for node in (self.node, self.staging)]
        for node, writer in zip((self.node, self.staging), self.writers, strict=True):
            writer.write(insert(node.name), ("UPDATE fought SET value = ? WHERE id = 1", [node.name]))
            node.sent()
        copy(self.node.db, self.node.folder / "backup.db")
        self.writers[0].write(insert("production-later"))
        self.node.sent()

    def point(self, server: int) -> None:
        """Start production's node with the URL of one of the servers."""
        self.node.sections["nats"]["urls"] = [self.servers[server].url]
        self.node.start()

    def refused(self) -> None:
        """Wait until production's node says that it is in the wrong place."""
        until(lambda: self.node.waits(ANOTHER), "the node says that this is another cluster")
        assert self.node.get("/readyz")[0] == 503
        self.node.logged(ANOTHER)
        self.node.logged("correct [nats] urls")


@pytest.mark.parametrize("files", [nothing, no_mirror, no_folder, damaged_mirror, restored])
def test_a_node_at_another_clusters_nats_merges_nothing_and_continues_once_it_is_back(
    site: Site, files: Callable[[Node], None]
) -> None:
    clusters = Clusters(site)
    node, staging = clusters.node, clusters.staging
    assert node.stop() == 0
    files(node)
    clusters.point(1)
    clusters.refused()
    clusters.writers[0].write(insert("production-meanwhile"))
    clusters.writers[1].write(insert("staging-meanwhile"))
    staging.sent()
    clusters.refused()
    assert ids(staging) == ["staging", "staging-meanwhile"]
    assert not [name for name in ids(node) if name.startswith("staging")]
    assert staging.value("SELECT value FROM fought WHERE id = 1") == "staging"
    assert node.stop() == 0
    clusters.point(0)
    node.ready()
    node.sent()
    assert ids(node) == ["production", "production-later", "production-meanwhile"]
    assert node.value("SELECT value FROM fought WHERE id = 1") == "production"
    agree([node])


def test_where_no_node_of_the_other_cluster_runs_its_pointer_stays(site: Site, tmp_path: Path) -> None:
    """The store of snapshots is still production's, so it lacks the snapshot that staging's NATS names."""
    store = tmp_path / "store"
    store.mkdir()
    clusters = Clusters(site, {"snapshot": {"store": "file"}, "snapshot.file": {"path": str(store)}})
    node, staging = clusters.node, clusters.staging
    assert node.stop() == staging.stop() == 0
    clusters.point(1)
    clusters.refused()
    start([staging])
    clusters.writers[1].write(insert("staging-meanwhile"))
    staging.sent()
    assert ids(staging) == ["staging", "staging-meanwhile"]
    clusters.refused()


def test_a_running_node_whose_url_leads_to_another_cluster_publishes_nothing_there(site: Site) -> None:
    clusters = Clusters(site)
    node, staging = clusters.node, clusters.staging
    here, there = clusters.servers
    assert staging.stop() == 0
    for server in (here, there):
        server.stop()
    own, other = (server.folder / server.name for server in (here, there))
    own.rename(own.with_name("kept"))
    shutil.copytree(other, own)
    here.start()  # production's address, with staging's data
    clusters.writers[0].write(insert("production-meanwhile"))
    clusters.refused()
    assert "staging" not in ids(node)
    here.stop()
    shutil.rmtree(own)
    own.with_name("kept").rename(own)
    here.start()
    node.ready()
    node.sent()
    assert ids(node) == ["production", "production-later", "production-meanwhile"]
    agree([node])


def test_a_person_has_a_file_merged_into_another_cluster_by_a_cleanup(site: Site) -> None:
    clusters = Clusters(site)
    node, staging = clusters.node, clusters.staging
    assert node.stop() == 0
    clusters.point(1)
    clusters.refused()
    assert node.stop() == 0
    assert node.command("-cleanup")[0] == 0
    clusters.point(1)
    node.ready()
    until_equal([node, staging])
    assert ids(staging) == ["production", "production-later", "staging"]
    assert staging.value("SELECT value FROM fought WHERE id = 1") == "staging"
    assert "production" in node.command("conflicts")[1], "what gave way is in the journal"
    agree([node, staging])
