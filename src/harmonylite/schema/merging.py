"""Merge what two writers made of one table, three ways, column by column.

Invariant: a column is known by its identity, never by its name: it keeps that under any name. The same function gives
the stream's schema and every database's, so that both come to the same definition.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from harmonylite.schema.columns import ColumnText
from harmonylite.schema.names import folded
from harmonylite.schema.table_text import TableText, normal, parts_of, renamed, same_table


@dataclass(frozen=True)
class Declared:
    """A table's definition. ``ids``: identities of its columns by name (folded); one without is new."""

    sql: str
    ids: Mapping[str, str] = field(default_factory=dict)

    def same(self, other: Declared) -> bool:
        """Return whether both are the same table, column by column."""
        return dict(self.ids) == dict(other.ids) and same_table(self.sql, other.sql)


@dataclass(frozen=True)
class Merged:
    """What comes of a table. ``names``: by the name (folded) of a column in ``mine``, the one that it has then."""

    made: Declared
    names: Mapping[str, str]


@dataclass
class _Column:
    """One column on its way. ``mine``, ``theirs``: its names (folded) there, "" where it is not."""

    id: str
    mine: str
    theirs: str
    text: ColumnText


def merge(base: Declared | None, theirs: Declared, mine: Declared) -> Merged:
    """Return ``theirs`` with what ``mine`` changed since ``base``; None: both made the table by themselves.

    What both changed stays as it is in ``mine``; a column that went in either is gone. A name that a column of
    ``theirs`` has is that column's: another one keeps, or gets, the name that it has in ``theirs``.
    """
    b, t, m = (parts_of(each.sql) if each is not None else None for each in (base, theirs, mine))
    if t is None or m is None or (base is not None and b is None):
        unchanged = base is not None and normal(base.sql) == normal(mine.sql)
        return Merged(theirs if unchanged else mine, {})
    if base is not None and base.same(mine):
        return Merged(theirs, _kept(mine, theirs))
    if (base is not None and base.same(theirs)) or theirs.same(mine):
        return Merged(mine, {name: column.name for name, column in m.columns.items()})
    ids = _tied(base, t, theirs, m, mine)
    columns = _columns(base, b, t, theirs, m, ids)
    if not columns:
        return Merged(mine, {name: column.name for name, column in m.columns.items()})
    before = {} if base is None else {id_: name for name, id_ in base.ids.items()}
    named = _named(columns, before, m, t)
    changed = m.around != (b.around if b is not None else t.around)
    around = m if changed else t
    texts = [renamed(c.text, name) for c, name in zip(columns, named, strict=True)]
    sql = replace(m, constraints=around.constraints, tail=around.tail).text(texts)
    made = {folded(name): c.id for c, name in zip(columns, named, strict=True) if c.id}
    return Merged(Declared(sql, made), {c.mine: name for c, name in zip(columns, named, strict=True) if c.mine})


def _kept(mine: Declared, theirs: Declared) -> dict[str, str]:
    names = {id_: name for name, id_ in theirs.ids.items()}
    return {name: names[id_] for name, id_ in mine.ids.items() if id_ in names}


def _tied(base: Declared | None, t: TableText, theirs: Declared, m: TableText, mine: Declared) -> dict[str, str]:
    """Return the identities of the columns of ``mine``: a new one of a name that came elsewhere, too, is that one."""
    ids = dict(mine.ids)
    known = {*ids.values(), *(base.ids.values() if base is not None else ())}
    for name in t.columns:
        id_ = theirs.ids.get(name)
        if name in m.columns and name not in ids and id_ is not None and id_ not in known:
            ids[name] = id_
    return ids


def _columns(
    base: Declared | None, b: TableText | None, t: TableText, theirs: Declared, m: TableText, ids: Mapping[str, str]
) -> list[_Column]:
    """Return the columns that stay, in the order of ``theirs``, those that only ``mine`` has behind them."""
    before = {} if base is None else {id_: name for name, id_ in base.ids.items()}
    here = {id_: name for name, id_ in ids.items()}
    found = []
    for name, column in t.columns.items():
        id_ = theirs.ids.get(name, "")
        at = here.get(id_, "") if id_ else ""
        if at:
            was = before.get(id_)
            changed = was is None or b is None or m.rest(at) != b.rest(was)
            found.append(_Column(id_, at, name, m.columns[at] if changed else column))
        elif id_ not in before:
            found.append(_Column(id_, "", name, column))
    there = set(theirs.ids.values())
    for name, column in m.columns.items():
        if name not in ids:
            found.append(_Column("", name, "", column))
        elif ids[name] not in there and ids[name] not in before:
            found.append(_Column(ids[name], name, "", column))
    return found


def _named(columns: list[_Column], before: Mapping[str, str], m: TableText, t: TableText) -> list[str]:
    """Return the name of each column."""
    fixed = {n: c.theirs for n, c in enumerate(columns) if c.theirs}
    wanted = {
        n: c.mine
        for n, c in enumerate(columns)
        if c.theirs and c.mine and c.mine != c.theirs and before.get(c.id, c.theirs) != c.mine
    }
    new = {n: c.mine for n, c in enumerate(columns) if not c.theirs}
    names = distinct(fixed, wanted, new)
    spelled = {**{n: c.name for n, c in t.columns.items()}, **{n: c.name for n, c in m.columns.items()}}
    found = []
    for n, column in enumerate(columns):
        exact = t.columns[column.theirs].name if names[n] == column.theirs else None
        found.append(exact or spelled.get(names[n], names[n]))
    return found


def distinct(fixed: Mapping[int, str], wanted: Mapping[int, str], new: Mapping[int, str]) -> dict[int, str]:
    """Return a name for each of some things, no two the same.

    ``fixed``: names that are given; ``wanted``: others that some of these want, and get where no other one has it;
    ``new``: those of things without a given name, which get a number where theirs is taken.
    """
    moving = dict(wanted)
    while True:
        taken = {name for n, name in fixed.items() if n not in moving}
        first = {name: n for n, name in reversed(moving.items())}
        stay = {n for n, name in moving.items() if name in taken or first[name] != n}
        if not stay:
            break
        moving = {n: name for n, name in moving.items() if n not in stay}
    names = {**fixed, **moving}
    there = set(names.values())
    for n, name in new.items():
        number, free = 2, name
        while free in there:
            free, number = f"{name}_{number}", number + 1
        names[n] = free
        there.add(free)
    return names
