"""The text of a CREATE TABLE statement, item by item: compare two texts, and merge the changes of two writers.

Invariant: a merge takes an item (a column, a table constraint) whole, as its writer wrote it, or not at all.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from harmonylite.schema.columns import (
    REMEMBERED,
    ColumnText,
    columns_of,
    items_of,
    tokens_of,
    unquoted,
    virtual_called,
)
from harmonylite.schema.names import folded
from harmonylite.schema.sql import quote

Moves = Mapping[str, "str | None"]
"""The present name of columns by their former one, None for dropped ones."""


@lru_cache(maxsize=4 * REMEMBERED)
def normal(text: str) -> tuple[str, ...]:
    """Return a normal form, equal for texts of one meaning: tokens without space, comments, quotes, case."""
    return tuple(
        part if part.startswith("'") else unquoted(part) if part[0] in '"`[' else part.lower()
        for part in tokens_of(text)
    )


@dataclass(frozen=True)
class TableText:
    """A statement in parts. ``head``: up to the first parenthesis; ``tail``: from the last one on."""

    head: str
    columns: Mapping[str, ColumnText]
    constraints: tuple[str, ...]
    tail: str

    def rest(self, name: str) -> tuple[str, ...] | None:
        """Return the declaration of the column ``name`` (folded) without its name; None: there is no such column."""
        column = self.columns.get(name)
        return None if column is None else normal(column.text)[1:]

    @property
    def around(self) -> tuple[object, ...]:
        """The declarations of the table as a whole."""
        return (frozenset(map(normal, self.constraints)), normal(self.tail))

    def text(self, columns: Iterable[str]) -> str:
        """Return the statement with these column declarations."""
        return self.head + ", ".join([*columns, *self.constraints]) + self.tail


NOTHING = TableText("", {}, (), "")
"""A missing table."""


@lru_cache(maxsize=REMEMBERED)
def parts_of(sql: str) -> TableText | None:
    """Return the parts of a statement; None if it has no list of columns."""
    columns, constraints, start, end = items_of(sql)
    if not columns or sql.startswith("CREATE VIRTUAL "):
        return None
    return TableText(sql[:start], columns, tuple(constraints), sql[end:])


def same_table(one: str, other: str, *, ordered: bool = True) -> bool:
    """Return whether two statements declare the same table; ``ordered``: with its columns in one order."""
    first, second = parts_of(one), parts_of(other)
    if first is None or second is None:
        return normal(one) == normal(other)
    mine, theirs = ([(n, p.rest(n)) for n in p.columns] for p in (first, second))
    same = mine == theirs if ordered else sorted(mine) == sorted(theirs)
    return same and first.around == second.around


def only_adds(old: str, new: str) -> bool:
    """Return whether ``new`` is ``old`` with more columns and no other change, in any order."""
    before, after = parts_of(old), parts_of(new)
    if before is None or after is None or before.around != after.around:
        return False
    return len(after.columns) > len(before.columns) and all(
        before.rest(name) == after.rest(name) for name in before.columns
    )


def without(sql: str, names: Collection[str]) -> str:
    """Return a statement without the declarations of the columns called ``names`` (folded)."""
    parts = parts_of(sql)
    return sql if parts is None else parts.text(c.text for name, c in parts.columns.items() if name not in names)


@dataclass(frozen=True)
class MergedTable:
    """The result of a merge. ``overruled``: names of the items whose local version stays."""

    sql: str
    overruled: tuple[str, ...] = ()


TABLE = ""
"""The table as a whole, where items are named."""


def merged(base: str, old: str, new: str, mine: str, moves: Moves) -> MergedTable:
    """Return ``mine`` with a writer's changes from ``old`` to ``new``; ``moves``: renamed and dropped columns.

    ``base``: ``mine`` as the stream last knew it; if both changed one item, mine stays.
    """
    b, o, n, m = (parts_of(sql) if sql else NOTHING for sql in (base, old, new, mine))
    if b is None or o is None or n is None or m is None:
        return MergedTable(mine, (TABLE,)) if normal(mine) != normal(base) else MergedTable(new)
    to = {folded(name): None if now is None else folded(now) for name, now in moves.items()}
    back = {now: name for name, now in to.items() if now is not None}
    columns: dict[str, str] = {}
    overruled: list[str] = []
    for name, column in n.columns.items():
        before = back.get(name, name)
        here = before if before in m.columns else name
        if here not in m.columns:
            if before not in o.columns:  # else it was dropped or renamed
                columns[name] = column.text
            continue
        touched = before not in o.columns or o.rest(before) != n.rest(name)
        changed = here not in b.columns or b.rest(here) != m.rest(here)
        if changed and touched and m.rest(here) != n.rest(name):
            overruled.append(column.name)
        theirs = n.rest(name) == m.rest(here) or (touched and not changed)
        columns[name] = column.text if theirs else renamed(m.columns[here], column.name)
    for name, column in m.columns.items():  # columns of this node alone
        went = name in to or (name in o.columns and name not in n.columns)
        if name not in columns and not went:
            columns[name] = column.text
    if list(m.columns) != list(o.columns):  # else the order is the writer's
        mine_first = [to.get(name, name) or name for name in m.columns]
        columns = {name: columns[name] for name in dict.fromkeys((*mine_first, *columns)) if name in columns}
    touched, changed = o.around != n.around, b.around != m.around and m.around != n.around
    if touched and changed:
        overruled.append(TABLE)
    around = n if touched and not changed else m
    made = replace(n, constraints=around.constraints, tail=around.tail).text(columns.values())
    return MergedTable(new if same_table(made, new) else made, tuple(overruled))


def pending_move(name: str, before: str, mine: str) -> bool:
    """Return whether ``mine`` dropped or renamed a column of ``before``, the table as the stream knows it."""
    return folded(name) in columns_of(before) and folded(name) not in columns_of(mine)


def called(sql: str, table: str) -> str:
    """Return a statement that creates the same table under the name ``table``."""
    parts = parts_of(sql)
    if sql.startswith("CREATE VIRTUAL "):
        return virtual_called(sql, table)
    made = parts and replace(parts, head=f"CREATE TABLE {quote(table)}(")
    return sql if made is None else made.text(column.text for column in made.columns.values())


def renamed(column: ColumnText, name: str) -> str:
    """Return the declaration of a column under another name."""
    return column.text if folded(column.name) == folded(name) else quote(name) + column.text[column.after :]


def kept_columns(moves: Moves, old: Sequence[str], new: Sequence[str]) -> list[tuple[str, str]]:
    """Return old and new names of the columns that keep their values."""
    there = {folded(name): name for name in new}
    noted = {folded(name): now for name, now in moves.items()}
    taken = {folded(now) for now in noted.values() if now is not None}
    found = []
    for name in old:
        if folded(name) in noted:
            now = noted[folded(name)]
            if now is not None and folded(now) in there:
                found.append((name, there[folded(now)]))
        elif folded(name) in there and folded(name) not in taken:
            found.append((name, there[folded(name)]))
    return found
