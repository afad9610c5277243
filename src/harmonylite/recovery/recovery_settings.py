"""Settings of recovery, and its hooks into other parts.

Invariant: recovery reaches other parts by these alone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RecoverySettings:
    """``publish``: False for a node whose rows stay its own."""

    node: str
    publish: bool


@dataclass(frozen=True, slots=True)
class RecoveryHooks:
    """``ensure``: creates missing streams.

    ``request_snapshot``: asks the other nodes for one, returns whether one was saved.
    """

    ensure: Callable[[], Awaitable[None]]
    request_snapshot: Callable[[], Awaitable[bool]]
