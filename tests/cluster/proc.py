"""What /proc says of a process.

Invariant: a process may end at any moment; nothing here fails when it does.
"""

from __future__ import annotations

from pathlib import Path


def read_or_nothing(path: Path) -> str:
    """Return the text of a file in /proc, "" where its process is gone."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def states(pid: int) -> set[str]:
    """Return the states of a process's threads as /proc has them; none where it is gone."""
    told = map(read_or_nothing, Path(f"/proc/{pid}/task").glob("*/stat"))
    return {text.rpartition(")")[2].split()[0] for text in told if text}


def runs(pid: int) -> bool:
    """Return whether a process has not ended."""
    return bool(states(pid) - {"X", "Z"})
