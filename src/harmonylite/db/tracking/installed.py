"""What an install leaves: the tables that are tracked on this connection, and the schema that they were read from.

Invariant: it describes one schema; a part that meets another version installs again first.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import apsw

from harmonylite.db.sqlite.connection import value
from harmonylite.db.tracking.tracked_table import TrackedTable
from harmonylite.schema.section import Known, SchemaChange

STALE = "stale"


@dataclass
class Installed:
    """What is there after an install: tables by name and by id, sentences for a person, and the schema's version.

    ``header``: what the application keeps in the file's header, see `harmonylite.db.mirror.file_facts`.
    ``returned``: tables that never were here and came; the mirror has rows of theirs, which are to be merged in. (One
    that was dropped here and comes again is a new one, with the rows that its maker put in.)
    ``joining``: tables that this process could not write until now; both files may have rows that the other lacks.
    ``stale``: ids of tables that a migration rebuilt while database and mirror were at different positions; they are to
    be compared when they do. ``section``: what changed in the schema and is still to be sent. ``numbers``: by which
    number in the log the database knows a table that the stream calls so (folded); ``pragmas``: the numbers in the
    header that count as captured. Both are kept here so that a commit reads nothing that grows with the number of
    tables.
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

    @cached_property
    def blind(self) -> list[TrackedTable]:
        """The tables in which a REPLACE may displace rows that no trigger sees."""
        return [table for table in self.tables.values() if table.shape.blind]


def schema_version(connection: apsw.Connection) -> int:
    """Return the number that grows with every change of the database's schema."""
    return int(value(connection, "PRAGMA main.schema_version"))
