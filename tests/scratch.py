"""Where tests keep their files: in memory, where the machine has room for them.

Invariant: what a test finds doesn't depend on the place, only how long it takes: databases, streams and stores sync
thousands of times, and a disk that others use as well may answer a sync after a minute.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import MutableMapping
from pathlib import Path

MEMORY = Path("/dev/shm")
ROOM = 3 << 30
"""Bytes that must be free, of the folder and of the machine: a run has up to 0.6 GB of files at once, and processes."""


def in_memory(folder: Path = MEMORY, room: int = ROOM) -> bool:
    """Return whether ``folder`` is one in which ``room`` bytes are left, and programs may be run."""
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        return False
    found = os.statvfs(folder)
    free = min(found.f_bavail * found.f_frsize, available())
    return free >= room and not found.f_flag & os.ST_NOEXEC


def available(meminfo: Path = Path("/proc/meminfo")) -> int:
    """Return bytes of memory that processes could have, 0 where the system doesn't say."""
    try:
        lines = meminfo.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), 0)


def choose(environment: MutableMapping[str, str], folder: Path = MEMORY, room: int = ROOM) -> None:
    """Let temporary files of this process and its children be in memory. ``TMPDIR``, where it is set, decides."""
    if "TMPDIR" not in environment and in_memory(folder, room):
        environment["TMPDIR"] = str(folder)
        tempfile.tempdir = None  # it is looked for again
