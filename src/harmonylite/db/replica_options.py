"""What a replica needs to know before it is opened.

Invariant: nothing here changes while a replica is open.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from harmonylite.db.mirror.swap import Readers
from harmonylite.db.sqlite.introspection import TableRules
from harmonylite.db.sqlite.overwriting import Seen


@dataclass(frozen=True)
class ReplicaOptions:
    """What a replica needs to know. ``folder``: the node's private folder, where the mirror lives.

    ``capture_batch_rows``: rows that capture reads in one step. ``replicate`` False: write no rows of others.
    ``apply_schema``: which schema changes of others are made here by themselves; "none" by default, as in a copy.
    ``real_digits``: see `harmonylite.db.sqlite.real_digits`, 0: as the file says. ``seen``: how the database's file was
    when it was last looked at. ``said``: sentences about what happened to it, by topic.
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
    real_digits: int = 0
    rules: TableRules = field(default_factory=TableRules)
    readers: Readers = field(default_factory=Readers, compare=False)
    seen: Seen = field(default_factory=Seen, compare=False)
    said: dict[str, str] = field(default_factory=dict, compare=False)

    @property
    def apply_here(self) -> Literal["all", "additive", "none"]:
        """Which schema changes of others are made here: a database that is never written gets none."""
        return self.apply_schema if self.replicate else "none"

    @property
    def sends_all(self) -> bool:
        """Whether removals, renames and rebuilds of this node's schema are sent, too."""
        return self.apply_schema == "all"

    @property
    def mirror(self) -> Path:
        """The mirror file."""
        return self.folder / "mirror.db"
