"""The schema section of a change set: what its writer changed in the schema since its last capture.

Invariant: a section says for each name what happened to it, from the writer's former definition to its present one;
applied in order, it leads from the one schema to the other.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from harmonylite.schema.columns import ColumnText, added, columns_of
from harmonylite.schema.merging import Declared
from harmonylite.schema.names import folded
from harmonylite.schema.sql import PRIVATE
from harmonylite.schema.table_text import Moves, normal, only_adds, same_table, without
from harmonylite.wire import TableBlock, WireError, decode_value, encode_value

SECTION = f"{PRIVATE}schema"
"""The table name of the section within a change set; no application's table has this name."""
PLAIN = ["kind", "name", "tbl", "old", "new"]
"""The fields of a line of additions."""
COLUMNS = [*PLAIN, "was", "moves", "number"]
"""The fields of a line of any change."""
PRAGMA = "pragma"
GONE = -1
"""The number of a table that the stream knows and that was seen to be gone here: one of its name is another one."""
PRAGMAS = ("user_version", "application_id")
_ORDER = ("table", "index", "view", "trigger", PRAGMA)

Key = tuple[str, str]


@dataclass(frozen=True)
class Known:
    """One object of a schema: ``kind`` as in sqlite_schema, or `PRAGMA`; ``number``: of the table in the log, 0 where
    it has none, or `GONE`.

    ``id``: the table's identity in the stream, "" where it has none yet; ``columns``: names (folded) and identities of
    its columns.
    """

    kind: str
    name: str
    table: str
    sql: str
    number: int = 0
    id: str = ""
    columns: tuple[tuple[str, str], ...] = ()

    @property
    def declared(self) -> Declared:
        """The table's definition with the identities of its columns."""
        return Declared(self.sql, dict(self.columns))

    @cached_property
    def key(self) -> Key:
        """The identity of the object: tables and views share one namespace, and letters have no case."""
        return key_of(self.kind, self.name)

    @property
    def is_virtual(self) -> bool:
        """Whether the object is a virtual table."""
        return self.sql.startswith("CREATE VIRTUAL ")

    def equals(self, other: Known) -> bool:
        """Return whether two are equal but for the number, which each file gives."""
        mine, theirs = (self.kind, self.name, self.table, self.sql), (other.kind, other.name, other.table, other.sql)
        return mine == theirs and self.id == other.id and self.columns == other.columns

    def same(self, other: Known) -> bool:
        """Return whether two definitions mean the same."""
        if self is other:
            return True
        if self.kind != other.kind or self.kind == PRAGMA:
            return self.kind == other.kind and self.sql == other.sql
        if self.columns and other.columns and dict(self.columns) != dict(other.columns):
            return False
        return self.sql == other.sql or (
            same_table(self.sql, other.sql) if self.kind == "table" else normal(self.sql) == normal(other.sql)
        )


def key_of(kind: str, name: str) -> Key:
    """Return the `Known.key` of an object."""
    return ("table" if kind == "view" else kind), folded(name)


@dataclass(frozen=True)
class SchemaChange:
    """One line of a section. ``old``: the writer's former definition, None: the object is new; ``new``: its present
    one, None: the object was dropped.

    ``was``: the former name of a renamed table. ``moves``: former names of a table's columns that no longer exist, with
    their new names, None for dropped ones. ``number``: the table's number in its writer's log, by which the writer
    identifies the table when the change comes back.
    """

    kind: str
    name: str
    table: str
    old: str | None
    new: str | None
    was: str | None = None
    moves: tuple[tuple[str, str | None], ...] = ()
    number: int = 0

    @property
    def key(self) -> Key:
        """See `Known.key`."""
        return key_of(self.kind, self.name)

    @property
    def old_key(self) -> Key:
        """The former key of the object."""
        return self.key if self.was is None else key_of(self.kind, self.was)

    @property
    def is_plain(self) -> bool:
        """Whether a line of additions can express it."""
        return self.new is not None and self.was is None and not self.moves and not self.number

    @property
    def adds(self) -> bool:
        """Return whether it removes, renames or redefines nothing."""
        if self.kind == PRAGMA or self.new is None or self.was is not None:
            return self.kind == PRAGMA
        return self.old is None or (self.kind == "table" and only_adds(self.old, self.new))

    def __str__(self) -> str:
        if self.kind == PRAGMA:
            return f"{self.kind} {self.name} = {self.new}"
        if self.new is None:
            return f"drop {self.kind} {self.name}"
        if self.was is not None:
            return f"rename {self.kind} {self.was} to {self.name}"
        if self.old is None or self.kind != "table":
            return f"{self.kind} {self.name}"
        if self.adds:
            return f"table {self.name}: columns {', '.join(c.name for c in added(self.old, self.new))}"
        noted = [f"{old} to {new}" if new is not None else f"without {old}" for old, new in self.moves]
        return f"table {self.name}: {', '.join(noted) or 'made in another way'}"


