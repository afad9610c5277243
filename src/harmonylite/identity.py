"""Which node this is, where its private files are, and that only one process runs for a database.

Invariant: a node id that was made here is used at one path on one machine only: a copied folder gets a new one. The
database file itself is never opened here.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
import pwd
import secrets
import socket
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Annotated, Literal, Self

import msgspec

from harmonylite.backoff import Backoff
from harmonylite.config import NODE_ID
from harmonylite.errors import ConfigError, ForeignError, HarmonyLiteError
from harmonylite.foreign import Codec

RECORD = "identity.json"
LOCK = "lock"
PRIVATE = "mirror"
"""Where the private folders of the nodes in one place are; it is itself private."""

ALPHABET = "abcdefghjkmnpqrstvwxyz23456789"
"""Letters and digits that can't be confused with each other."""

LENGTH = 12
"""Characters of a generated id: 59 random bits."""

MACHINE_ID = Path("/etc/machine-id")

# machine-id(5) asks for a keyed hash instead of the id itself wherever it may be seen by others.
APPLICATION = b"harmonylite node identity 1"

Origin = Literal["configured", "kept", "new", "copied"]


@dataclass(frozen=True, slots=True)
class Identity:
    """``node_id`` and where it comes from; ``note``: a sentence for the log, "" when there is nothing to say.

    ``former``: what this node was called before, "" when it has had one name only.
    """

    node_id: str
    origin: Origin
    note: str = ""
    former: str = ""


class Record(msgspec.Struct, frozen=True):
    """What is kept in `RECORD`: the id, fingerprints of where it belongs, and what the node was called before."""

    node_id: Annotated[str, msgspec.Meta(pattern=rf"\A{NODE_ID.pattern}\Z")]
    path: str
    machine: str
    former: str = ""


CODEC = Codec("the kept identity of the node", Record)


def folder_for(db_path: Path) -> Path:
    """Return the node's private folder for the database at ``db_path``; it need not exist."""
    return db_path.parent / PRIVATE / db_path.name


def nats_folder_for(db_path: Path) -> Path:
    """Return the folder of the embedded server's data for the database at ``db_path``; it need not exist."""
    return db_path.parent / "nats"


def identify(db_path: Path, configured: str = "") -> Identity:
    """Return this node's identity; make one where none is configured or kept, and keep it. Makes the private folder.

    :raises ConfigError: ``configured`` is not a node id.
    :raises HarmonyLiteError: the folder can't be written.
    """
    folder = make_folder(folder_for(db_path))
    if configured and not NODE_ID.fullmatch(configured):
        raise ConfigError(f"node_id = {configured!r} is not a node id", advice="use 1 to 64 letters, digits, - and _")
    here = Record("", _path_print(db_path), _machine_print())
    kept = _read(folder / RECORD)
    stays = kept is not None and (kept.path, kept.machine) == (here.path, here.machine)
    if configured:
        renamed = kept is not None and stays and kept.node_id != configured
        former = (kept.node_id if renamed else kept.former) if kept and stays else ""
        if kept != (record := msgspec.structs.replace(here, node_id=configured, former=former)):
            _write(folder / RECORD, record)
        said = f"node {former} is {configured} from now on, with the same files and streams" if renamed else ""
        return Identity(configured, "configured", said, former)
    if kept and stays:
        return Identity(kept.node_id, "kept", former=kept.former)
    made = Record(generate(), here.path, here.machine)
    _write(folder / RECORD, made)
    if kept is None:
        return Identity(made.node_id, "new", f"this node is {made.node_id} from now on; set node_id to choose a name")
    where = "path" if kept.path != here.path else "machine"
    return Identity(
        made.node_id,
        "copied",
        f"the files of node {kept.node_id} were copied to another {where}: this is {made.node_id} now, with streams of"
        f" its own; where they were moved, set node_id = {kept.node_id!r}",
    )


def kept_ids(db_path: Path) -> list[str]:
    """Return what the node of ``db_path`` was called here, the newest first; nothing when that is not known."""
    kept = _read(folder_for(db_path) / RECORD)
    if kept is None or (kept.path, kept.machine) != (_path_print(db_path), _machine_print()):
        return []
    return [name for name in (kept.node_id, kept.former) if name]


def fingerprint(db_path: Path) -> str:
    """Return a fingerprint of the database's path and the machine, which reveals neither."""
    return hashlib.sha256(f"{_path_print(db_path)} {_machine_print()}".encode()).hexdigest()[:32]


