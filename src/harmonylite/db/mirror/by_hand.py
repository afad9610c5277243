"""What a database knows of the stream's schema that was migrated by hand until now, where nothing but additions came.

Invariant: what was changed by hand counts as this file's own change, and is sent, so that nothing that a migration
removed comes back; what waits is the stream's change, and comes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import apsw

from harmonylite.db.mirror import former_names, mirror_file
from harmonylite.db.mirror.stream_schema import NamesMeant
from harmonylite.db.sqlite.connection import rows
from harmonylite.db.sqlite.side_effect_triggers import make_working
from harmonylite.db.sqlite.untrusted_ddl import Definition
from harmonylite.db.tracking.waiting_schema import Waiting, waiting
from harmonylite.errors import DefinitionError
from harmonylite.schema.catalog import Catalog
from harmonylite.schema.columns import ColumnText, columns_of, with_default
from harmonylite.schema.names import folded
from harmonylite.schema.section import PRAGMA, Key, Known
from harmonylite.schema.table_text import normal, parts_of, without


@dataclass
class ByHand:
    """``captured``: what counts as captured; ``file``: the schema of the database, by key.

    ``ids``: the identities of the database's columns, by the table's number in the log and their names (folded).
    """

    connection: apsw.Connection
    captured: Iterable[Known]
    file: Mapping[Key, Known]
    catalog: Catalog
    ids: dict[int, dict[str, str]] = field(default_factory=dict)
    _waits: list[Waiting] = field(default_factory=list)

    def base(self) -> list[Known]:
        """Return what the database knows of the stream's schema: all of it, but for what waits."""
        self._waits = waiting(self.connection)
        found: dict[Key, Known] = {}
        done: set[Key] = set()
        for known in self.captured:
            theirs = self._theirs(known) if known.kind == "table" else None
            if theirs is not None:
                done.add(theirs.key)
                found[theirs.key] = self._changed(known, theirs)
            elif known.kind == "table" and (tied := self._as_before(known)) is not None:
                done |= {key for key, each in self.catalog.items() if each.id == tied.id}
                found[tied.key] = tied
        for known in self.captured:
            if known.kind != "table" and (known.kind == PRAGMA or self._waiting(known.key)):
                found[known.key] = known
        for key, theirs in self.catalog.items():
            if key not in done and key not in found and not self._waiting(key) and self._was_here(theirs):
                found[key] = replace(theirs, number=0)
        return list(found.values())

    def _waiting(self, *keys: Key) -> list[Waiting]:
        return [each for each in self._waits if {each.change.key, each.change.old_key} & set(keys)]

    # tables ------------------------------------------------------------------------------------------------------

    def _theirs(self, known: Known) -> Known | None:
        """Return the stream's table that a table of the database is, None where a change of it waits."""
        listed = f"SELECT name FROM mirror.{former_names.FORMER} WHERE tbl = ? AND lower(now) = lower(?)"
        former = [("table", folded(n)) for (n,) in rows(self.connection, listed, (former_names.TABLES, known.name))]
        for key in (*(key for key in former if key not in self.file), known.key):
            theirs = self.catalog.get(key)
            if theirs is not None and theirs.kind == "table" and not self._waiting(known.key, key):
                return theirs
        return None

    def _changed(self, known: Known, theirs: Known) -> Known:
        """Return the stream's table as the base of this one, whatever was made of that here."""
        here = self.file.get(known.key, known)
        declared = columns_of(here.sql)
        moved = {folded(n): now for n, now in former_names.columns_of(self.connection, here.name).items()}
        names = {name for name, _ in theirs.columns}
        ids = {}
        for name, id_ in theirs.columns:
            now = name if name in declared else folded(moved.get(name) or "")
            if now in declared and (now == name or now not in names):
                ids[now] = id_
        self.ids[known.number] = ids
        return replace(theirs, number=known.number, sql=_filled(theirs.sql, declared))

    def _as_before(self, known: Known) -> Known | None:
        """Return a table as the stream had it before the first of its changes that waits here; None: it had none."""
        at = next((each.at for each in self._waiting(known.key)), {})
        shard = min(at, default=0)
        seq = at[shard] - 1 if at else None
        meaning = NamesMeant(self.connection, self.catalog)
        id_ = meaning.table(folded(known.name), shard, seq)
        if not id_:
            return None
        names = columns_of(known.sql)
        if not any(each.id == id_ for each in self.catalog.values()):
            ids = {name: f"{id_}.{name}" for name in names}  # a dropped table's columns are known no more
        else:
            meant = {name: meaning.column(id_, name, shard, seq) for name in names}
            ids = {name: column for name, column in meant.items() if column}
        self.ids[known.number] = ids
        listed = tuple(sorted(ids.items()))
        return replace(known, id=id_, columns=listed, sql=without(known.sql, names.keys() - ids.keys()))

    # what is not here ----------------------------------------------------------------------------------------------

    def _was_here(self, theirs: Known) -> bool:
        """Return whether an object of the stream's is here, or was dropped here: what can't be made was left out."""
        if theirs.kind == "table" and theirs.columns:
            known = mirror_file.table_ids(self.connection)
            return any(n == mirror_file.DROPPED for name, n in known.items() if folded(name) == theirs.key[1])
        here = self.file.get(theirs.key)
        if here is not None:
            return here.kind == theirs.kind
        return theirs.kind != PRAGMA and (self._went_with_table(theirs) or self._can_be_made(theirs))

    def _went_with_table(self, theirs: Known) -> bool:
        """Return whether an index or a trigger is on a table that was dropped or changed here."""
        key = "table", folded(theirs.table)
        here, known = self.file.get(key), self.catalog.get(key)
        return theirs.kind in ("index", "trigger") and (here is None or known is None or not here.same(known))

    def _can_be_made(self, theirs: Known) -> bool:
        self.connection.execute("SAVEPOINT attempt")
        try:
            make_working(self.connection, Definition.of(theirs))
        except (apsw.Error, DefinitionError):
            return False
        finally:
            self.connection.execute("ROLLBACK TO attempt")
            self.connection.execute("RELEASE attempt")
        return True


def _filled(theirs: str, here: Mapping[str, ColumnText]) -> str:
    """Return the stream's definition of a table with the defaults without which SQLite would not have added columns."""
    parts = parts_of(theirs)
    if parts is None:
        return theirs
    return parts.text(
        here[name].text if name in here and _is_filled(column, here[name]) else column.text
        for name, column in parts.columns.items()
    )


def _is_filled(theirs: ColumnText, here: ColumnText) -> bool:
    """Return whether a column differs in a default alone that one must have here, and has not in the stream."""
    words = normal(theirs.text)
    if "null" not in words or "default" in words or "default" not in normal(here.text):
        return False
    return normal(with_default(here, theirs)) == words
