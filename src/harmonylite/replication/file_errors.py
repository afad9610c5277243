"""Errors of a node's files that pass: waited for, and shown in the part's state.

Invariant: nothing is logged here but a traceback where the log shows details; `harmonylite.node.wait_log` logs what
parts wait for.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from harmonylite.backoff import Backoff
from harmonylite.errors import DatabaseBusyError, DatabaseError, DiskFullError, ReopenError
from harmonylite.status import Part

log = logging.getLogger(__name__)


class FileErrors:
    """What blocks one loop. ``paths``: the files that the loop writes, for the question which disk is full.

    ``most``: seconds of the longest pause between two tries.
    """

    def __init__(self, part: Part, paths: Iterable[Path], *, most: float = 1.0) -> None:
        self._part = part
        self._paths = tuple(paths)
        self._backoff = Backoff(first=0.02, most=most)

    def met(self, error: DatabaseError) -> float:
        """Take note of ``error``; return the seconds to wait before the next try. Raises it when waiting can't help."""
        if isinstance(error, ReopenError):
            raise error
        if isinstance(error, DatabaseBusyError):
            self._part.waiting(str(error))
        elif isinstance(error, DiskFullError):
            self._disk_full()
        else:
            self._part.failed(f"{error}; it is tried again")
            log.debug("%s", error, exc_info=error)
        return self._backoff.failed(time.monotonic())

    def over(self) -> None:
        """Take note that a try worked."""
        self._part.ok()
        self._backoff.worked()

    def _disk_full(self) -> None:
        # Without figures: they change from try to try, and since when it has been so would be lost.
        self._part.waiting(
            f"no room is left on the disk of {fullest(self._paths)}: free some; the node then resumes by itself"
        )


def fullest(paths: Iterable[Path]) -> Path:
    """Return which of ``paths``, or of the system's folder for temporary files, lies on the disk with the least room.

    Disks are only asked for their free space; no file is opened. At least one path must be given.
    """
    # the first one of equals: the database, where all lie on one disk
    return min((*paths, Path(tempfile.gettempdir(), "temporary files")), key=_room)


def _room(path: Path) -> int:
    try:
        found = os.statvfs(path.parent)
    except OSError:
        return 1 << 62
    return found.f_bavail * found.f_frsize