def generate() -> str:
    """Return a new random node id."""
    return "".join(secrets.choice(ALPHABET) for _ in range(LENGTH))


def make_folder(folder: Path) -> Path:
    """Make the private ``folder`` (see `folder_for`, `nats_folder_for`), open to its owner only; return it.

    :raises HarmonyLiteError: it can't be made, or another user could put files into it.
    """
    ours = [folder.parent, folder] if folder.parent.name == PRIVATE else [folder]
    try:
        for each in ours:
            each.mkdir(mode=0o700, exist_ok=True)
            must_be_ours(each)
    except OSError as error:
        raise HarmonyLiteError(
            f"can't make the folder {folder}: {error.strerror}", advice="the node writes beside its database"
        ) from error
    return folder


def must_be_ours(folder: Path) -> None:
    """Raise HarmonyLiteError where another user owns ``folder``, or a link of that name, or may write there: what the
    node finds there it takes for its own. Raises OSError.
    """
    link, found = folder.lstat(), folder.stat()
    me = os.geteuid()
    if other := {link.st_uid, found.st_uid} - {me}:
        name = _user(other.pop())
        raise HarmonyLiteError(
            f"the folder {folder} belongs to {name}, and this process runs as {_user(me)}",
            advice=f"run as {name}, or give the folder to this user",
        )
    if found.st_mode & 0o022:
        who = "everyone" if found.st_mode & 0o002 else "its group"
        raise HarmonyLiteError(
            f"the folder {folder} may be written by {who}: what is in it may be theirs", advice=f"chmod go-w {folder}"
        )


def _user(uid: int) -> str:
    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"user {uid}"


class Lock:
    """The right to run for one database; held until `close` or the end of the process, however it ends."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def close(self) -> None:
        """Release it. Safe to call twice. The file stays: removing it would race with the next process."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def acquire_lock(folder: Path) -> Lock:
    """Take the lock of the private ``folder``, without waiting.

    The lock is ``flock``'s, so the kernel frees it when the process is killed; child processes don't inherit it.

    :raises HarmonyLiteError: another process holds it, or the file can't be opened.
    """
    path = folder / LOCK
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise HarmonyLiteError(f"can't open {path}: {error.strerror}", advice="run as the node's user") from error
    try:
        _lock_alone(handle)
        os.ftruncate(handle, 0)
        with suppress(OSError):  # no room is left on the disk: the lock holds without its holder's name
            os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
    except BlockingIOError:
        named = _named(handle)
        os.close(handle)
        raise HarmonyLiteError(
            f"a node runs for {folder.name} already (process {named}, lock {path})",
            advice="stop it first; one node serves one database",
        ) from None
    except OSError as error:
        os.close(handle)
        raise HarmonyLiteError(f"can't lock {path}: {error.strerror}") from error
    return Lock(handle)


def holder(folder: Path) -> str | None:
    """Return the process that holds the lock of the private ``folder``, as it named itself; None when none does."""
    try:
        handle = os.open(folder / LOCK, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return _named(handle)
    finally:
        os.close(handle)
    return None


def _lock_alone(handle: int) -> None:
    """Lock for one process, once no other process asks (`holder`); raises BlockingIOError when another one has it."""
    backoff = Backoff(first=0.001, most=0.05)
    while True:
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            time.sleep(backoff.failed(time.monotonic()))


def _named(handle: int) -> str:
    return os.pread(handle, 32, 0).decode(errors="replace").strip() or "unknown"


def _path_print(db_path: Path) -> str:
    return hashlib.sha256(os.fsencode(db_path.resolve())).hexdigest()


def _machine_print() -> str:
    try:
        machine = MACHINE_ID.read_bytes().strip()
    except OSError:
        machine = b""
    machine = machine or socket.gethostname().encode()
    return hmac.new(machine, APPLICATION, hashlib.sha256).hexdigest()


def _read(path: Path) -> Record | None:
    """Return the stored record, None if there is none or it is damaged: then a new id does no harm."""
    try:
        return CODEC.decode(path.read_bytes())
    except (OSError, ForeignError):
        return None


def _write(path: Path, record: Record) -> None:
    """Write ``record`` durably and in one step: an id that was used must not be forgotten by a power cut."""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(CODEC.encode(record))
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise HarmonyLiteError(f"can't write {path}: {error.strerror}") from error
