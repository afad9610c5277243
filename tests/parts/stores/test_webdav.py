"""WebDAV: folders, certificates, and what lies beside our own files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest
import trustme

from harmonylite.config.secret_text import Url
from harmonylite.config.snapshot import WebdavStoreSettings
from harmonylite.errors import ConfigError, SnapshotError
from harmonylite.stores.object_files import upload_name
from harmonylite.stores.webdav import WebdavStore
from tests.parts.stores.fix_stores import Place, webdav_settings
from tests.parts.stores.servers import LOGIN, PASSWORD, Server, webdav_server


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(b"1")
    return path


async def test_without_dir_the_root_of_the_tree_is_the_folder(webdav: Server, source: Path) -> None:
    store = WebdavStore(webdav_settings(webdav), owner="root")
    (webdav.root / "a folder").mkdir()
    await store.put("at the root", source)
    found = await store.names()
    assert "at the root" in found
    assert "a folder" not in found
    assert (webdav.root / "at=20the=20root").exists()
    await store.delete("at the root")
    (webdav.root / "a folder").rmdir()


async def test_only_what_this_node_left_behind_is_removed(webdav_place: Place, source: Path) -> None:
    store = await webdav_place.make(owner="one")
    await store.put("x", source)
    assert webdav_place.disk is not None
    mine, others = upload_name("one"), upload_name("one.2")
    for name in (mine, others, "a file of theirs"):
        (webdav_place.disk / name).write_text("?")
    await store.put("y", source)
    assert webdav_place.lies_there() == {"x", "y", others, "a file of theirs"}
    assert await store.names() == ["x", "y"]


async def test_a_folder_that_is_a_file_is_said(webdav: Server, source: Path) -> None:
    (webdav.root / "taken").write_text("?")
    store = WebdavStore(webdav_settings(webdav, folder="taken/below"), owner="one")
    with pytest.raises(SnapshotError, match="can't store object 'x' in http://127"):
        await store.put("x", source)


async def test_a_server_of_ones_own_is_trusted_by_its_authority_only(tmp_path: Path, source: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca")
    pair = authority.issue_cert("127.0.0.1")
    pair.private_key_pem.write_to_path(tmp_path / "key")
    pair.cert_chain_pems[0].write_to_path(tmp_path / "cert")
    (tmp_path / "server").mkdir()
    server = webdav_server(tmp_path / "server", str(tmp_path / "cert"), str(tmp_path / "key"))
    try:
        login = f"{LOGIN}:{quote(PASSWORD, safe='')}"
        plain = WebdavStoreSettings(url=Url(f"https://{login}@127.0.0.1:{server.port}/dav"))
        with pytest.raises(SnapshotError, match=r"not trusted.*snapshot\.webdav\.ca_file"):
            await WebdavStore(plain, owner="one").names()
        store = WebdavStore(replace(plain, ca_file=tmp_path / "ca"), owner="one")
        await store.put("x", source)
        assert await store.names() == ["x"]
    finally:
        server.stop()


def test_a_certificate_file_that_can_not_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    for name in ("absent", "empty"):
        settings = WebdavStoreSettings(url=Url("https://host/"), ca_file=tmp_path / name)
        with pytest.raises(ConfigError, match=rf"snapshot\.webdav\.ca_file .*{name} can't be read"):
            WebdavStore(settings, owner="one")
