"""What a replica needs to know before it is opened.

Invariant: nothing here changes while a replica is open.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from harmonylite.db.mirror.swap import Readers
from harmonylite.db.sqlite.introspection import TableRules
from harmonylite.db.sqlite.overwriting import Seen


@dataclass(frozen=True)
class ReplicaOptions:
    """What a replica needs to know. ``folder``: the node's private folder, where the mirror lives.

    ``capture_batch_rows``: rows that capture reads in one step. ``replicate`` False: write no rows of others.
    ``apply_schema``: make what others add to the schema. ``real_digits``:
    see `harmonylite.db.sqlite.real_digits`, 0: as the file says. ``seen``: how the database's file was when it was last
    looked at. ``said``: sentences about what happened to it, by topic.
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
    apply_schema: bool = False
    real_digits: int = 0
    rules: TableRules = field(default_factory=TableRules)
    readers: Readers = field(default_factory=Readers, compare=False)
    seen: Seen = field(default_factory=Seen, compare=False)
    said: dict[str, str] = field(default_factory=dict, compare=False)

    @property
    def mirror(self) -> Path:
        """The mirror file."""
        return self.folder / "mirror.db"
