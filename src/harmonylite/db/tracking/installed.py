"""The result of an install: the tables that this connection tracks, and the schema that they were read from.

Invariant: it describes one schema; a part that finds another version installs again first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import apsw

from harmonylite.changes.reassembler import Fragment
from harmonylite.db.sqlite.connection import value
from harmonylite.db.sqlite.introspection import Inventory
from harmonylite.db.tracking.column_ids import Columns
from harmonylite.db.tracking.tracked_table import TrackedTable
from harmonylite.schema.section import Known, SchemaChange
from harmonylite.wire import TableBlock

STALE = "stale"


class Meanings(Protocol):
    """What names in change sets mean; see `harmonylite.db.mirror.stream_names`."""

    def meant(self, fragment: Fragment, part: TableBlock) -> TableBlock | None:
        """Return a part under the database's names."""


@dataclass
class Installed:
    """Tables by name and by id, sentences for a person, and the schema's version.

    ``header``: the application's values in the file's header, see `harmonylite.db.mirror.file_facts`.
    ``returned``: tables that were never here and now are; the mirror has rows of theirs to be merged. (A table that was
    dropped here and created again is a new one, with the rows that its creator inserted.)
    ``joining``: tables that this process could not write until now; each file may have rows that the other lacks.
    ``stale``: ids of tables that a migration rebuilt while database and mirror were at different positions; they are
    compared once both are at one. ``section``: changes of the schema that are still to be sent. ``numbers``: the log's
    number of each table, by the folded name that the stream knows; ``pragmas``: the numbers of the header that count as
    captured. Both are kept here so that a commit reads nothing that grows with the number of tables.
    ``inventory``: its tables as read; ``unfinished``: rows that are on their way complete the mirror's tables.
    ``names``: what the stream's names mean here, ``columns``: those of tables, by id; where identities are kept.
    """

    tables: dict[str, TrackedTable] = field(default_factory=dict)
    by_id: dict[int, TrackedTable] = field(default_factory=dict)
    warnings: dict[str, str] = field(default_factory=dict)
    version: int = -1
    header: tuple[int, ...] = ()
    returned: list[str] = field(default_factory=list)
    joining: list[str] = field(default_factory=list)
    stale: frozenset[int] = frozenset()
    section: list[SchemaChange] = field(default_factory=list)
    numbers: dict[str, int] = field(default_factory=dict)
    pragmas: list[Known] = field(default_factory=list)
    inventory: Inventory = field(default_factory=Inventory)
    unfinished: bool = False
    names: Meanings | None = None
    columns: dict[int, Columns] = field(default_factory=dict)

    def again(self, install: Callable[[Installed], Installed]) -> Installed:
        """Install once more; return the result, with the tables that the first time returned."""
        made = install(self)
        made.returned = [*self.returned, *made.returned]
        return made

    @cached_property
    def blind(self) -> list[TrackedTable]:
        """The tables in which a REPLACE may displace rows that no trigger sees."""
        return [table for table in self.tables.values() if table.shape.blind]


def schema_version(connection: apsw.Connection) -> int:
    """Return the number that grows with every change of the database's schema."""
    return int(value(connection, "PRAGMA main.schema_version"))
