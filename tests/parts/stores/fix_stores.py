"""Every store on a real server, in one form that the conformance suite runs against."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import pytest

from harmonylite.config.secret_text import Secret, Url
from harmonylite.config.snapshot import (
    AzureStoreSettings,
    S3StoreSettings,
    SftpStoreSettings,
    WebdavStoreSettings,
)
from harmonylite.jetstream.object_store import JetStreamObjects
from harmonylite.jetstream.settings import StreamSettings
from harmonylite.nats.link import NatsLink
from harmonylite.ports import Store
from harmonylite.status import NodeStatus
from harmonylite.stores.azure import AzureStore
from harmonylite.stores.directory import DirectoryStore
from harmonylite.stores.object_files import file_name
from harmonylite.stores.s3 import S3Store
from harmonylite.stores.sftp import SftpStore
from harmonylite.stores.webdav import WebdavStore
from tests.needs import AZURITE, MOUNTS, SSHD
from tests.parts.fix_nats import RealNats, quick
from tests.parts.stores.servers import (
    ACCOUNT,
    ACCOUNT_KEY,
    KEY,
    LOGIN,
    PASSWORD,
    SECRET,
    Server,
    azure_server,
    rclone_sftp_server,
    s3_server,
    seaweed_server,
    ssh_server,
    webdav_server,
)

MB = 1024 * 1024

Make = Callable[..., Awaitable[Store]]


@dataclass
class Place:
    """A store to test. ``make(owner=, port=, secret=, folder=)`` opens it; ``port``: its server's, 0 = it has none."""

    name: str
    make: Make
    port: int = 0
    disk: Path | None = None
    """The folder that holds the objects, where the tests can reach it."""

    def on_disk(self, name: str) -> Path:
        """Return the file of object ``name``."""
        assert self.disk is not None
        return self.disk / file_name(name)

    def lies_there(self) -> set[str]:
        """Return everything that lies in the folder: objects, and uploads that were left.

        Uploads to S3 are not there: what a broken one leaves is kept, and to be tidied, by the service itself.
        """
        found = self.disk.iterdir() if self.disk is not None else ()
        return {path.name for path in found if not path.name.startswith(".rclone_temp")}


