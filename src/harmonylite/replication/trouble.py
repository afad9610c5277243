"""Trouble with the files of a node: waited for, said once, and over by itself.

Invariant: the part's state and the log tell the same, and a trouble that stays the same is told once, however often it
is met. A traceback is for what nobody foresaw, and only when the log shows details.
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


class Trouble:
    """What stands in one loop's way. ``paths``: the files that the loop writes, for the question which disk is full.

    ``most``: seconds of the longest pause between two tries.
    """

    def __init__(self, part: Part, paths: Iterable[Path], *, most: float = 1.0) -> None:
        self._part = part
        self._paths = tuple(paths)
        self._backoff = Backoff(first=0.02, most=most)
        self._told = ""

    def met(self, error: DatabaseError) -> float:
        """Take note of ``error``; return the seconds to wait before the next try. Raises it when waiting can't help."""
        if isinstance(error, ReopenError):
            raise error
        if isinstance(error, DatabaseBusyError):
            self._part.waiting(str(error))
        elif isinstance(error, DiskFullError):
            self._disk_full()
        else:
            self._part.failed(str(error))
            if self._tell(str(error)):
                detail = error if log.isEnabledFor(logging.DEBUG) else None
                log.error("%s; it is tried again", error, exc_info=detail)
        return self._backoff.failed(time.monotonic())

    def over(self) -> None:
        """It worked."""
        self._part.ok()
        if self._told:
            log.info("it goes on; this is over: %s", self._told)
            self._told = ""
        self._backoff.worked()

    def _disk_full(self) -> None:
        # Without figures: they change from try to try, and since when it has been so would be lost.
        said = f"no room is left on the disk of {fullest(self._paths)}: make room there, then it goes on by itself"
        self._part.waiting(said)
        if self._tell(said):
            log.warning("%s", said)

    def _tell(self, said: str) -> bool:
        """Return True when ``said`` is news."""
        news, self._told = said != self._told, said
        return news


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
