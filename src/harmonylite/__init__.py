"""HarmonyLite: multi-writer replication for ordinary SQLite files over NATS JetStream.

Public for programs in Python: the names in ``__all__`` here and in `harmonylite.client`, `harmonylite.asgi` and
`harmonylite.wsgi` (docs/python.md). All other modules are internal and may move in any release.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harmonylite.version import __version__

if TYPE_CHECKING:
    from harmonylite.program import Config, Node

__all__ = ["Config", "Node", "__version__"]


def __getattr__(name: str) -> object:
    """Import `Node` and `Config` on first use: a command that only asks a running node needs neither."""
    if name in ("Config", "Node"):
        from harmonylite import program

        return getattr(program, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
