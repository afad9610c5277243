"""Files that rest: whether they are as a clean stop left them, so that opening them need not wait for a check.

Invariant: what a stop notes counts for one start, and only for files that nobody has written to since, as far as size
and time of change tell. They are checked all the same, a little later.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

NOTE = "stopped.json"


def note(folder: Path, files: Iterable[Path]) -> None:
    """Note in ``folder`` how ``files`` are, once nothing of this process has them open; raises OSError."""
    (folder / NOTE).write_text(json.dumps({str(file): _look(file) for file in files}))


def taken(folder: Path) -> set[Path]:
    """Return the files that are as the last stop noted, and forget what it noted; empty after any other end."""
    try:
        found = json.loads((folder / NOTE).read_text())
        same = {Path(name) for name, look in found.items() if look is not None and look == _look(Path(name))}
    except (OSError, ValueError, AttributeError):
        return set()
    finally:
        # before anything is written to them: after a crash there must be none
        with suppress(FileNotFoundError):
            (folder / NOTE).unlink()
    return same


def _look(file: Path) -> list[list[int]] | None:
    """Return what tells the present file and its write-ahead log from others; None when there is no file."""
    looks = []
    for path in (file, Path(f"{file}-wal")):
        try:
            found = path.stat()
        except OSError:
            looks.append([0, 0, 0, 0])
            continue
        # an empty log comes and goes with the connections
        looks.append([found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns] if found.st_size else [0, 0, 0, 0])
    return looks if looks[0][2] else None
