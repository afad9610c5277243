"""Access rights of files: a database's replacement has its mode, owner and group, and no copy of it has wider ones.

Invariant: a file has its rights before its first byte. If this user can't give a file to the owner or group of its
predecessor, it omits the rights that another user would get. It opens no file that SQLite has open: it reads and sets
mode and owner by name, so it drops no lock of SQLite.
"""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

log = logging.getLogger(__name__)

PRIVATE = 0o600
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MODE = 0o777
_GROUP, _OTHERS = 0o070, 0o007
_ACL = "system.posix_acl_access"


@dataclass(frozen=True)
class Access:
    """Mode, owner and group of a file, and its access control list, b"" without one."""

    mode: int
    owner: int
    group: int
    acl: bytes = b""


def access_of(*paths: Path) -> Access | None:
    """Return the access of the first of ``paths`` that exists, None when none does."""
    for path in paths:
        with suppress(FileNotFoundError):
            found = path.stat()
            return Access(found.st_mode & _MODE, found.st_uid, found.st_gid, _acl(path))
    return None


def make_file(path: Path, access: Access | None) -> None:
    """Create the empty file ``path``, which must not exist; ``access`` None: as SQLite does, 0644 less the umask.

    Raises OSError; it follows no link of that name.
    """
    handle = os.open(path, _NEW, 0o644 if access is None else PRIVATE)
    try:
        if access is not None and (why := _give(handle, access)):
            log.warning("%(file)s %(reason)s", {"file": path, "reason": why})
    finally:
        os.close(handle)


def make_private(path: Path) -> None:
    """Create the empty file ``path`` for this user alone, and replace one of that name; raises OSError."""
    path.unlink(missing_ok=True)
    os.close(os.open(path, _NEW, PRIVATE))


def write_private(path: Path, content: bytes) -> None:
    """Write a file for this user alone, whole or not at all; raises OSError."""
    made = path.with_name(f"{path.name}.new")
    make_private(made)
    made.write_bytes(content)
    made.replace(path)


def follow(path: Path, model: Path) -> None:
    """Give ``path`` and its side files, in a folder of ours, the access of ``model``, and the node's rights.

    Does nothing if one is missing. Raises OSError.
    """
    access = access_of(model)
    if access is None:
        return
    wanted = replace(access, mode=access.mode | PRIVATE)
    for side in ("", "-wal", "-shm"):
        each = Path(f"{path}{side}")
        if access_of(each) not in (None, wanted):
            _give(each, wanted)


def _give(target: int | Path, access: Access) -> str:
    """Give a file the rights of ``access``, as far as this user can, and never more; return what could not be given."""
    now = os.stat(target)  # noqa: PTH116 - a name or a descriptor
    why, mode = "", access.mode
    if (now.st_uid, now.st_gid) != (access.owner, access.group):
        # no rights for an owner or a group that is about to change
        os.chmod(target, now.st_mode & PRIVATE)  # noqa: PTH101 - as above
        why, mode = _handed_over(target, access)
    _set_acl(target, access.acl)
    if _acl(target) != access.acl:
        mode &= ~_GROUP  # with an access control list the group's bits are a mask, not the group's rights
        why = why or "can't be given the access control list of the file before"
    os.chmod(target, mode)  # noqa: PTH101 - as above
    return why


def _handed_over(target: int | Path, access: Access) -> tuple[str, int]:
    """Give a file to its owner and group; return what failed, and the mode that suits the owner that it has now."""
    for owner, group in ((access.owner, access.group), (-1, access.group)):
        try:
            os.chown(target, owner, group)
        except PermissionError:
            continue
        other = os.stat(target).st_uid != access.owner  # noqa: PTH116 - as above
        return f"can't be given to user {access.owner}, who owned the one before" if other else "", access.mode
    return (
        f"can't be given to user {access.owner} and group {access.group}, and the group has no right to it: run the"
        " node as that user, or as a member of that group"
    ), access.mode & ~_GROUP | (access.mode & _OTHERS) << 3 & access.mode


def _acl(target: int | Path) -> bytes:
    if sys.platform == "linux":
        with suppress(OSError):
            return os.getxattr(target, _ACL)
    return b""


def _set_acl(target: int | Path, acl: bytes) -> None:
    if sys.platform == "linux":
        with suppress(OSError):  # the caller checks the result
            if acl:
                os.setxattr(target, _ACL, acl)
            elif _acl(target):  # from the folder's default, which the former file did not have
                os.removexattr(target, _ACL)
