"""Nodes with their snapshots in an S3 bucket, a WebDAV folder, an SFTP folder: real servers."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import quote

import pytest

from tests.cluster.fix_cluster import Site, start
from tests.cluster.processes import until, until_equal
from tests.cluster.test_snapshots import insert, listed, written
from tests.parts.stores.fix_stores import s3_settings, sftp_settings, webdav_settings
from tests.parts.stores.servers import KEY, LOGIN, PASSWORD, SECRET, Server

pytestmark = pytest.mark.timeout(300)

Sections = dict[str, dict[str, Any]]
WATCHED = 6.0
"""Seconds for which a joining node that can't find its snapshot is watched; it looks again every few seconds."""


def s3_sections(server: Server) -> Sections:
    chosen = s3_settings(server)
    keys = {"endpoint": chosen.endpoint, "bucket": "bucket", "path": "shop", "use_ssl": False}
    return {"snapshot": {"store": "s3"}, "snapshot.s3": {**keys, "access_key": KEY, "secret": SECRET}}


def webdav_sections(server: Server) -> Sections:
    url = webdav_settings(server, folder="shop").url.get_secret_value()
    return {"snapshot": {"store": "webdav"}, "snapshot.webdav": {"url": url}}


def sftp_sections(server: Server) -> Sections:
    chosen = sftp_settings(server)
    url = f"sftp://{LOGIN}:{quote(PASSWORD, safe='')}@127.0.0.1:{server.port}/~/shop"
    return {"snapshot": {"store": "sftp"}, "snapshot.sftp": {"url": url, "known_hosts": str(chosen.known_hosts)}}


@pytest.mark.parametrize(
    ("server_name", "sections"),
    [
        ("s3_api", s3_sections),
        ("webdav", webdav_sections),
        ("sftp", sftp_sections),
        ("sshd", sftp_sections),
    ],
)
def test_a_node_without_a_database_takes_its_snapshot_from_the_store(
    site: Site, request: pytest.FixtureRequest, server_name: str, sections: Any
) -> None:
    there: Server = request.getfixturevalue(server_name)
    store = sections(there)
    nats = site.server()
    first = site.node("a", urls=[nats.url], sections=store)
    start([first])
    written(first, insert(1))
    code, text = first.command("snapshot", "save")
    assert code == 0, text
    newest = str(next(each for each in listed(first) if each["newest"])["name"])
    assert list(there.root.rglob(newest)), "it lies in the store"
    late = site.node("late", urls=[nats.url], sections=store, tables=None)
    start([late])
    assert newest in late.log.read_text()
    written(late, insert(2))
    assert len(until_equal([first, late])["events"]) == 2
    for node in (first, late):
        for secret in (SECRET, PASSWORD, quote(PASSWORD, safe="")):
            assert secret not in node.log.read_text()


each_store = pytest.mark.parametrize(
    ("server_name", "sections"),
    [
        ("s3_api", s3_sections),
        ("webdav", webdav_sections),
        ("sftp", sftp_sections),
    ],
)


def elsewhere(sections: Sections) -> Sections:
    """Return what names a place of the same store where the cluster's snapshots are not."""
    found = {name: dict(keys) for name, keys in sections.items()}
    place = found[f"snapshot.{found['snapshot']['store']}"]
    if "path" in place:
        place["path"] = f"{place['path']}-elsewhere"
    else:
        place["url"] = str(place["url"]).replace("/shop", "/elsewhere")
    return found


def locked_out(sections: Sections) -> Sections:
    """Return what names the cluster's store with a password that it refuses."""
    found = {name: dict(keys) for name, keys in sections.items()}
    place = found[f"snapshot.{found['snapshot']['store']}"]
    if "secret" in place:
        place["secret"] = "not-the-secret"
    else:
        place["url"] = str(place["url"]).replace(quote(PASSWORD, safe=""), "not-the-password")
    return found


def joins_in_vain(site: Site, right: Sections, wrong: Sections, said: str) -> None:
    """Let a node with another store join two that share one; those save one snapshot at most, and it says ``said``."""
    nats = site.server()
    members = [site.node(name, urls=[nats.url], sections=right) for name in "ab"]
    start(members[:1])
    start(members[1:])
    written(members[0], insert(1))
    before = [member.status("snapshots_saved") for member in members]
    late = site.node("late", urls=[nats.url], sections=wrong, tables=None)
    late.start()
    until(lambda: late.waits(said), f"the node that joins says {said!r}")
    end = time.monotonic() + WATCHED
    until(lambda: time.monotonic() > end, "it has looked again and again")
    saved = sum(m.status("snapshots_saved") for m in members) - sum(before)
    assert saved <= 1, "what did not help is not asked for again"
    until(lambda: late.waits(said), f"it still says {said!r}")
    assert not late.db.exists()


@each_store
def test_a_node_that_joins_with_a_wrong_store_makes_the_others_save_one_snapshot_at_most(
    site: Site, request: pytest.FixtureRequest, server_name: str, sections: Any
) -> None:
    right = sections(request.getfixturevalue(server_name))
    joins_in_vain(site, right, elsewhere(right), "set [snapshot] of this node as there")


@each_store
def test_a_node_that_joins_with_a_wrong_password_asks_nobody_for_a_snapshot(
    site: Site, request: pytest.FixtureRequest, server_name: str, sections: Any
) -> None:
    right = sections(request.getfixturevalue(server_name))
    joins_in_vain(site, right, locked_out(right), "snapshot")


def test_a_node_whose_directory_is_another_one_is_named_on_both_sides(site: Site) -> None:
    def directory(name: str) -> Sections:
        (site.folder / name).mkdir()
        return {"snapshot": {"store": "file"}, "snapshot.file": {"path": str(site.folder / name)}}

    joins_in_vain(site, directory("right"), directory("wrong"), "set [snapshot] of this node as there")
    said = "found another store in [snapshot] of node late: "
    members = [running for running in site.running if running.name in "ab"]
    until(lambda: any(said in running.log.read_text() for running in members), "a member logs it")
