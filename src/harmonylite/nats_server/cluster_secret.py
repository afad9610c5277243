"""What the embedded servers of one cluster ask of each other at their route ports: the cluster's secret.

Invariant: a secret is made once, whole, and readable by its owner alone from its first moment; of nodes that start at
the same moment one makes it and all read that one. It is in files only, never in arguments, logs or errors.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from harmonylite.errors import ConfigError
from harmonylite.nats_server.settings import EmbeddedSettings
from harmonylite.wire import token

USER = "harmonylite"

MOST_BYTES = 4096
"""Longest file that is read as a secret."""

LEAST = 16
"""Fewest characters of a secret: one that is shorter was cut off, or can be guessed."""

ADVICE = "give every node of the cluster the same file with -cluster-secret-file (cluster_secret_file in [nats])"

_USERINFO = re.compile(r"://([^/@\s]*)@")


@dataclass(frozen=True, slots=True)
class RouteLogin:
    """What routes log in with. ``source``: where that comes from, for messages. ``found``: it is not configured."""

    user: str
    password: str = field(repr=False)
    source: str = ""
    found: bool = False


def route_login(settings: EmbeddedSettings) -> RouteLogin | None:
    """Return the credentials that this server requires of routes, and presents; None for a server alone, or open
    because the configuration insists.

    The first that is set counts: the secret's file, user and password, those in the addresses of the peers where they
    are all the same, and else a secret that all nodes of this user on this machine find.

    :raises ConfigError: the file can't be read, made, or used as a secret.
    """
    if not settings.cluster_addr:
        return None
    if settings.cluster_secret_file is not None:
        path = settings.cluster_secret_file
        return RouteLogin(USER, secret_in(path), f"cluster secret {path}")
    if settings.user:
        return RouteLogin(settings.user, settings.password, "user_name and user_password")
    named = {found[1] for peer in settings.cluster_peers if (found := _USERINFO.search(peer))}
    if len(named) == 1:
        user, _, password = named.pop().partition(":")
        return RouteLogin(unquote(user), unquote(password), "user and password in cluster_peers")
    if settings.insecure:
        return None
    path = users_file(settings.cluster_name)
    return RouteLogin(USER, secret_in(path, own=True), f"cluster secret {path}", found=True)


def users_file(cluster_name: str) -> Path:
    """Return where the secret of this user's cluster of that name is kept; its folder exists, and is the user's alone.

    :raises ConfigError: there is no such folder and it can't be made.
    """
    try:
        named = os.environ.get("XDG_STATE_HOME", "")
        state = Path(named) if Path(named).is_absolute() else Path.home() / ".local" / "state"
        folder = state / "harmonylite"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except (OSError, RuntimeError) as error:  # RuntimeError: this user has no home
        raise ConfigError(f"there is no place for the cluster's secret: {error}", advice=ADVICE) from None
    _check_owner(folder, folder.stat())
    return folder / f"cluster-{token(cluster_name)}.secret"


def secret_in(path: Path, *, own: bool = False) -> str:
    """Return the secret in ``path``, made there where it is missing. ``own``: the file must be this user's alone.

    :raises ConfigError: it can't be read or made, or holds no secret.
    """
    try:
        if not path.exists():
            _make(path)
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | (os.O_NOFOLLOW if own else 0))
        with os.fdopen(handle, "rb") as file:
            about, content = os.fstat(handle), file.read(MOST_BYTES)
    except OSError as error:
        raise ConfigError(f"cluster secret {path}: {error.strerror}", advice=ADVICE) from None
    if own:
        _check_owner(path, about)
    elif about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigError(f"cluster secret {path} can be changed by others", advice=f"chmod 600 {path}")
    text = content.strip()
    if len(text) < LEAST or not text.isascii() or not text.decode("ascii").isprintable() or b" " in text:
        raise ConfigError(
            f"cluster secret {path} holds no secret",
            advice=f"it is one line of {LEAST} or more printable ASCII characters; remove the file and a node makes it",
        )
    return text.decode("ascii")


def _make(path: Path) -> None:
    """Make the file, unless another process does so at the same moment: a link is made whole, and only once."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(f"{secrets.token_urlsafe(32)}\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            Path(path).hardlink_to(name)
        except FileExistsError:
            return
    finally:
        Path(name).unlink(missing_ok=True)


def _check_owner(path: Path, about: os.stat_result) -> None:
    if about.st_uid != os.geteuid() or about.st_mode & 0o077:
        raise ConfigError(
            f"{path} is not this user's alone, so the cluster's secret in it is worth nothing",
            advice=f"chown it to the node's user and chmod go-rwx, or {ADVICE}",
        )


class Refusals:
    """Reads from the server's log that routes are refused, and says why in one sentence. ``source``: see `RouteLogin`.

    Invariant: the sentence counts while refusals come in, which the server's own tries see to each second or so.
    """

    SECONDS = 15.0
    """How long a refusal counts after its log line."""

    _OURS = re.compile(r"(?P<where>\S+) - rid:\d+ - Route Error '(?:Authorization|Authentication) ")
    _TWIN = re.compile(r"(?P<where>\S+) - rid:\d+ - Remote server has a duplicate name")
    _THEIRS = re.compile(r"\S+ - rid:\d+ - authentication error")

    def __init__(self) -> None:
        self.source = ""
        self._where = ""
        self._twin = ""
        self._until = 0.0

    def note_line(self, line: str, now: float) -> bool:
        """Return whether ``line`` of the server's log, read at ``now``, is about a refused route."""
        ours, twin = self._OURS.match(line), self._TWIN.match(line)
        if ours is None and twin is None and not self._THEIRS.match(line):
            return False
        self._where = ours["where"] if ours else self._where if self.said(now) else ""
        self._twin = twin["where"] if twin else ""
        self._until = now + self.SECONDS
        return True

    def said(self, now: float) -> str:
        """Return why other servers are not linked, "" if no route was refused recently."""
        if now >= self._until:
            return ""
        if self._twin:
            return (
                f"the server at {self._twin} has the same name as this one: a node runs twice or its files were copied;"
                " stop one of the two, and give it a node_id and a folder of its own"
            )
        what = f"the server at {self._where} refuses this node" if self._where else "another server is refused here"
        return f"{what}: they differ in the cluster's credentials (here: {self.source}); {ADVICE}"