def changes(
    captured: Iterable[Known],
    now: Iterable[Known],
    there: Collection[Key],
    moves_of: Callable[[str, str, str], Moves],
) -> list[SchemaChange]:
    """Return the changes from ``captured`` to ``now``, in an order in which they can be applied.

    ``there``: the keys of all objects in the file; one of them that ``now`` lacks was not dropped. ``moves_of``:
    returns what happened to a table's columns, given its name, its old and its new definition.
    """
    before = {known.key: known for known in captured}
    lost = {known.key[1] for known in before.values() if known.number == GONE}
    before = {key: k for key, k in before.items() if k.kind not in ("index", "trigger") or folded(k.table) not in lost}
    numbers = {known.number: known for known in before.values() if known.number}
    listed = list(now)
    live = {known.number: known.key for known in listed if known.number}
    origins = {known.key: _origin(known, before, numbers, live) for known in listed}
    claimed = {was.key for was in origins.values() if was is not None}
    found = []
    for key, was in before.items():
        if key not in claimed and was.kind != PRAGMA and (key not in there or key in origins):
            found.append(SchemaChange(was.kind, was.name, was.table, was.sql, None))
    for known in listed:
        came = origins[known.key]
        if came is None:
            found.append(SchemaChange(known.kind, known.name, known.table, None, known.sql, number=known.number))
        elif came.key != known.key or not came.same(known):
            renamed = came.name if came.key != known.key else None
            moves = moves_of(known.name, came.sql, known.sql) if known.kind == "table" else {}
            noted = tuple(sorted(moves.items()))
            found.append(
                SchemaChange(known.kind, known.name, known.table, came.sql, known.sql, renamed, noted, known.number)
            )
    return sorted(found, key=_rank)


def _origin(
    known: Known, before: Mapping[Key, Known], numbers: Mapping[int, Known], live: Mapping[int, Key]
) -> Known | None:
    """Return the former ``known``: the object with its number, else the one with its name that was not renamed.

    ``live``: the keys of the tables of today by their numbers.
    """
    if known.number in numbers and numbers[known.number].kind == known.kind:
        return numbers[known.number]
    was = before.get(known.key)
    if was is None or was.kind != known.kind or was.number == GONE:
        return None
    return None if live.get(was.number, known.key) != known.key else was


def _rank(change: SchemaChange) -> tuple[int, int, bool]:
    place = _ORDER.index(change.kind)
    if change.new is None:
        return 0, -place, False
    if change.was is not None:
        return 1, 0, False
    return (
        (2 if change.kind == "table" and change.old is not None else 3),
        place,
        change.new.startswith("CREATE VIRTUAL"),
    )


def changed_numbers(captured: Iterable[Known], now: Iterable[Known]) -> list[SchemaChange]:
    """Return the numbers of the file's header that differ from the captured ones."""
    known = {each.key: each for each in captured}
    return [
        SchemaChange(PRAGMA, each.name, "", known[each.key].sql, each.sql)
        for each in now
        if each.kind == PRAGMA and each.key in known and known[each.key].sql != each.sql
    ]


