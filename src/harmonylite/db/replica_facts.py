"""What a replica's files say of themselves: whether they are joined and whole, their positions, conflicts, nodes.

Invariant: it only reads.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import apsw

from harmonylite.changes.epochs import Lineage
from harmonylite.db.mirror import mirror_file
from harmonylite.db.mirror.compare import digest_table
from harmonylite.db.mirror.conflict_journal import read_journal, remembered_nodes
from harmonylite.db.mirror.positions import database_lineage, read_lineage
from harmonylite.db.mirror.state import get_state
from harmonylite.db.replica_options import ReplicaOptions
from harmonylite.db.sqlite.connection import value
from harmonylite.db.tracking.installed import Installed
from harmonylite.db.tracking.tracked_table import TrackedTable
from harmonylite.errors import DatabaseError
from harmonylite.model import Conflict, Position


class ReplicaFacts:
    """The readings of a `Replica`."""

    def __init__(self, options: ReplicaOptions) -> None:
        self.options = options
        self._connection: apsw.Connection | None = None
        self._installed = Installed()

    @property
    def connection(self) -> apsw.Connection:
        """The node's connection; raises DatabaseError when the replica is not open."""
        if self._connection is None:
            raise DatabaseError(f"{self.options.database} is not open")
        return self._connection

    @property
    def tables(self) -> dict[str, TrackedTable]:
        """The replicated tables by name."""
        return self._installed.tables

    @property
    def joined(self) -> bool:
        """True once the database was merged with the cluster."""
        there = value(self.connection, "SELECT 1 FROM main.sqlite_schema WHERE name = '__harmonylite__state'")
        return bool(there and get_state(self.connection, "main", "joined"))

    def positions(self) -> dict[int, Position]:
        """Return the mirror's position on every shard."""
        found = mirror_file.positions(self.connection, "mirror")
        return {shard: found.get(shard, Position(shard)) for shard in range(self.options.shards)}

    def merged_positions(self) -> dict[int, Position]:
        """Return the database's position on every shard."""
        return dict(self.lineage("main").positions)

    def lineage(self, schema: Literal["main", "mirror"] = "mirror") -> Lineage:
        """Return the lineage of the mirror or the database."""
        found = read_lineage(self.connection, schema) if schema == "mirror" else database_lineage(self.connection)
        at = {shard: found.positions.get(shard, Position(shard)) for shard in range(self.options.shards)}
        return replace(found, positions=at)

    def held_rows(self) -> int:
        """Return the number of rows that are held back."""
        return mirror_file.held_rows(self.connection)

    def conflicts(self, *, table: str | None = None, limit: int = 100) -> list[Conflict]:
        """Return the newest conflicts first."""
        return read_journal(self.connection, table=table, limit=limit)

    @property
    def whole(self) -> bool:
        """True once the mirror was made from a database or a snapshot; False for a new, empty one."""
        return bool(get_state(self.connection, "mirror", "whole"))

    def digests(self) -> dict[str, str]:
        """Return the digest of every table of the mirror, by name."""
        return {name: digest_table(self.connection, table.shape) for name, table in self.tables.items()}

    def nodes(self) -> set[str]:
        """Return the nodes whose change sets are remembered."""
        return remembered_nodes(self.connection)
