"""`control.json`: how commands on this machine find and enter the running node.

Invariant: the file is whole or absent, readable by its owner only, and removed only by the node that wrote it.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from harmonylite.errors import NO_ROOM, DiskFullError, ForeignError, HarmonyLiteError, NotRunningError
from harmonylite.foreign import Codec

FILE_NAME = "control.json"


class ControlFile(msgspec.Struct, frozen=True):
    """``port`` on 127.0.0.1, the bearer ``token``, and the ``pid`` of the node."""

    port: Annotated[int, Meta(ge=1, le=65535)]
    token: Annotated[str, Meta(pattern=r"\A[!-~]{1,512}\Z")]
    pid: Annotated[int, Meta(ge=0, le=2**31)]

    def __repr__(self) -> str:
        return f"ControlFile(port={self.port}, pid={self.pid})"


CODEC = Codec("the control file", ControlFile)


def write_control_file(folder: Path, control: ControlFile) -> None:
    """Write ``control`` into ``folder`` with mode 0600, in one step.

    :raises HarmonyLiteError: the folder can't be written; DiskFullError where only room is missing.
    """
    try:
        # mkstemp makes the file with mode 0600, so the token is never readable by others, not even for a moment.
        handle, name = tempfile.mkstemp(prefix=f".{FILE_NAME}.", dir=folder)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(CODEC.encode(control))
            Path(name).replace(folder / FILE_NAME)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        if error.errno in NO_ROOM:
            raise DiskFullError(
                f"can't write {folder / FILE_NAME}: {error.strerror}", advice="free some room"
            ) from error
        raise HarmonyLiteError(
            f"can't write {folder / FILE_NAME}: {error.strerror}", advice="the node needs a folder that it can write to"
        ) from error


def read_control_file(folder: Path) -> ControlFile:
    """Return what the running node wrote. A node that was killed leaves its file behind: expect a refused connection.

    :raises NotRunningError: there is no such file, or it is not one of ours.
    """
    path = folder / FILE_NAME
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            return CODEC.decode(file.read(CODEC.most + 1))
    except FileNotFoundError as error:
        raise NotRunningError(f"no node runs here: {path} does not exist") from error
    except (OSError, ForeignError) as error:
        raise NotRunningError(f"can't read {path}: {error}", advice="run the command as the node's user") from error


def remove_control_file(folder: Path, token: str) -> None:
    """Remove the file if it is still the one with ``token``; a newer node's file stays."""
    with suppress(NotRunningError, OSError):
        if read_control_file(folder).token == token:
            (folder / FILE_NAME).unlink(missing_ok=True)
