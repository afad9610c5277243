"""Real servers that keep files for the stores, each in a mount namespace of its own where the tests may mount.

There it has a file system of a few megabytes at ``full``, and sshd has users of its own: nothing of the machine is
changed. All but sshd come from packages of the development requirements.
"""

from __future__ import annotations

import base64
import hmac
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from email.utils import formatdate
from http.client import HTTPConnection
from pathlib import Path

import asyncssh

from tests.needs import AZURITE, MOUNTS
from tests.ports import free_ports

PATIENCE = 60.0
FULL_BYTES = 3 * 1024 * 1024
KEY, SECRET = "AKIDHARMONY", "s3cr3t-of-the-bucket"
ACCOUNT, ACCOUNT_KEY = "harmony", base64.b64encode(b"k3y-of-the-storage-account" * 2).decode()
LOGIN, PASSWORD = "snapshots", "p/w+d&%40 f#r:dav@sftp"
# openssl passwd -6, for PASSWORD
HASHED = "$6$harmony$Sv/R4avg8FhvU1SKZOO7b9uNmxRGoAKrpEkA41W1VQfwrGjX.CRnWRhGduYVTWJNWiTySuGYNeg1OxOi6gyq20"
UID = 12345

# $1: the server's tree. sshd's user must reach it, and pytest's folders are closed to others: hence /srv.
MOUNT = f"""
set -e
mount -t tmpfs -o size={FULL_BYTES},mode=0777 tmpfs "$1/full"
"""
MOUNT_SSH = f"""
mount --bind "$1" /srv
mount -t tmpfs -o size={FULL_BYTES},mode=0777 tmpfs /srv/full
mount -t tmpfs tmpfs /run && mkdir -p /run/sshd
mount --bind "$1/../passwd" /etc/passwd
mount --bind "$1/../shadow" /etc/shadow
"""


class Server:
    """A running server. ``root``: the folder that it serves, ``path``: where clients find it; ``port``: its own.

    ``leaves``: what it leaves elsewhere, which goes when it is stopped. ``more``: of its environment.
    """

    def __init__(
        self,
        root: Path,
        command: list[str],
        *,
        log: Path,
        mount: str = MOUNT,
        leaves: Sequence[Path] = (),
        path: str = "/",
        more: Mapping[str, str] | None = None,
    ) -> None:
        self.root = root
        self.path = path
        self.leaves = leaves
        self.port = 0
        self.log = log
        if not MOUNTS.missing:
            command = ["unshare", "-m", "--", "sh", "-c", f'{mount}\nshift; exec "$@"', "sh", str(root), *command]
        # It ends with the tests, whatever ends those.
        if shutil.which("setpriv"):
            command = ["setpriv", "--pdeathsig", "KILL", *command]
        with log.open("wb") as out:
            self._child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env={**os.environ, **(more or {})}
            )

    def wait(self, ready: Callable[[], int]) -> None:
        """Wait until ``ready`` gives the port (0 = not yet)."""
        end = time.monotonic() + PATIENCE
        while not (port := ready()):
            assert self._child.poll() is None, f"it ended: {self.log.read_text()}"
            assert time.monotonic() < end, f"it did not start: {self.log.read_text()}"
            threading.Event().wait(0.02)  # nothing tells when a child has written a line
        self.port = port

    def said_port(self, pattern: str) -> int:
        """Return the port in its log, 0 when it is not there yet."""
        found = re.search(rf"{pattern}\D", self.log.read_text())  # the line may be half written
        return int(found[1]) if found else 0

    def stop(self) -> None:
        """End it."""
        self._child.kill()
        self._child.wait()
        for path in self.leaves:
            path.unlink(missing_ok=True)


def tree(folder: Path, *below: str) -> Path:
    """Make the folder to serve, with what is below it."""
    root = folder / "root"
    for name in ("full", *below):
        (root / name).mkdir(parents=True)
    return root


