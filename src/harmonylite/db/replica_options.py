"""What a replica needs to know before it is opened.

Invariant: nothing here changes while a replica is open.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from harmonylite.db.mirror.swap import Readers
from harmonylite.db.sqlite.introspection import TableRules


@dataclass(frozen=True)
class ReplicaOptions:
    """What a replica needs to know. ``folder``: the node's private folder, where the mirror lives.

    ``capture_batch_rows``: rows that capture reads in one step. ``replicate`` False: write no rows of others.
    ``apply_schema``: which schema changes of others are made here by themselves; "none" by default, as in a copy.
    """

    database: Path
    folder: Path
    node: str
    session: str
    shards: int = 1
    compress: bool = True
    capture_batch_rows: int = 512
    replicate: bool = True
    patience: float = 0.0
    apply_schema: Literal["all", "additive", "none"] = "none"
    rules: TableRules = field(default_factory=TableRules)
    readers: Readers = field(default_factory=Readers, compare=False)

    @property
    def mirror(self) -> Path:
        """The mirror file."""
        return self.folder / "mirror.db"
