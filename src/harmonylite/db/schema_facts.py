"""The database's schema, as nodes compare it and people read it.

Invariant: two files have the same digest exactly where they have the same replicated tables, columns, keys, indexes,
views, triggers and ``user_version``, whatever the order of columns, the white space and the quotes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256

import apsw

from harmonylite.db.sqlite.connection import rows, value
from harmonylite.db.sqlite.introspection import TableRules, application_objects
from harmonylite.db.tracking.installed import schema_version
from harmonylite.schema.names import folded
from harmonylite.schema.shape import TableShape, outline
from harmonylite.schema.table_text import normal

USER_VERSION = "user_version"
"""What `SchemaFacts.outlines` calls the number that an application gives its schema."""


@dataclass(frozen=True)
class SchemaFacts:
    """``objects``: kind, name and definition of each; ``tables``: how many of them are tables; ``identities``: a digest
    of what identifies records of counted tables, "" where nothing does; ``columns``, ``affinities``: digests of the
    columns of replicated tables, by name and by name and affinity; ``outlines``: digest by kind and name of each.
    """

    hash: str
    version: int
    objects: list[tuple[str, str, str]] = field(default_factory=list)
    identities: str = ""
    columns: str = ""
    affinities: str = ""
    outlines: dict[str, str] = field(default_factory=dict)

    @property
    def tables(self) -> int:
        """How many tables there are."""
        return sum(kind == "table" for kind, _, _ in self.objects)


def moved(connection: apsw.Connection) -> tuple[int, int]:
    """Return what changes with every change of the schema or of ``user_version``; it costs next to nothing."""
    return schema_version(connection), int(value(connection, "PRAGMA main.user_version"))


def read_facts(connection: apsw.Connection, rules: TableRules, shapes: Iterable[TableShape] = ()) -> SchemaFacts:
    """Return the schema of ``main``; tables that ``rules`` exclude are no part of it."""
    found = sorted(
        (kind, name, sql) for kind, name, table, sql in application_objects(connection) if rules.wanted(table)
    )
    version = int(value(connection, "PRAGMA main.user_version"))
    facts = [(kind, folded(name), _outline(connection, kind, name, sql)) for kind, name, sql in found]
    shapes = list(shapes)
    identities = sorted((folded(shape.name), shape.identity) for shape in shapes if shape.identity)
    kinds = sorted((folded(s.name), sorted((folded(c.name), c.affinity) for c in s.columns)) for s in shapes)
    return SchemaFacts(
        _digest((facts, version)),
        version,
        found,
        identities=_digest(identities) if identities else "",
        columns=outline(shapes),
        affinities=_digest(kinds),
        outlines={f"{kind} {name}": _digest(outline) for kind, name, outline in facts} | {USER_VERSION: str(version)},
    )


def _outline(connection: apsw.Connection, kind: str, name: str, sql: str) -> object:
    """Return an object's definition in a normal form, so that equivalent definitions are equal."""
    if kind != "table" or sql.upper().startswith("CREATE VIRTUAL"):
        return normal(sql)
    columns = 'SELECT lower(name), upper(type), "notnull", dflt_value, pk, hidden FROM pragma_table_xinfo(?, ?)'
    listed = 'SELECT "unique", origin, partial, group_concat(lower(i.name)) FROM pragma_index_list(?1, ?2) AS l'
    unique = f"{listed}, pragma_index_info(l.name, ?2) AS i WHERE l.origin <> 'c' GROUP BY l.name"
    keys = 'lower("table"), lower("from"), lower("to"), on_update, on_delete'
    refers = f"SELECT {keys} FROM pragma_foreign_key_list(?, ?)"
    kinds = "SELECT wr, strict FROM pragma_table_list WHERE schema = ?2 AND name = ?1"
    return [sorted(map(repr, rows(connection, each, (name, "main")))) for each in (columns, unique, refers, kinds)]


def _digest(facts: object) -> str:
    return sha256(repr(facts).encode()).hexdigest()[:16]
