"""`control.json`: how commands on this machine find and enter the running node.

Invariant: the file is whole or absent, readable by its owner only, and removed only by the node that wrote it.
"""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from harmonylite.errors import HarmonyLiteError, NotRunningError

FILE_NAME = "control.json"


@dataclass(frozen=True, slots=True)
class ControlFile:
    """``port`` on 127.0.0.1, the bearer ``token``, and the ``pid`` of the node."""

    port: int
    token: str = field(repr=False)
    pid: int


def write_control_file(folder: Path, control: ControlFile) -> None:
    """Write ``control`` into ``folder`` with mode 0600, in one step.

    :raises HarmonyLiteError: the folder can't be written.
    """
    try:
        # mkstemp makes the file with mode 0600, so the token is never readable by others, not even for a moment.
        handle, name = tempfile.mkstemp(prefix=f".{FILE_NAME}.", dir=folder)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(asdict(control), file)
            Path(name).replace(folder / FILE_NAME)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
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
        with os.fdopen(handle, encoding="utf-8") as file:
            found = json.load(file)
        return ControlFile(port=int(found["port"]), token=str(found["token"]), pid=int(found["pid"]))
    except FileNotFoundError as error:
        raise NotRunningError(f"no node runs here: {path} does not exist") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NotRunningError(f"can't read {path}: {error}", advice="run the command as the node's user") from error


def remove_control_file(folder: Path, token: str) -> None:
    """Remove the file if it is still the one with ``token``; a newer node's file stays."""
    with suppress(NotRunningError, OSError):
        if read_control_file(folder).token == token:
            (folder / FILE_NAME).unlink(missing_ok=True)
