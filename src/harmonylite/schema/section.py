"""The schema section of a change set: what its writer added to the schema since it captured last.

Invariant: a section holds additions alone: objects that are new, columns that came to a table that lost none, and
``user_version`` and ``application_id``. What else changed is not in it; every node's own migration brings that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from harmonylite.schema.columns import added, columns_of, widened
from harmonylite.schema.names import folded
from harmonylite.schema.sql import PRIVATE
from harmonylite.wire import TableBlock

SECTION = f"{PRIVATE}schema"
"""The table part that is the section: no application's table is called like this."""
COLUMNS = ["kind", "name", "tbl", "old", "new"]
PRAGMA = "pragma"
PRAGMAS = ("user_version", "application_id")


@dataclass(frozen=True)
class Known:
    """One object of a schema: ``kind`` as in sqlite_schema, or `PRAGMA`; ``number``: of the table in the log, or 0."""

    kind: str
    name: str
    table: str
    sql: str
    number: int = 0

    @property
    def key(self) -> tuple[str, str]:
        """What names the object: tables and views share their names, and letters have no case."""
        return ("table" if self.kind == "view" else self.kind), folded(self.name)


@dataclass(frozen=True)
class Addition:
    """One line of a section. ``old``: the definition that the writer had before, None: it had none."""

    kind: str
    name: str
    table: str
    old: str | None
    new: str

    @property
    def key(self) -> tuple[str, str]:
        """See `Known.key`."""
        return Known(self.kind, self.name, self.table, self.new).key

    def __str__(self) -> str:
        if self.kind == "table" and self.old is not None:
            return f"table {self.name}: columns {', '.join(c.name for c in added(self.old, self.new))}"
        return f"{self.kind} {self.name}" + f" = {self.new}" * (self.kind == PRAGMA)


def additions(captured: Iterable[Known], now: Iterable[Known]) -> list[Addition]:
    """Return what ``now`` has over ``captured``, in an order in which it can be made."""
    before = {known.key: known for known in captured}
    numbers = {known.number: known for known in before.values() if known.number}
    found = []
    for known in now:
        was = before.get(known.key)
        if was is None and known.number in numbers:
            continue  # renamed
        if was is None or (was.kind == known.kind and was.sql != known.sql and _adds(was, known)):
            old = was.sql if was is not None else None
            found.append(Addition(known.kind, known.name, known.table, old, known.sql))
    order = ("table", "index", "view", "trigger", PRAGMA)
    return sorted(found, key=lambda a: (order.index(a.kind), a.new.startswith("CREATE VIRTUAL")))


def _adds(was: Known, now: Known) -> bool:
    if was.kind != "table":
        return was.kind == PRAGMA
    before, after = columns_of(was.sql), columns_of(now.sql)
    return bool(after.keys() - before.keys()) and not before.keys() - after.keys()


def settled(captured: Iterable[Known], now: Iterable[Known]) -> list[Known]:
    """Return what counts as captured: ``now``, but for what is still to be sent."""
    waiting = {addition.key: addition.old for addition in additions(captured, now)}
    found = []
    for known in now:
        if known.key not in waiting:
            found.append(known)
        elif (old := waiting[known.key]) is not None:
            found.append(Known(known.kind, known.name, known.table, old, known.number))
    return found


def advanced(captured: Mapping[tuple[str, str], Known], addition: Addition) -> Known:
    """Return what counts as captured of an object once ``addition`` is in the order."""
    was = captured.get(addition.key)
    sql = addition.new
    if was is not None and addition.kind == "table" and was.sql != addition.old:
        sql = widened(was.sql, added(addition.old, addition.new))
    return Known(addition.kind, addition.name, addition.table, sql, was.number if was is not None else 0)


def encode(section: Iterable[Addition]) -> TableBlock:
    """Return a section as the table part at the head of a change set."""
    rows = [[a.kind, a.name, a.table, a.old, a.new] for a in section]
    return TableBlock(SECTION, COLUMNS, 2, [], rows)
