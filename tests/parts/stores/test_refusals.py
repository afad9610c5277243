"""What a store says when it can't: wrong credentials, nothing there, no room; and that no secret is in it."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import subprocess
import sys
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from harmonylite.errors import ObjectMissingError, SnapshotError
from harmonylite.jetstream.object_store import JetStreamObjects
from harmonylite.jetstream.settings import StreamSettings
from harmonylite.nats.link import NatsLink
from harmonylite.ports import Store
from harmonylite.status import NodeStatus
from harmonylite.stores.directory import DirectoryStore
from harmonylite.stores.s3 import S3Store
from harmonylite.stores.sftp import SftpStore
from harmonylite.stores.webdav import WebdavStore
from tests.needs import MOUNTS
from tests.parts.fix_nats import RealNats, quick
from tests.parts.stores.fix_stores import MB, Place, s3_settings, sftp_settings, webdav_settings
from tests.parts.stores.line import Line
from tests.parts.stores.servers import PASSWORD, SECRET, Server

pytestmark = pytest.mark.timeout(300)

WRONG = "wr0ng-s3cr3t/%+"


def operations(store: Store, folder: Path) -> list[Callable[[], Awaitable[object]]]:
    """Return everything that a store can be asked for."""
    source = folder / "source"
    source.write_bytes(b"1")
    return [
        lambda: store.put("x", source),
        lambda: store.get("x", folder / "copy"),
        lambda: store.delete("x"),
        store.names,
    ]


async def refusals(store: Store, folder: Path) -> list[SnapshotError]:
    """Return the errors of everything that the store can be asked for: all of it fails."""
    found = []
    for operation in operations(store, folder):
        with pytest.raises(SnapshotError) as caught:
            await operation()
        found.append(caught.value)
    return found


ADVICE = {"s3": "snapshot.s3.secret", "webdav": "login and secret", "sftp": "password"}


async def test_wrong_credentials_are_said_and_never_shown(
    remote: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    store = await remote.make(secret=WRONG)
    for error in await refusals(store, tmp_path):
        assert not isinstance(error, ObjectMissingError)
        assert ADVICE[remote.name] in error.advice
        shown = "".join(traceback.format_exception(error)) + repr(error)
        assert WRONG not in shown
        assert WRONG not in caplog.text


async def test_what_works_and_what_breaks_shows_no_secret(
    remote: Place, tmp_path: Path, medium: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    shown = ""
    async with Line(remote.port) as line:
        store = await remote.make(port=line.port)
        for operation in operations(store, tmp_path):
            await operation()
        line.heal()
        line.breaks_after = MB
        with pytest.raises(SnapshotError) as caught:
            await store.put("y", medium)
        shown = "".join(traceback.format_exception(caught.value)) + repr(vars(store))
    printed = capfd.readouterr()
    for text in (shown, caplog.text, printed.out, printed.err):
        for secret in (SECRET, PASSWORD, "p%2Fw%2Bd"):
            assert secret not in text


async def test_a_missing_bucket_is_said_and_not_made(s3_api: Server, tmp_path: Path) -> None:
    for error in await refusals(S3Store(s3_settings(s3_api, bucket="absent")), tmp_path):
        assert not isinstance(error, ObjectMissingError)
        assert "NoSuchBucket" in error.message
        assert "make the bucket" in error.advice
    assert not (s3_api.root / "absent").exists()


async def test_a_url_that_leads_to_no_webdav_is_said(webdav: Server, tmp_path: Path) -> None:
    store = WebdavStore(webdav_settings(webdav, root="/elsewhere", folder="x"), owner="one")
    source = tmp_path / "source"
    source.write_bytes(b"1")
    for operation in (lambda: store.put("x", source), store.names):
        with pytest.raises(SnapshotError, match=r"snapshot\.webdav\.url"):
            await operation()


async def test_a_folder_that_the_user_may_not_write_is_said(sshd: Server, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"1")
    for folder in ("locked", "locked/below"):
        store = SftpStore(sftp_settings(sshd, folder=folder), owner="one")
        with pytest.raises(SnapshotError, match="Permission denied; let this user read and write in that folder"):
            await store.put("x", source)


async def test_a_directory_that_is_not_there_is_never_made(tmp_path: Path) -> None:
    """A mount that is missing must not be filled behind its back."""
    for error in await refusals(DirectoryStore(tmp_path / "unmounted", owner="one"), tmp_path):
        assert "mount or make it" in error.advice
    assert not (tmp_path / "unmounted").exists()


def full_s3(server: Server) -> Store:
    return S3Store(s3_settings(server, bucket="full"))


def full_webdav(server: Server) -> Store:
    return WebdavStore(webdav_settings(server, folder="full"), owner="one")


def full_sftp(server: Server) -> Store:
    return SftpStore(sftp_settings(server, folder="full"), owner="one")


@MOUNTS.mark
@pytest.mark.parametrize(
    ("server", "make"), [("s3_api", full_s3), ("webdav", full_webdav), ("sftp", full_sftp), ("sshd", full_sftp)]
)
async def test_a_full_disk_is_said_and_what_was_there_stays(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    server: str,
    make: Callable[[Server], Store],
) -> None:
    monkeypatch.setattr("harmonylite.stores.bucket.RETRIES", 0)
    store = make(request.getfixturevalue(server))
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(os.urandom(1000))
    large.write_bytes(os.urandom(4 * MB))
    await store.put("small", small)
    for name in ("large", "small"):
        with pytest.raises(SnapshotError, match=f"can't store object '{name}'"):
            await store.put(name, large)
    assert await store.names() == ["small"]
    await store.get("small", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == small.read_bytes()
    await store.put("again", small)
    assert await store.names() == ["again", "small"]


FULL_DIRECTORY = """
import asyncio, sys
from pathlib import Path
from harmonylite.errors import SnapshotError
from harmonylite.stores.directory import DirectoryStore

