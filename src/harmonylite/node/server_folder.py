"""Which folder below ``nats/`` is this node's, also after the node was renamed or its ``mirror/`` was removed.

Invariant: streams that a node wrote are found again or named; a folder of another database, or of the original that
this one is a copy of, is never taken.
"""

from __future__ import annotations

from pathlib import Path

from harmonylite.errors import ConfigError
from harmonylite.identity import fingerprint, folder_for, kept_ids, nats_folder_for
from harmonylite.nats_server.server_files import ServerFile
from harmonylite.wire import token

MIRROR = "mirror.db"


def server_folder(db_path: Path, node: str) -> str:
    """Return the name of the embedded server's folder of the node ``node`` below ``nats/``; it need not exist.

    :raises ConfigError: nothing says which of several folders is the one.
    """
    folders = _folders(nats_folder_for(db_path))
    own = fingerprint(db_path)
    if mine := sorted(name for name, file in folders.items() if file is not None and file.database == own):
        return token(node) if token(node) in mine else mine[0]
    if token(node) in folders:
        return token(node)
    # Folders of versions before `ServerFile` don't say whose they are.
    unowned = sorted(name for name, file in folders.items() if file is None)
    for earlier in kept_ids(db_path):
        if token(earlier) in unowned:
            return token(earlier)
    if not unowned or not (folder_for(db_path) / MIRROR).exists():
        return token(node)
    if len(unowned) == 1 and not _others(db_path):
        return unowned[0]
    raise ConfigError(
        f"{nats_folder_for(db_path)} holds {', '.join(unowned)}, and nothing says which of them is {db_path.name}'s",
        advice=f"stop the node, rename that folder to {token(node)} and start again; for a new one make {token(node)}",
    )


def _folders(nats: Path) -> dict[str, ServerFile | None]:
    """Return the folders of servers, and what each says of itself."""
    try:
        found = [path for path in nats.iterdir() if path.is_dir()]
    except OSError:
        return {}
    return {path.name: ServerFile.read(path) for path in found}


def _others(db_path: Path) -> bool:
    """Return whether other databases in the same folder have a node."""
    own = folder_for(db_path)
    return any(path.is_dir() and path != own for path in own.parent.iterdir())