def azure_server(folder: Path) -> Server:
    """Start Azurite, which checks the signature of each request; it has a container called ``bucket``."""
    root = tree(folder)
    program = [*AZURITE.found, "--blobHost", "127.0.0.1", "--blobPort", "0", "--location", str(root)]
    more = {"AZURITE_ACCOUNTS": f"{ACCOUNT}:{ACCOUNT_KEY}"}
    server = Server(root, [*program, "--skipApiVersionCheck", "--disableTelemetry"], log=folder / "log", more=more)
    server.wait(lambda: server.said_port(r"successfully listens on http://127.0.0.1:(\d+)"))
    _make_container(server.port)
    return server


def _make_container(port: int) -> None:
    """Make the container, by a request that is signed as Azure wants it (Authorize with Shared Key)."""
    headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
    named = "".join(f"{name}:{value}\n" for name, value in sorted(headers.items()))
    signed = "PUT" + "\n" * 12 + f"{named}/{ACCOUNT}/{ACCOUNT}/bucket\nrestype:container"
    digest = hmac.digest(base64.b64decode(ACCOUNT_KEY), signed.encode(), "sha256")
    headers["Authorization"] = f"SharedKey {ACCOUNT}:{base64.b64encode(digest).decode()}"
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    connection.request("PUT", f"/{ACCOUNT}/bucket?restype=container", headers=headers)
    answer = connection.getresponse()
    assert answer.status == 201, answer.read()
    connection.close()


def s3_server(folder: Path, *tls: str) -> Server:
    """Start rclone's S3 server over a folder: its folders are buckets."""
    program = Path(sysconfig.get_path("scripts")) / "rclone"
    command = [str(program), "serve", "s3", str(root := tree(folder, "bucket")), "--addr", "127.0.0.1:0"]
    # Hardly any cache: the tests look at the files behind its back, and alter them. None at all makes it spin.
    command += ["--auth-key", f"{KEY},{SECRET}", "--config", "/dev/null", "--dir-cache-time", "1ms", "--etag-hash", ""]
    command += ["--low-level-retries", "1", "--retries", "1"]
    if tls:
        command += ["--cert", tls[0], "--key", tls[1]]
    server = Server(root, command, log=folder / "log")
    server.wait(lambda: server.said_port(r"Starting s3 server on \[https?://127\.0\.0\.1:(\d+)"))
    return server


