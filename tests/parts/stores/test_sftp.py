"""SFTP: who is trusted, and how a node logs in, against rclone's server, and OpenSSH's where there is one."""

from __future__ import annotations

import asyncio
import gc
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from harmonylite.config.secret_text import Secret, Url
from harmonylite.config.snapshot import SftpStoreSettings
from harmonylite.errors import SnapshotError
from harmonylite.stores.sftp import SftpStore
from tests.parts.fix_nats import eventually
from tests.parts.stores.fix_stores import MB, sftp_settings
from tests.parts.stores.line import Line
from tests.parts.stores.servers import LOGIN, PASSWORD, Server


def opened(settings: SftpStoreSettings, **changes: Any) -> SftpStore:
    return SftpStore(replace(settings, **changes), owner="one")


async def test_an_unknown_host_is_refused_with_the_line_that_would_let_it_in(ssh: Server, tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    known.write_text(f"# not this one\nother.example {other}")
    store = opened(sftp_settings(ssh), known_hosts=known)
    with pytest.raises(SnapshotError, match=r"its host key is not in .*known_hosts") as caught:
        await store.names()
    fingerprint = asyncssh.read_public_key(str(ssh.root.parent / "host.pub")).get_fingerprint()
    assert fingerprint in caught.value.message
    known.write_text(known.read_text() + caught.value.advice.partition("add this line: ")[2] + "\n")
    assert isinstance(await store.names(), list)
    assert PASSWORD not in (ssh.log.read_text())


async def test_a_host_whose_key_has_changed_is_refused(ssh: Server, tmp_path: Path) -> None:
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    known = tmp_path / "known_hosts"
    known.write_text(f"[127.0.0.1]:{ssh.port} {other}")
    with pytest.raises(SnapshotError, match=r"shows another host key.*an attacker may be in between"):
        await opened(sftp_settings(ssh), known_hosts=known).names()


async def test_a_server_that_is_not_trusted_gets_no_password(tmp_path: Path) -> None:
    """PITFALLS 34: any host key was accepted, so anyone who answered got the password."""
    passwords: list[str] = []
    connected: list[asyncssh.SSHServer] = []

    class Impostor(asyncssh.SSHServer):
        def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
            connected.append(self)

        def connection_lost(self, exc: Exception | None) -> None:
            connected.remove(self)

        def begin_auth(self, username: str) -> bool:
            passwords.append(username)
            return True

        def password_auth_supported(self) -> bool:
            return True

        def validate_password(self, username: str, password: str) -> bool:
            passwords.append(password)
            return True

    key = asyncssh.generate_private_key("ssh-ed25519")
    async with await asyncssh.listen("127.0.0.1", 0, server_factory=Impostor, server_host_keys=[key]) as server:
        url = Url(f"sftp://name:pass-word@127.0.0.1:{server.get_port()}/x")
        for known in ("", f"[127.0.0.1]:1 {key.export_public_key().decode()}"):
            (tmp_path / "known_hosts").write_text(known)
            with pytest.raises(SnapshotError, match="host key"):
                await opened(SftpStoreSettings(url=url, known_hosts=tmp_path / "known_hosts")).names()
        await eventually(lambda: not connected, "the end of each connection")
    assert passwords == []


@pytest.mark.parametrize(("key", "passphrase"), [("user", ""), ("locked", PASSWORD)])
async def test_a_key_logs_in_without_a_password(ssh: Server, tmp_path: Path, key: str, passphrase: str) -> None:
    url = Url(f"sftp://{LOGIN}@127.0.0.1:{ssh.port}/~/by-key-{key}")
    file = ssh.root.parent / key
    store = opened(sftp_settings(ssh), url=url, key_file=file, key_passphrase=Secret(passphrase))
    (tmp_path / "source").write_bytes(b"1")
    await store.put("x", tmp_path / "source")
    assert await store.names() == ["x"]
    assert (ssh.root / f"by-key-{key}" / "x").read_bytes() == b"1", "~ is the user's own folder"


async def test_a_key_that_is_not_let_in_or_can_not_be_opened_is_said(ssh: Server, tmp_path: Path) -> None:
    url = Url(f"sftp://{LOGIN}@127.0.0.1:{ssh.port}/x")
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(tmp_path / "stranger")
    with pytest.raises(SnapshotError, match=r"the login is refused.*key_file in \[snapshot\.sftp\]"):
        await opened(sftp_settings(ssh), url=url, key_file=tmp_path / "stranger").names()
    for passphrase in ("", "wrong-one"):
        store = opened(
            sftp_settings(ssh), url=url, key_file=ssh.root.parent / "locked", key_passphrase=Secret(passphrase)
        )
        with pytest.raises(SnapshotError, match=r"the key file can't be used.*key_passphrase") as caught:
            await store.names()
        assert "wrong-one" not in str(caught.value)


async def test_a_server_that_is_not_there_is_said(ssh: Server) -> None:
    with pytest.raises(SnapshotError, match=r"sftp 127\.0\.0\.1:9"):
        await SftpStore(sftp_settings(ssh, port=9), owner="one").names()
    url = Url("sftp://name:word@nowhere.invalid/x")
    with pytest.raises(SnapshotError, match=r"nowhere\.invalid"):
        await opened(sftp_settings(ssh), url=url).names()


async def test_a_server_that_takes_the_call_and_says_nothing_is_given_up(
    ssh: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harmonylite.stores.sftp.CONNECT_SECONDS", 0.5)
    async with Line(ssh.port) as line:
        line.sticks_after = 0
        with pytest.raises(SnapshotError, match=r"no answer within 0\.5 s|timeout"):
            await SftpStore(sftp_settings(ssh, port=line.port), owner="one").names()


async def test_a_known_hosts_file_that_can_not_be_understood_is_said(ssh: Server, tmp_path: Path) -> None:
    (tmp_path / "known_hosts").write_text("@nonsense * x y\n")
    with pytest.raises(SnapshotError, match="known_hosts can't be understood"):
        await opened(sftp_settings(ssh), known_hosts=tmp_path / "known_hosts").names()


async def test_an_upload_that_breaks_leaves_no_error_that_nobody_collects(
    ssh: Server, medium: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The library's own copying left one in the log for each request on its way."""
    async with Line(ssh.port) as line:
        line.breaks_after = 4 * MB
        with pytest.raises(SnapshotError):
            await SftpStore(sftp_settings(ssh, port=line.port, folder="x"), owner="one").put("x", medium)
    await asyncio.sleep(0)
    gc.collect()
    assert "never retrieved" not in caplog.text
