"""Read the schema section of a change set, or of another node's mirror.

Invariant: every line from outside is checked before any is applied: a definition is one CREATE statement of its kind
and name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import apsw

from harmonylite.changes.reassembler import Fragment
from harmonylite.db.apply.schema_objects import find_object
from harmonylite.db.mirror import mirror_file
from harmonylite.db.mirror.database_schema import captured_there, is_remembered
from harmonylite.db.mirror.former_names import former_columns
from harmonylite.db.mirror.state import history_of, set_state
from harmonylite.db.mirror.stream_schema import fold_section, forget_meant
from harmonylite.db.mirror.stream_shapes import BROUGHT, been_through, lacks_rows
from harmonylite.db.sqlite.connection import reading, value
from harmonylite.db.sqlite.untrusted_ddl import KINDS, Definition
from harmonylite.db.sqlite.untrusted_ddl import decode as decode_definition
from harmonylite.db.tracking.captured_schema import advance, captured_schema
from harmonylite.errors import DefinitionError
from harmonylite.model import ChangeSetId, Position
from harmonylite.schema.columns import added
from harmonylite.schema.section import (
    COLUMNS,
    PLAIN,
    PRAGMA,
    PRAGMAS,
    SECTION,
    Known,
    SchemaChange,
    decode,
)
from harmonylite.schema.sql import is_private, quote
from harmonylite.wire import KIND_SCHEMA, SECTIONS, encode_value

NO_CHANGE_SET = ChangeSetId("", "", 0)


@dataclass(frozen=True)
class SchemaSection:
    """Changes to make here. ``node``: whose they are; ``at``: their place in the order, by shard.

    ``captured``: what counts as captured then, where it is here. ``base``: up to where their writer knew the order;
    ``session``: the one in which it wrote them, in the change set ``id``.
    """

    changes: list[SchemaChange]
    node: str = ""
    at: Mapping[int, int] = field(default_factory=dict)
    captured: list[Known] = field(default_factory=list)
    base: Mapping[int, int] = field(default_factory=dict)
    session: str = ""
    id: ChangeSetId = NO_CHANGE_SET


def sections_of(fragments: Iterable[Fragment]) -> list[SchemaSection]:
    """Return the sections of change sets, in their order. Raises PoisonError."""
    listed = [fragment for fragment in fragments if fragment.kind in SECTIONS]
    found = []
    for first in {fragment.id: fragment for fragment in listed}.values():
        at = {fragment.shard: fragment.seq for fragment in listed if fragment.id == first.id}
        found.append(
            SchemaSection(section_of(first), first.id.node, at, base=first.base, session=first.id.session, id=first.id)
        )
    return found


def section_of(fragment: Fragment) -> list[SchemaChange]:
    """Return the schema section at the head of a change set, [] if it has none. Raises PoisonError."""
    if fragment.kind not in SECTIONS:
        return []
    head = next((block[0] for block in fragment.decoded() if block), None)
    if head is None or head.table != SECTION or head.columns not in (COLUMNS, PLAIN):
        raise fragment.broken("a change set that says so has no schema section")
    found = []
    for row in head.inserts:
        try:
            change = decode(row, len(head.columns))
            _check(change)
            if fragment.kind != KIND_SCHEMA and not change.is_plain:
                raise ValueError(f"{change} is no addition")
        except (DefinitionError, ValueError) as error:
            raise fragment.broken(f"schema section: {error}") from error
        found.append(change)
    return found


def _check(change: SchemaChange) -> None:
    """Raise DefinitionError or ValueError for a line that no HarmonyLite writes."""
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
    """Return the value that a pragma is set to; raises ValueError."""
    number = int(change.new or "")
    if change.name not in PRAGMAS or not -(2**31) <= number < 2**31:
        raise ValueError(f"{change.name[:100]!r} is no number of a file's")
    return number


def of_mirror(connection: apsw.Connection, snapshot: Path) -> SchemaSection:
    """Return what the schema of another mirror, the file ``snapshot``, has, without what is known to have gone here."""
    with reading(snapshot) as other:
        captured = captured_there(other) if is_remembered(other, "main") else []
    return _additions(connection, captured)


def read_further(connection: apsw.Connection, other: apsw.Connection) -> bool:
    """Return whether a mirror, ``main`` of ``other``, has been through all schema sections that the database has."""
    history, places = been_through(connection, "main")
    theirs, further = been_through(other, "main")
    return not places or (history == theirs and all(further.get(shard, -1) >= seq for shard, seq in places.items()))


def count_captured(connection: apsw.Connection, captured: Iterable[Known]) -> None:
    """Count what another mirror's stream knows, ``captured``, and this database has; what is pending here stays so."""
    listed = {known.key: known for known in captured_schema(connection)}
    found = []
    for theirs in captured:
        here = None if theirs.kind == PRAGMA else find_object(connection, theirs.kind, theirs.name)
        if theirs.kind == PRAGMA:
            if str(value(connection, f"PRAGMA main.{theirs.name}")) == theirs.sql:
                found.append(theirs)
        elif here is not None:
            was = listed.get(theirs.key)
            new = was is None and here.kind == "table" and bool(added(theirs.sql, here.sql))
            pending = new or (was is not None and not was.same(here))
            number = was.number if was is not None else 0
            found.append(Known(here.kind, here.name, here.table, theirs.sql if pending else here.sql, number))
    advance(connection, known=found)


def is_new(connection: apsw.Connection, section: SchemaSection, schema: str) -> bool:
    """Return whether ``main`` or ``mirror`` has not applied a section.

    A failed batch is retried, and a mirror of an earlier state reads sections again that the database has applied.
    """
    history, places = been_through(connection, schema)
    if not section.at or history != history_of(connection, "mirror"):
        return True
    return any(seq > places.get(shard, -1) for shard, seq in section.at.items())


def fold_new(connection: apsw.Connection, sections: Iterable[SchemaSection]) -> None:
    """Fold the sections that the mirror has not been through."""
    if not lacks_rows(connection):
        forget_meant(connection)
    for section in sections:
        if section.at and is_new(connection, section, "mirror"):
            fold_section(connection, section.changes, section.id, section.at, section.base)


def remember(connection: apsw.Connection, section: SchemaSection) -> None:
    """Record that database and mirror have applied a section, in the transaction that does."""
    blob = encode_value([history_of(connection, "mirror"), [list(place) for place in section.at.items()]])
    for schema in ("main", "mirror"):
        if section.at and is_new(connection, section, schema):
            set_state(connection, schema, BROUGHT, blob)


def known_up_to(connection: apsw.Connection, positions: Mapping[int, Position]) -> dict[int, int]:
    """Return, by shard, up to where in the order a change set that is captured now knows the schema.

    Sections are merged before the rows of their batch, which may still wait.
    """
    history, places = been_through(connection, "main")
    places = places if history == history_of(connection, "mirror") else {}
    return {shard: max(position.seq, places.get(shard, 0)) for shard, position in positions.items()}


def remember_all(connection: apsw.Connection, history: str, places: Mapping[int, int]) -> None:
    """Write down that the database has been through all sections that another mirror has."""
    set_state(connection, "main", BROUGHT, encode_value([history, [list(place) for place in places.items()]]))


def _additions(connection: apsw.Connection, captured: list[Known]) -> SchemaSection:
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