def seaweed_server(folder: Path) -> Server:
    """Start SeaweedFS, an S3 service with chunks of its own on the disk, that compares and sets; it has one bucket."""
    program = Path(sysconfig.get_path("scripts")) / "weed"
    ids = folder / "ids.json"
    who = {"name": "tests", "credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": ["Admin"]}
    ids.write_text(json.dumps({"identities": [who]}))
    parts = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc")
    ports = dict(zip((*parts, "s3.port", "s3.port.grpc"), free_ports(8), strict=True))
    command = [str(program), f"-logdir={folder}", "server", f"-dir={(root := tree(folder))}"]
    command += ["-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    command += ["-filer", "-s3", f"-s3.config={ids}", "-s3.iam=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    command += ["-master.volumeSizeLimitMB=256", "-volume.max=20", "-master.telemetry=false"]
    # Its parts talk over sockets with these names, and no option moves all of them.
    leaves = [
        Path(f"/tmp/seaweedfs-{part}-{port}.sock")
        for port in ports.values()
        for part in ("filer", "s3", "master-grpc", "volume-grpc", "filer-grpc", "s3-grpc")
    ]
    command += [f"-{name}={port}" for name, port in ports.items()]
    server = Server(root, command, log=folder / "log", leaves=leaves)
    filer, api = ports["filer.port"], ports["s3.port"]
    # A bucket is a folder of the filer's; what is stored in it needs a volume, which is made for the first file.
    steps = [("PUT", filer, "/buckets/bucket/ready", 201), ("GET", api, "/", 403)]
    server.wait(lambda: api if all(_answers(*step) for step in steps) else 0)
    return server


def _answers(method: str, port: int, path: str, status: int) -> bool:
    """Return whether what listens there answers a request with ``status``."""
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request(method, path, body=b"x" if method == "PUT" else None)
        return connection.getresponse().status == status
    except OSError:
        return False
    finally:
        connection.close()


def webdav_server(folder: Path, *tls: str, way: str = "basic") -> Server:
    """Start wsgidav. ``way``: the one login that it takes, basic or digest."""
    program = str(Path(__file__).with_name("webdav_server.py"))
    server = Server(
        root := tree(folder), [sys.executable, program, str(root), LOGIN, PASSWORD, way, *tls], log=folder / "log"
    )
    server.wait(lambda: server.said_port(r"listening on port (\d+)"))
    return server


def make_keys(folder: Path) -> Path:
    """Make a server's key ``host``, two keys of users that it takes, ``user`` and ``locked``; return the latter's file.

    ``locked`` is encrypted with `PASSWORD`.
    """
    for name in ("host", "user", "locked"):
        key = asyncssh.generate_private_key("ssh-ed25519", comment="test")
        key.write_private_key(folder / name, passphrase=PASSWORD if name == "locked" else None)
        (folder / name).chmod(0o600)
        key.write_public_key(folder / f"{name}.pub")
    keys = folder / "keys"
    keys.write_text((folder / "user.pub").read_text() + (folder / "locked.pub").read_text())
    return keys


def rclone_sftp_server(folder: Path) -> Server:
    """Start rclone's SFTP server; `make_keys` says which keys it takes. The root of its paths is ``root``."""
    program = Path(sysconfig.get_path("scripts")) / "rclone"
    keys, root = make_keys(folder), tree(folder)
    command = [str(program), "serve", "sftp", str(root), "--addr", "127.0.0.1:0", "--key", str(folder / "host")]
    command += ["--authorized-keys", str(keys), "--config", "/dev/null", "--dir-cache-time", "1ms"]
    login = {"RCLONE_USER": LOGIN, "RCLONE_PASS": PASSWORD}
    server = Server(root, command, log=folder / "log", more=login)
    server.wait(lambda: server.said_port(r"SFTP server listening on 127\.0\.0\.1:(\d+)"))
    return server


def ssh_server(folder: Path) -> Server:
    """Start OpenSSH's server; `make_keys` says which keys it takes. Its user's folder is ``root``, at /srv."""
    program = shutil.which("sshd")  # it insists on its whole path
    assert program
    keys, root = make_keys(folder), tree(folder, "locked")
    os.chown(root, UID, UID)
    (root / "locked").chmod(0o700)
    user = f"{LOGIN}:x:{UID}:{UID}::/srv:/bin/sh\n"
    (folder / "passwd").write_text(Path("/etc/passwd").read_text() + user)
    (folder / "shadow").write_text(Path("/etc/shadow").read_text() + f"{LOGIN}:{HASHED}:19000::::::\n")
    shutil.copy(keys, root / "keys")
    settings = {
        "HostKey": folder / "host",
        "AuthorizedKeysFile": "/srv/keys",
        "StrictModes": "no",
        "UsePAM": "no",
        "PidFile": "none",
        "ListenAddress": "127.0.0.1",
        "Subsystem": "sftp internal-sftp",
        "PasswordAuthentication": "yes",
        "MaxStartups": "100",
        "LogLevel": "VERBOSE",
    }
    config = folder / "config"
    config.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    (port,) = free_ports(1)
    command = [program, "-D", "-e", "-f", str(config), "-p", str(port)]
    server = Server(root, command, log=folder / "log", mount=MOUNT_SSH, path="/srv/")
    server.wait(lambda: server.said_port(r"Server listening on 127\.0\.0\.1 port (\d+)"))
    return server
