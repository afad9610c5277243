"""The schema of the stream: the fold of all schema sections, the same on every node that has folded the same ones.

Invariant: it depends on nothing but the catalog before and the section. A table and a column get their identity from
the section that brings them, and keep it under any name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from harmonylite.schema.columns import columns_of, on_table
from harmonylite.schema.merging import Declared, distinct, merge
from harmonylite.schema.names import folded
from harmonylite.schema.section import PRAGMA, Key, Known, SchemaChange, key_of
from harmonylite.schema.table_text import Moves, called

Catalog = dict[Key, Known]

TableMeant = Callable[[str], str]
"""Returns the identity of the table that a section's writer meant by a name (folded), "" where it had none."""
ColumnMeant = Callable[[str, str], str]
"""The same of a column, by the table's identity and the column's name (folded)."""
TableHad = Callable[[str], bool]
"""Returns whether a section's writer knew the table of an identity, by whatever name."""


@dataclass
class FoldedCatalog:
    """A catalog after a section. ``meant``: by the names (folded) that tables have for the section's writer since, the
    table's identity ("": there is none) and the identities of its columns by their names there (folded).
    """

    catalog: Catalog
    meant: dict[str, tuple[str, dict[str, str]]] = field(default_factory=dict)


def tables_of(catalog: Iterable[Known]) -> dict[str, Known]:
    """Return the tables with an identity."""
    return {known.id: known for known in catalog if known.kind == "table" and known.id}


def identified(known: Known, place: str) -> Known:
    """Return a table whose identity, and those of its columns, come from ``place``."""
    if known.kind != "table" or known.id:
        return known
    return replace(
        known, id=place, number=0, columns=tuple((name, f"{place}.{name}") for name in columns_of(known.sql))
    )


def fold(
    before: Mapping[Key, Known],
    section: Sequence[SchemaChange],
    change_set: str,
    table_meant: TableMeant,
    column_meant: ColumnMeant,
    table_had: TableHad,
) -> FoldedCatalog:
    """Return the catalog after a section of the change set called ``change_set``."""
    folding = _Folding(dict(before), change_set, table_meant, column_meant, table_had)
    tables = [(place, change) for place, change in enumerate(section) if change.kind == "table"]
    folding.drop([change for _, change in tables if change.new is None])
    for place, change in tables:
        if change.new is not None and change.old is not None:
            folding.change(place, change)
    folding.rename()
    for place, change in tables:
        if change.old is None:
            folding.create(place, change)
    for change in section:
        if change.kind != "table":
            folding.other(change)
    return FoldedCatalog(folding.catalog, folding.meant)


