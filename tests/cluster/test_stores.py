"""Nodes with their snapshots in an S3 bucket, a WebDAV folder, an SFTP folder: real servers."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from tests.cluster.fix_cluster import Site, start
from tests.cluster.processes import until_equal
from tests.cluster.test_snapshots import insert, listed, written
from tests.parts.stores.fix_stores import s3_settings, sftp_settings, webdav_settings
from tests.parts.stores.servers import KEY, LOGIN, PASSWORD, SECRET, Server

pytestmark = pytest.mark.timeout(300)

Sections = dict[str, dict[str, Any]]


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
