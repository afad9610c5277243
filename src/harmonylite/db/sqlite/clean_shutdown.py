"""Whether files are unchanged since a clean stop, so that opening them need not wait for a check.

Invariant: a stop's note counts for one start, and only for files that no process has written to since, by size and
modification time. The node still checks them, a little later.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from harmonylite.errors import ForeignError
from harmonylite.foreign import Codec

NOTE = "stopped.json"


CODEC = Codec("what the last stop noted", dict[str, list[list[int]] | None])


def note(folder: Path, files: Iterable[Path]) -> None:
    """Record the state of ``files`` in ``folder``, once this process has closed them; raises OSError."""
    (folder / NOTE).write_bytes(CODEC.encode({str(file): _stat(file) for file in files}))


def taken(folder: Path) -> set[Path]:
    """Return the files that are unchanged since the last stop, and delete its note; empty after any other end."""
    try:
        found = CODEC.decode((folder / NOTE).read_bytes())
        same = {Path(name) for name, stat in found.items() if stat is not None and stat == _stat(Path(name))}
    except (OSError, ForeignError):
        return set()
    finally:
        # before any write to them: after a crash there must be no note
        with suppress(FileNotFoundError):
            (folder / NOTE).unlink()
    return same


def _stat(file: Path) -> list[list[int]] | None:
    """Return what identifies the state of a file and its write-ahead log; None when there is no file."""
    stats = []
    for path in (file, Path(f"{file}-wal")):
        try:
            found = path.stat()
        except OSError:
            stats.append([0, 0, 0, 0])
            continue
        # an empty log comes and goes with the connections
        stats.append([found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns] if found.st_size else [0, 0, 0, 0])
    return stats if stats[0][2] else None