@pytest.fixture(scope="session")
def s3_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running S3 server."""
    server = s3_server(tmp_path_factory.mktemp("s3"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Another running S3 server, by other people and of another kind."""
    server = seaweed_server(tmp_path_factory.mktemp("seaweed"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running server of Azure's blob storage, where somebody has installed it."""
    AZURITE.skip()
    server = azure_server(tmp_path_factory.mktemp("azurite"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def webdav(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running WebDAV server."""
    server = webdav_server(tmp_path_factory.mktemp("webdav"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def webdav_digest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running WebDAV server that takes digests only."""
    server = webdav_server(tmp_path_factory.mktemp("webdav-digest"), way="digest")
    yield server
    server.stop()


@pytest.fixture(scope="session")
def sftp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running SFTP server, which runs everywhere."""
    server = rclone_sftp_server(tmp_path_factory.mktemp("sftp"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running sshd, where the machine has one: the server that most people run."""
    SSHD.skip()
    MOUNTS.skip()
    server = ssh_server(tmp_path_factory.mktemp("ssh"))
    yield server
    server.stop()


def s3_settings(
    server: Server, *, port: int = 0, secret: str = SECRET, bucket: str = "bucket", path: str = ""
) -> S3StoreSettings:
    """Return the settings of a store on ``server``."""
    return S3StoreSettings(
        endpoint=f"127.0.0.1:{port or server.port}",
        bucket=bucket,
        path=path,
        use_ssl=False,
        access_key=KEY,
        secret=Secret(secret),
    )


def azure_settings(
    server: Server, *, port: int = 0, secret: str = ACCOUNT_KEY, container: str = "bucket", path: str = ""
) -> AzureStoreSettings:
    """Return the settings of a store on ``server``."""
    endpoint = f"127.0.0.1:{port or server.port}"
    key = Secret(secret)
    return AzureStoreSettings(
        endpoint=endpoint, account=ACCOUNT, container=container, path=path, use_ssl=False, account_key=key
    )


def webdav_settings(
    server: Server, *, port: int = 0, secret: str = PASSWORD, folder: str = "", root: str = "/dav"
) -> WebdavStoreSettings:
    """Return the settings of a store on ``server``."""
    query = f"dir=/{folder}&login={quote(LOGIN, safe='')}&secret={quote(secret, safe='')}"
    return WebdavStoreSettings(url=Url(f"http://127.0.0.1:{port or server.port}{root}?{query}"))


def sftp_settings(server: Server, *, port: int = 0, secret: str = PASSWORD, folder: str = "") -> SftpStoreSettings:
    """Return the settings of a store on ``server``, whose host key is known."""
    port = port or server.port
    key = (server.root.parent / "host.pub").read_text()
    known = server.root.parent / f"known_hosts_{port}"
    known.write_text(f"[127.0.0.1]:{port} {key}")
    url = f"sftp://{LOGIN}:{quote(secret, safe='')}@127.0.0.1:{port}{server.path}{folder}"
    return SftpStoreSettings(url=Url(url), known_hosts=known)


@pytest.fixture
def folder() -> str:
    """A folder that no other test uses."""
    return f"f-{secrets.token_hex(6)}"


@pytest.fixture
async def nats_place(new_nats: Callable[..., Awaitable[RealNats]], folder: str) -> AsyncIterator[Place]:
    """The NATS object store."""
    server = await new_nats()
    async with AsyncExitStack() as stack:

        async def make(*, owner: str = "one", port: int = 0) -> Store:
            url = f"nats://127.0.0.1:{port or server.port}"
            link = await stack.enter_async_context(NatsLink(quick(url), NodeStatus()))
            return JetStreamObjects(link, StreamSettings(), bucket=folder)

        yield Place("nats", make, server.port)


@pytest.fixture
def file_place(tmp_path: Path) -> Place:
    """A directory."""
    disk = tmp_path / "store"
    disk.mkdir()

    async def make(*, owner: str = "one", port: int = 0) -> Store:
        return DirectoryStore(disk, owner=owner)

    return Place("file", make, disk=disk)


@pytest.fixture
def s3_place(s3_api: Server, folder: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """A bucket, empty again after the test: the server walks through all of it for each list.

    What fails is tried as often as ever, with shorter waits between.
    """
    monkeypatch.setattr("harmonylite.stores.bucket.LONGEST_WAIT", timedelta(seconds=0.2))

    async def make(*, owner: str = "one", port: int = 0, secret: str = SECRET, bucket: str = "bucket") -> Store:
        return S3Store(s3_settings(s3_api, port=port, secret=secret, bucket=bucket, path=folder))

    disk = s3_api.root / "bucket" / folder
    yield Place("s3", make, s3_api.port, disk)
    shutil.rmtree(disk, ignore_errors=True)


@pytest.fixture
def seaweed_place(seaweed: Server, folder: str, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A folder of a bucket, on the other S3 server."""
    monkeypatch.setattr("harmonylite.stores.bucket.LONGEST_WAIT", timedelta(seconds=0.2))

    async def make(*, owner: str = "one", port: int = 0, secret: str = SECRET) -> Store:
        return S3Store(s3_settings(seaweed, port=port, secret=secret, path=folder))

    return Place("s3", make, seaweed.port)


@pytest.fixture
def azurite_place(azurite: Server, folder: str, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A folder of a container."""
    monkeypatch.setattr("harmonylite.stores.bucket.LONGEST_WAIT", timedelta(seconds=0.2))

    async def make(*, owner: str = "one", port: int = 0, secret: str = ACCOUNT_KEY) -> Store:
        return AzureStore(azure_settings(azurite, port=port, secret=secret, path=folder))

    return Place("azure", make, azurite.port)


@pytest.fixture
def webdav_place(webdav: Server, folder: str) -> Place:
    """A WebDAV folder, below one that is not there yet either."""

    async def make(*, owner: str = "one", port: int = 0, secret: str = PASSWORD, root: str = "/dav") -> Store:
        settings = webdav_settings(webdav, port=port, secret=secret, folder=f"new/{folder}", root=root)
        return WebdavStore(settings, owner=owner)

    return Place("webdav", make, webdav.port, webdav.root / "new" / folder)


@pytest.fixture
def webdav_digest_place(webdav_digest: Server, folder: str) -> Place:
    """The same where the login is a digest."""

    async def make(*, owner: str = "one", port: int = 0, secret: str = PASSWORD, root: str = "/dav") -> Store:
        settings = webdav_settings(webdav_digest, port=port, secret=secret, folder=f"new/{folder}", root=root)
        return WebdavStore(settings, owner=owner)

    return Place("webdav", make, webdav_digest.port, webdav_digest.root / "new" / folder)


def sftp_folder(server: Server, folder: str) -> Place:
    """Return an SFTP folder, below one that is not there yet either."""

    async def make(*, owner: str = "one", port: int = 0, secret: str = PASSWORD) -> Store:
        return SftpStore(sftp_settings(server, port=port, secret=secret, folder=f"new/{folder}"), owner=owner)

    return Place("sftp", make, server.port, server.root / "new" / folder)


@pytest.fixture
def sftp_place(sftp: Server, folder: str) -> Place:
    """An SFTP folder."""
    return sftp_folder(sftp, folder)


@pytest.fixture
def sshd_place(sshd: Server, folder: str) -> Place:
    """The same of OpenSSH's server."""
    return sftp_folder(sshd, folder)


@pytest.fixture(params=["sftp", "sshd"])
def ssh(request: pytest.FixtureRequest) -> Server:
    """Each of the servers that speak SFTP, in turn."""
    found: Server = request.getfixturevalue(request.param)
    return found


PLACES = ("nats", "file", "s3", "seaweed", "azurite", "webdav", "webdav_digest", "sftp", "sshd")


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> Place:
    """Each store in turn."""
    found: Place = request.getfixturevalue(f"{request.param}_place")
    return found


@pytest.fixture(params=[name for name in PLACES if name not in ("nats", "file")])
def remote(request: pytest.FixtureRequest) -> Place:
    """Each store that a connection of its own leads to, in turn."""
    found: Place = request.getfixturevalue(f"{request.param}_place")
    return found


@pytest.fixture(params=[name for name in PLACES if name not in ("nats", "file", "seaweed", "azurite")])
def reached(request: pytest.FixtureRequest) -> Place:
    """Each of those whose objects are files that a test can reach, in turn."""
    found: Place = request.getfixturevalue(f"{request.param}_place")
    return found


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 64 MB."""
    path = tmp_path_factory.mktemp("large") / "large"
    path.write_bytes(os.urandom(64 * MB))
    return path


@pytest.fixture(scope="session")
def medium(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 24 MB, enough for something to happen in the middle of it."""
    path = tmp_path_factory.mktemp("medium") / "medium"
    path.write_bytes(os.urandom(24 * MB))
    return path
