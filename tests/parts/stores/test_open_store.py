"""Which store the configuration names, and what making one costs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harmonylite.config.secret_text import Url
from harmonylite.config.snapshot import (
    AzureStoreSettings,
    FileStoreSettings,
    S3StoreSettings,
    SftpStoreSettings,
    SnapshotSettings,
    WebdavStoreSettings,
)
from harmonylite.errors import ConfigError
from harmonylite.stores import open_store
from harmonylite.stores.azure import AzureStore
from harmonylite.stores.directory import DirectoryStore
from harmonylite.stores.s3 import S3Store
from harmonylite.stores.sftp import SftpStore
from harmonylite.stores.webdav import WebdavStore
from tests.parts.stores.fix_stores import Place


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        (lambda folder: SnapshotSettings(store="file", file=FileStoreSettings(path=folder)), DirectoryStore),
        (lambda _: SnapshotSettings(store="s3", s3=S3StoreSettings(bucket="shop")), S3Store),
        (
            lambda _: SnapshotSettings(store="azure", azure=AzureStoreSettings(account="shop", container="snaps")),
            AzureStore,
        ),
        (
            lambda _: SnapshotSettings(store="webdav", webdav=WebdavStoreSettings(url=Url("https://host/dav"))),
            WebdavStore,
        ),
        (lambda _: SnapshotSettings(store="sftp", sftp=SftpStoreSettings(url=Url("sftp://me@host/x"))), SftpStore),
    ],
)
async def test_the_store_is_the_one_that_is_configured(
    file_place: Place, tmp_path: Path, settings: Callable[[Path], SnapshotSettings], kind: type
) -> None:
    nats = await file_place.make()
    assert type(open_store(settings(tmp_path), owner="one", nats=nats)) is kind
    assert open_store(SnapshotSettings(), owner="one", nats=nats) is nats
    assert open_store(SnapshotSettings(enable=False, store="sftp"), owner="one", nats=nats) is nats


@pytest.mark.parametrize(("store", "package"), [("s3", "obstore"), ("webdav", "webdav4"), ("sftp", "asyncssh")])
async def test_a_missing_package_is_said_with_what_installs_it(
    file_place: Place, monkeypatch: pytest.MonkeyPatch, store: str, package: str
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == package or "harmonylite.stores." in name]:
        monkeypatch.delitem(sys.modules, name)

    class Absent:
        def find_spec(self, name: str, path: object = None, target: object = None) -> None:
            if name.partition(".")[0] == package:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])
    settings = SnapshotSettings.read({"store": store})
    with pytest.raises(ConfigError, match=rf"needs the package {package}.*pip install 'harmonylite\[{store}\]'"):
        open_store(settings, owner="one", nats=await file_place.make())


def test_nothing_is_imported_for_stores_that_are_not_used() -> None:
    code = (
        "import sys, harmonylite.stores, harmonylite.config; "
        "print(sorted({'obstore', 'asyncssh', 'webdav4', 'httpx'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.strip() == "[]"


def test_a_process_that_used_s3_ends_well(tmp_path: Path) -> None:
    """Its library, called the other way, brings about one process in ten down at its end."""
    code = """
import asyncio
from harmonylite.config.snapshot import S3StoreSettings
from harmonylite.errors import SnapshotError
from harmonylite.stores.s3 import S3Store
async def main():
    store = S3Store(S3StoreSettings(endpoint="127.0.0.1:9", bucket="shop", use_ssl=False, access_key="a"))
    for _ in range(2):
        task = asyncio.create_task(store.names())
        await asyncio.sleep(0.01)
        task.cancel()
asyncio.run(main())
"""
    running = [subprocess.Popen([sys.executable, "-c", code], env=os.environ) for _ in range(4)]
    assert [child.wait(60) for child in running] == [0, 0, 0, 0]
