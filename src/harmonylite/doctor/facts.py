"""The facts that `collect` returns and `check` judges: plain values, so that tests can cover each judgement alone.

Invariant: no fact is a judgement, and none is a secret.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from harmonylite.config import Settings


@dataclass(frozen=True, slots=True)
class StreamFacts:
    """One shard's stream as NATS reports it. ``messages``/``bytes``: what it holds; ``first_at``, ``last_at``:
    when the oldest and the newest of them were stored, seconds since the epoch, 0.0 = there is none.
    """

    name: str
    replicas: int
    storage: str
    max_entries: int
    messages: int
    bytes: int
    first_at: float = 0.0
    last_at: float = 0.0


@dataclass(frozen=True, slots=True)
class NatsFacts:
    """The answers of NATS. ``servers``: how many the cluster announces, 1 = alone. ``clock_offset``:
    seconds that the server's clock is ahead of this machine's. ``error``: why they are unknown, "" if they aren't.
    """

    error: str = ""
    version: str = ""
    servers: int = 0
    clock_offset: float = 0.0
    streams: tuple[StreamFacts, ...] = ()


@dataclass(frozen=True, slots=True)
class DiskFacts:
    """The volume that holds ``what``. ``kind``: its file system, as mounted; bytes."""

    what: str
    path: str
    kind: str
    total: int
    free: int


@dataclass(frozen=True, slots=True)
class DatabaseFacts:
    """The application's file. ``keyless``: tables without a primary key; ``counted``: tables whose keys SQLite gives
    out (INTEGER PRIMARY KEY); ``autoincrement``: those of them that say AUTOINCREMENT; ``left_out``: sentences.
    """

    error: str = ""
    journal: str = ""
    bytes: int = 0
    tables: int = 0
    keyless: tuple[str, ...] = ()
    counted: tuple[str, ...] = ()
    autoincrement: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Facts:
    """All facts. ``report``: `NodeStatus.report` of the running node, None if none runs. ``nodes``: reports of the
    nodes that it knows. ``descriptors``: how many files the node (or, when none runs, this shell's child) may open.
    ``exposed``: files with a key or seed that other users than the owner can read.
    """

    settings: Settings
    nats: NatsFacts
    database: DatabaseFacts
    disks: tuple[DiskFacts, ...] = ()
    descriptors: int = 0
    exposed: tuple[str, ...] = ()
    report: dict[str, Any] | None = None
    nodes: tuple[dict[str, Any], ...] = field(default=())
