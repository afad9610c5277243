"""Read what a change set, or the mirror of another node, says of the schema.

Invariant: what comes from outside is checked line by line before anything of it is done: a definition is one CREATE
statement of its kind and name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import apsw

from harmonylite.changes.reassembler import Fragment
from harmonylite.db.mirror import mirror_file
from harmonylite.db.mirror.database_schema import captured_there, is_remembered
from harmonylite.db.mirror.former_names import former_columns
from harmonylite.db.sqlite.connection import reading
from harmonylite.db.sqlite.untrusted_ddl import KINDS, Definition
from harmonylite.db.sqlite.untrusted_ddl import decode as decode_definition
from harmonylite.errors import DefinitionError
from harmonylite.schema.section import COLUMNS, PRAGMA, PRAGMAS, SECTION, Known, SchemaChange, decode
from harmonylite.schema.sql import is_private, quote
from harmonylite.wire import KIND_SCHEMA


@dataclass(frozen=True)
class SchemaSection:
    """Changes to make here. ``node``: whose they are; ``at``: their place in the order, by shard.

    ``captured``: what counts as captured then, where it is here. ``base``: up to where their writer knew the order;
    ``session``: the one in which it wrote them.
    """

    changes: list[SchemaChange]
    node: str = ""
    at: Mapping[int, int] = field(default_factory=dict)
    captured: list[Known] = field(default_factory=list)
    base: Mapping[int, int] = field(default_factory=dict)
    session: str = ""


def sections_of(fragments: Iterable[Fragment]) -> list[SchemaSection]:
    """Return the sections of change sets, in their order. Raises PoisonError."""
    listed = [fragment for fragment in fragments if fragment.kind == KIND_SCHEMA]
    found = []
    for first in {fragment.id: fragment for fragment in listed}.values():
        at = {fragment.shard: fragment.seq for fragment in listed if fragment.id == first.id}
        found.append(SchemaSection(section_of(first), first.id.node, at, base=first.base, session=first.id.session))
    return found


def section_of(fragment: Fragment) -> list[SchemaChange]:
    """Return the schema section at the head of a change set; nothing where it has none. Raises PoisonError."""
    if fragment.kind != KIND_SCHEMA:
        return []
    head = next((block[0] for block in fragment.decoded() if block), None)
    if head is None or head.table != SECTION or head.columns != COLUMNS:
        raise fragment.broken("a change set that says so has no schema section")
    found = []
    for row in head.inserts:
        try:
            change = decode(row)
            _check(change)
        except (DefinitionError, ValueError) as error:
            raise fragment.broken(f"schema section: {error}") from error
        found.append(change)
    return found


def _check(change: SchemaChange) -> None:
    """Raise DefinitionError or ValueError for a line that no writer of ours makes."""
    if change.kind == PRAGMA:
        number_of(change)
        return
    if change.kind not in KINDS:
        raise ValueError(f"{change.kind[:100]!r} is no kind of object")
    for definition in (change.new, change.old):
        if definition is not None and (definition is change.new or change.new is None):
            decode_definition((change.kind, change.name, change.table, definition))
    if change.new is None and change.old is None:
        raise ValueError(f"{change.kind} {change.name[:100]!r} has no definition")
    names = [name for name in (change.was, *(move[0] for move in change.moves)) if name is not None]
    if any(is_private(name) or name.lower().startswith("sqlite_") or "\0" in name or not name for name in names):
        raise ValueError(f"{change.kind} {change.name[:100]!r} had a name that no application's object has")
    if (change.was is not None or change.moves) and change.kind != "table":
        raise ValueError(f"{change.kind} {change.name[:100]!r} is no table")


def number_of(change: SchemaChange) -> int:
    """Return the number that a pragma is set to; raises ValueError."""
    number = int(change.new or "")
    if change.name not in PRAGMAS or not -(2**31) <= number < 2**31:
        raise ValueError(f"{change.name[:100]!r} is no number of a file's")
    return number


def of_mirror(connection: apsw.Connection, snapshot: Path) -> SchemaSection:
    """Return what the schema of another mirror, the file ``snapshot``, has, without what is known to have gone here."""
    with reading(snapshot) as other:
        return _of_mirror(connection, other)


def _of_mirror(connection: apsw.Connection, other: apsw.Connection) -> SchemaSection:
    captured = captured_there(other) if is_remembered(other, "main") else []
    numbers = [SchemaChange(PRAGMA, known.name, "", None, known.sql) for known in captured if known.kind == PRAGMA]
    definitions = [decode_definition((k.kind, k.name, k.table, k.sql)) for k in captured if k.kind != PRAGMA]
    dropped = {name for name, number in mirror_file.table_ids(connection).items() if number == mirror_file.DROPPED}
    found = []
    for each in definitions:
        if each.table in dropped:
            continue
        gone = ", ".join(quote(name) for name in former_columns(connection, each.table)) if each.kind == "table" else ""
        found.append(
            SchemaChange(each.kind, each.name, each.table, f"CREATE TABLE t({gone})" if gone else None, each.sql)
        )
    found.sort(key=lambda a: Definition(a.kind, a.name, a.table, a.new or "").rank)
    return SchemaSection([*found, *numbers], captured=captured)
