"""Files of the embedded server besides its configuration: its name, generated credentials, and its ports file.

Invariant: what holds a secret is readable by its owner alone from its first moment.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import msgspec

from harmonylite.errors import ForeignError
from harmonylite.foreign import Codec, Name

SERVER = "server.json"


class ServerFile(msgspec.Struct, frozen=True):
    """What a server's folder says of itself. ``name``: of the server within its cluster, whose votes and copies of
    streams go by it: it stays when the node is renamed. ``database``: fingerprint of the one that it belongs to.
    """

    name: Name
    database: str

    @classmethod
    def read(cls, folder: Path) -> ServerFile | None:
        """Return what ``folder`` says, None when it says nothing."""
        try:
            return FILE.decode((folder / SERVER).read_bytes())
        except (OSError, ForeignError):
            return None

    @classmethod
    def claim(cls, folder: Path, database: str) -> str:
        """Write down that ``folder`` belongs to ``database``, and return the server's name.

        That is first the folder's, which is the node's: a node that lost its disk comes back as the server that its
        cluster knows.
        """
        found = cls.read(folder)
        if found is None or found.database != database:
            found = cls(found.name if found is not None else folder.name, database)
            write_private(folder / SERVER, FILE.encode(found).decode())
        return found.name


class _Login(msgspec.Struct):
    """User and password of the embedded server."""

    user: str
    password: str


FILE = Codec("what the embedded server's folder says of itself", ServerFile)
LOGIN = Codec("the login of the embedded server", _Login)
PORTS = Codec("the ports of the embedded server", dict[str, list[str]])


def generated(path: Path) -> tuple[str, str]:
    """Return user and password kept in ``path``, made on first use."""
    found = kept(path)
    if found is not None:
        return found
    made = _Login("harmonylite", secrets.token_urlsafe(32))
    write_private(path, LOGIN.encode(made).decode())
    return made.user, made.password


def kept(path: Path) -> tuple[str, str] | None:
    """Return user and password kept in ``path``, None when it holds none."""
    try:
        found = LOGIN.decode(path.read_bytes())
    except (OSError, ForeignError):
        return None
    return found.user, found.password


def write_private(path: Path, text: str) -> None:
    """Write ``path`` whole, readable by its owner alone from its first moment."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    temporary.replace(path)


def ports_of(folder: Path, pid: int) -> dict[str, list[str]]:
    """Return the URLs that the server ``pid`` wrote down, by kind; {} when it has not yet."""
    for path in folder.glob(f"*_{pid}.ports"):
        try:
            return PORTS.decode(path.read_bytes())
        except (OSError, ForeignError):
            return {}
    return {}


def client_port(ports: dict[str, list[str]]) -> int:
    """Return the port for clients among `ports_of`, 0 when it is not there."""
    return int((ports.get("nats") or ["nats:0"])[0].rpartition(":")[2])
