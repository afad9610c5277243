"""Check the files' integrity, page by page and index by index, while the node works on them.

Invariant: a check only reads, and delays no other work: it has separate connections, and ends when no caller waits for
it. What it can't check in time it reports, and never counts as sound.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from harmonylite.db.repair import damage
from harmonylite.db.replica_options import ReplicaOptions
from harmonylite.db.sqlite.deadline import Deadline
from harmonylite.errors import DatabaseError


async def check_files(options: ReplicaOptions, seconds: float) -> list[dict[str, Any]]:
    """Return what is wrong with database and mirror (SQLite: PRAGMA integrity_check), within ``seconds`` each.

    For each a dict: ``file``; ``damage``, "" when it is sound; ``unchecked``: why it was not checked, or "".
    """
    with Deadline() as deadline:
        checks = (asyncio.to_thread(_checked, path, options, deadline.within(seconds)) for path in _files(options))
        return list(await asyncio.gather(*checks))


def _files(options: ReplicaOptions) -> tuple[Path, Path]:
    return options.database, options.mirror


def _checked(path: Path, options: ReplicaOptions, deadline: Deadline) -> dict[str, Any]:
    found, unchecked = "", ""
    try:
        with options.readers.reading():
            found = damage(path, thorough=True, deadline=deadline)
    except DatabaseError as error:
        unchecked = error.message
    return {"file": str(path), "damage": found, "unchecked": unchecked}