def brought_along(captured: Iterable[Known], now: Iterable[Known]) -> tuple[list[SchemaChange], list[Known]]:
    """Return the additions of ``now`` over ``captured``, which a joining file contributes, and what is captured then.

    A definition that differs is not sent: it counts as captured with its local text.
    """
    listed, known = list(now), {each.key: each for each in captured}
    found, kept = changed_numbers(known.values(), listed), []
    changed = {change.key for change in found}
    numbers = {each.number for each in known.values() if each.number}
    for each in listed:
        was = known.get(each.key)
        more = _more(was, each)
        if was is None and each.number not in numbers:  # else it was renamed
            found.append(SchemaChange(each.kind, each.name, each.table, None, each.sql))
        elif more:
            base = without(each.sql, {folded(column.name) for column in more})
            found.append(SchemaChange(each.kind, each.name, each.table, base, each.sql))
            kept.append(replace(each, sql=base))
        else:
            kept.append(was if was is not None and each.key in changed else each)
    return sorted(found, key=_rank), kept


def _more(was: Known | None, now: Known) -> list[ColumnText]:
    """Return the columns added to a table; none if it also lost or renamed columns."""
    if was is None or not was.kind == now.kind == "table" or columns_of(was.sql).keys() - columns_of(now.sql).keys():
        return []
    return added(was.sql, now.sql)


def additive_part(change: SchemaChange) -> SchemaChange:
    """Return the additive part of a table's change, ``change`` itself if that is nothing, or all of it.

    A column that comes while another one gets its name, or goes, is none: it may hold that one's values.
    """
    if change.old is None or change.new is None or change.was is not None or change.moves or change.adds:
        return change
    more = _more(Known("table", change.name, change.table, change.old), Known("table", change.name, "", change.new))
    old = without(change.new, {folded(column.name) for column in more})
    return replace(change, old=old) if more else change


def encode(section: Sequence[SchemaChange]) -> TableBlock:
    """Return a section as the table part at the head of a change set."""
    columns = PLAIN if all(change.is_plain for change in section) else COLUMNS
    return TableBlock(SECTION, columns, 2, [], [line_of(change)[: len(columns)] for change in section])


def line_of(change: SchemaChange) -> list[object]:
    """Return the line of a section for ``change``."""
    c = change
    moves = encode_value([list(move) for move in c.moves]) if c.moves else None
    return [c.kind, c.name, c.table, c.old, c.new, c.was, moves, c.number or None]


def decode(row: Sequence[object], width: int = len(COLUMNS)) -> SchemaChange:
    """Return the change in one line of a section, ``width`` values; raises ValueError for a malformed one."""
    if len(row) != width:
        raise ValueError("a line of a schema section is not as wide as its columns")
    padding: list[object] = [None] * (len(COLUMNS) - width)
    kind, name, table, old, new, was, moves, number = [*row, *padding]
    if not (isinstance(kind, str) and isinstance(name, str) and isinstance(table, str)):
        raise ValueError("kind, name and table of a line of a schema section are not texts")  # noqa: TRY004
    if not all(text is None or isinstance(text, str) for text in (old, new, was)):
        raise ValueError("a definition in a schema section is no text")
    if number is not None and not isinstance(number, int):
        raise ValueError("the number of a table in a schema section is none")
    found = _moves(moves) if moves is not None else ()
    return SchemaChange(kind, name, table, old, new, was, found, number or 0)  # type: ignore[arg-type]


def _moves(packed: object) -> tuple[tuple[str, str | None], ...]:
    try:
        pairs = decode_value(packed) if isinstance(packed, bytes) else None
    except WireError as error:
        raise ValueError("columns in a schema section can't be read") from error
    if not isinstance(pairs, list):
        raise ValueError("columns in a schema section are no list")  # noqa: TRY004 - as all that is wrong here
    return tuple(_move(pair) for pair in pairs)


def _move(pair: object) -> tuple[str, str | None]:
    if isinstance(pair, list) and len(pair) == 2:
        old, new = pair
        if isinstance(old, str) and (new is None or isinstance(new, str)):
            return old, new
    raise ValueError("columns in a schema section are not pairs of names")