@dataclass
class _Folding:
    catalog: Catalog
    change_set: str
    table_meant: TableMeant
    column_meant: ColumnMeant
    table_had: TableHad
    meant: dict[str, tuple[str, dict[str, str]]] = field(default_factory=dict)
    wanted: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.keys = {id_: known.key for id_, known in tables_of(self.catalog.values()).items()}

    def _table(self, id_: str) -> Known | None:
        return self.catalog[self.keys[id_]] if id_ in self.keys else None

    def drop(self, changes: Sequence[SchemaChange]) -> None:
        """Remove tables, and what belongs to them; one that went before is another one's name by now."""
        found = [self._table(self.table_meant(folded(change.name))) for change in changes]
        gone = {folded(table.name): table.id for table in found if table is not None}
        for key in [k for k, each in self.catalog.items() if folded(each.table) in gone] if gone else ():
            del self.catalog[key]
        for id_ in gone.values():
            del self.keys[id_]

    def change(self, place: int, change: SchemaChange) -> None:
        """Merge what a writer made of a table; of one that another writer dropped before, nothing is left."""
        assert change.old is not None
        assert change.new is not None
        was = change.name if change.was is None else change.was
        table = self._table(self.table_meant(folded(was)))
        self.meant[folded(change.name)] = ("", {})
        if table is None:
            return
        base = Declared(change.old, self._ids(table.id, columns_of(change.old)))
        mine = Declared(change.new, kept_ids(base, change.new, dict(change.moves)))
        self._merge(place, change, table, base, mine)
        if change.was is not None:
            self.wanted[table.id] = change.name

    def _ids(self, table: str, names: Iterable[str]) -> dict[str, str]:
        found = {name: self.column_meant(table, name) for name in names}
        return {name: id_ for name, id_ in found.items() if id_}

    def _merge(self, place: int, change: SchemaChange, table: Known, base: Declared | None, mine: Declared) -> None:
        done = merge(base, table.declared, mine)
        ids = {
            name: done.made.ids.get(name) or f"{self.change_set}:{place}.{name}" for name in columns_of(done.made.sql)
        }
        self.catalog[table.key] = replace(
            table, sql=called(done.made.sql, table.name), columns=tuple(sorted(ids.items()))
        )
        self.meant[folded(change.name)] = (table.id, {m: ids[folded(now)] for m, now in done.names.items()})

    def rename(self) -> None:
        """Give tables their new names, all at once; a name that another table has is that one's."""
        if not self.wanted:
            return
        places = [key for key in self.catalog if key[0] == "table"]
        fixed = {n: key[1] for n, key in enumerate(places)}
        fixed |= {-n: name for n, (kind, name) in enumerate(self.catalog, 1) if kind == "index"}
        moves = {
            n: folded(self.wanted[self.catalog[key].id])
            for n, key in enumerate(places)
            if self.catalog[key].id in self.wanted
        }
        order = {id_: n for n, id_ in enumerate(self.wanted)}
        moves = dict(sorted(moves.items(), key=lambda move: order[self.catalog[places[move[0]]].id]))
        names = distinct(fixed, moves, {})
        moved = {places[n]: self.wanted[self.catalog[places[n]].id] for n in moves if names[n] == moves[n]}
        old = {key: self.catalog.pop(key) for key in moved}
        by_name = {key[1]: now for key, now in moved.items()}
        for key, now in moved.items():
            table = old[key]
            self.catalog[key_of("table", now)] = replace(table, name=now, table=now, sql=called(table.sql, now))
            self.keys[table.id] = key_of("table", now)
        for key, each in list(self.catalog.items()):
            if each.kind not in ("table", PRAGMA) and folded(each.table) in by_name:
                self.catalog[key] = _on(each, by_name[folded(each.table)])

    def create(self, place: int, change: SchemaChange) -> None:
        """Add a table; one of a name that another writer's new table has is that one, with the columns of both.

        What has the name otherwise is another thing, and keeps it.
        """
        assert change.new is not None
        there = self.catalog.get(change.key)
        if there is not None and there.kind == "table" and not self.table_had(there.id):
            self._merge(place, change, there, None, Declared(change.new))
            return
        name, number = change.name, 2
        while any((kind, folded(name)) in self.catalog for kind in ("table", "index")):
            name, number = f"{change.name}_{number}", number + 1
        text = change.new if name == change.name else called(change.new, name)
        made = identified(Known("table", name, name, text), f"{self.change_set}:{place}")
        self.catalog[made.key] = made
        self.keys[made.id] = made.key
        self.meant[folded(change.name)] = (made.id, dict(made.columns))

    def other(self, change: SchemaChange) -> None:
        """Set or remove an index, a view, a trigger, or a number of the file's."""
        there = self.catalog.get(change.key)
        if change.new is None:
            if there is not None and there.kind == change.kind:
                del self.catalog[change.key]
            return
        known = Known(change.kind, change.name, change.table, change.new)
        other = {"index": "table", "view": "index"}.get(change.kind, "")
        if (other, folded(change.name)) in self.catalog:  # SQLite has one name for both
            return
        if change.kind in ("index", "trigger"):
            table = self._its_table(folded(change.table))
            if table is None:
                return
            known = _on(known, table)
        if there is None or there.kind == change.kind:
            self.catalog[change.key] = known

    def _its_table(self, name: str) -> str | None:
        """Return the name of the table or view that the writer calls ``name``; None: it is gone."""
        id_ = self.meant[name][0] if name in self.meant else self.table_meant(name)
        table = self._table(id_)
        if table is not None:
            return table.name
        there = self.catalog.get(("table", name))
        return there.name if there is not None and not id_ and there.kind == "view" else None


def _on(known: Known, table: str) -> Known:
    """Return an index or a trigger on a table called ``table``."""
    return replace(known, table=table, sql=on_table(known.sql, table) if known.kind == "index" else known.sql)


def kept_ids(base: Declared, sql: str, moves: Moves) -> dict[str, str]:
    """Return the identities of the columns of ``sql``, which was ``base``; ``moves``: old names that are no more, and
    the new ones.
    """
    to = {folded(name): None if now is None else folded(now) for name, now in moves.items()}
    came = {now for now in to.values() if now is not None}
    found = {}
    names = columns_of(sql)
    for name, id_ in base.ids.items():
        now = to.get(name, name if name not in came else None)
        if now is not None and now in names:
            found[now] = id_
    return found


def difference(before: Known, after: Known) -> dict[str, str | None]:
    """Return what became of the columns of a table that have another name, or went: names of then and of now."""
    names = {id_: name for name, id_ in after.columns}
    spelled = columns_of(after.sql)
    moves: dict[str, str | None] = {}
    for name, id_ in before.columns:
        now = names.get(id_)
        if now is None:
            moves[name] = None
        elif now != name:
            moves[name] = spelled[now].name if now in spelled else now
    return moves