async def main(folder, large, small):
    store = DirectoryStore(folder, owner="one")
    await store.put("small", small)
    try:
        await store.put("large", large)
    except SnapshotError as error:
        print(error.advice)
    print(await store.names(), len(list(folder.iterdir())))

asyncio.run(main(*map(Path, sys.argv[1:])))
"""


@MOUNTS.mark
def test_a_full_directory_is_said_and_what_was_there_stays(tmp_path: Path) -> None:
    folder, large, small = tmp_path / "folder", tmp_path / "large", tmp_path / "small"
    folder.mkdir()
    small.write_bytes(b"1")
    large.write_bytes(os.urandom(3 * MB))
    mounted = 'mount -t tmpfs -o size=2m tmpfs "$1"; exec "$0" -c "$2" "$1" "$3" "$4"'
    given = (mounted, sys.executable, str(folder), FULL_DIRECTORY, str(large), str(small))
    command = ["unshare", "-m", "sh", "-c", *given]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines() == [
        "make room there, or let fewer snapshots stay (snapshot.keep)",
        "['small'] 1",
    ]
    assert shutil.disk_usage(folder).total > 10 * MB, "the mount was the child's alone"


async def test_a_full_nats_server_is_said_and_what_was_there_stays(
    new_nats: Callable[..., Awaitable[RealNats]], tmp_path: Path
) -> None:
    server = await new_nats(jetstream="max_file_store: 4MB")
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(b"1")
    large.write_bytes(os.urandom(6 * MB))
    async with NatsLink(quick(server.url), NodeStatus()) as link:
        store = JetStreamObjects(link, StreamSettings())
        await store.put("small", small)
        async with asyncio.timeout(60):
            with pytest.raises(SnapshotError):
                await store.put("large", large)
        assert await store.names() == ["small"]
        await store.get("small", tmp_path / "copy")
