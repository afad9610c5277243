"""Read the shapes of the replicated tables from a database's schema.

Invariant: a table that can't have triggers, or has no key that SQL can name, is left out, and a sentence says why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from types import MappingProxyType

import apsw

from harmonylite.db.sqlite.capabilities import mirror_definition, why_unwritable
from harmonylite.db.sqlite.connection import open_scratch, rows, value
from harmonylite.db.sqlite.identities import identify
from harmonylite.db.sqlite.untrusted_ddl import module_of, modules
from harmonylite.schema.columns import REMEMBERED
from harmonylite.schema.names import HELPERS, fits
from harmonylite.schema.shape import Column, TableShape, affinity_of
from harmonylite.schema.sql import OURS_GLOB, is_private, quote

ROWID_NAMES = ("rowid", "_rowid_", "oid")
WIDEST = 950
"""The most columns of a replicated table: two rows and their differences must fit into one result (SQLite: limits,
2,000 columns)."""


@dataclass(frozen=True)
class TableRules:
    """Which tables are replicated and how: globs of names, the tables whose conflicts are decided by row, and what
    identifies records of tables with counted keys, by glob.
    """

    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    by_row: tuple[str, ...] = ()
    identity: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def wanted(self, name: str) -> bool:
        """Return whether to replicate the table ``name``; another tool's private table only if it is named."""
        return _is_wanted(name, self.include, self.exclude)

    def is_by_row(self, name: str) -> bool:
        """Return whether conflicts in table ``name`` are decided for whole rows."""
        return fits(name, self.by_row)


@lru_cache(maxsize=REMEMBERED)
def _is_wanted(name: str, include: tuple[str, ...], exclude: tuple[str, ...]) -> bool:
    named = fits(name, [each for each in include if each != "*"])
    return fits(name, include) and not fits(name, exclude) and (named or not fits(name, HELPERS))


_VIRTUAL = "CREATE VIRTUAL TABLE"
"""How SQLite's catalog begins the definition of a virtual table; only such a table has shadow tables."""

Defined = tuple[str, str, tuple[str, ...]]
"""The name of a table, its definition and those of its indexes."""


@dataclass
class Inventory:
    """The replicated tables by name, and sentences about those left out or with a weakness.

    ``unwritable``: tables that are left out because this process lacks a function or a collation that they need.
    ``read``: what was read of each table, by its definition and those of its indexes.
    """

    tables: dict[str, TableShape] = field(default_factory=dict)
    unwritable: dict[str, TableShape] = field(default_factory=dict)
    warnings: dict[str, str] = field(default_factory=dict)
    read: dict[Defined, tuple[TableShape, str]] = field(default_factory=dict)


def read_inventory(
    connection: apsw.Connection,
    rules: TableRules,
    schema: str = "main",
    *,
    known: Mapping[Defined, tuple[TableShape, str]] = MappingProxyType({}),
) -> Inventory:
    """Return the shapes of all replicated tables of an attached schema.

    ``known``: `Inventory.read` of this connection and schema; what has the same definition is not read once more.
    """
    found = Inventory()
    listing = rows(connection, f"SELECT name, type, wr FROM pragma_table_list WHERE schema = '{schema}'")
    shadows, (definitions, indexes) = shadow_tables(connection, schema), _definitions(connection, schema)
    for name, kind, without_rowid in sorted(listing):
        if kind != "table" or is_private(name) or name.startswith("sqlite_") or not rules.wanted(name):
            continue
        if name in shadows:
            if shadows[name]:
                found.warnings[name] = shadows[name]
            continue
        defined = name, definitions.get(name, ""), tuple(indexes.get(name, ()))
        if defined in known:
            found.tables[name], warning = found.read[defined] = known[defined]
            found.warnings |= {name: warning} if warning else {}
            continue
        try:
            shape, warning = read_shape(connection, name, bool(without_rowid), schema, definitions)
        except apsw.SQLError as error:
            found.warnings[name] = f"table {name} is not replicated: {error}"
            continue
        if shape is not None and (why := why_unwritable(connection, shape, schema)):
            found.unwritable[name] = shape
            found.warnings[name] = (
                f"table {name} is not replicated by this node, which can't write it: {why}; load what the application"
                " has with [extensions], or name the table in [tables] exclude"
            )
            continue
        if warning:
            found.warnings[name] = warning
        if shape is not None:
            found.tables[name] = shape
            found.read[defined] = shape, warning
    found.warnings |= identify(connection, found.tables, rules.identity, schema)
    return found


Listed = tuple[str, str, str, str]
"""Type, name, table and text of an object."""


def application_objects(connection: apsw.Connection) -> list[Listed]:
    """Return type, name, table and text of all objects of ``main`` except ours, SQLite's and shadow tables."""
    theirs = "SELECT type, name, tbl_name, sql FROM main.sqlite_schema WHERE sql IS NOT NULL AND name NOT GLOB ?"
    found = rows(connection, theirs, (OURS_GLOB,))
    shadows: set[str] = set()
    if any(sql.startswith(_VIRTUAL) for _, _, _, sql in found):
        listed = rows(connection, "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'shadow'")
        unlisted = (name for name, why in shadow_tables(connection, "main").items() if not why)
        shadows = {*(name for (name,) in listed), *unlisted}
    return [
        (kind, name, table, sql)
        for kind, name, table, sql in found
        if not name.startswith("sqlite_") and not {name, table} & shadows
    ]


def shadow_tables(connection: apsw.Connection, schema: str) -> dict[str, str]:
    """Return the shadow tables that SQLite lists as ordinary ones, each with its warning.

    A module reports only the ends of their names to SQLite, some modules number them (sqlite-vec), and a missing module
    reports none. So this creates an empty copy of each virtual table to see which tables come with it.
    """
    if value(connection, f"SELECT 1 FROM {quote(schema)}.sqlite_schema WHERE sql GLOB '{_VIRTUAL}*' LIMIT 1") is None:
        return {}
    listing = rows(connection, "SELECT name, type FROM pragma_table_list WHERE schema = ?", (schema,))
    tables = [name for name, kind in listing if kind == "table"]
    found: dict[str, str] = {}
    for virtual in (name for name, kind in listing if kind == "virtual"):
        named = [table for table in tables if table.lower().startswith(f"{virtual}_".lower())]
        if not named:
            continue
        sql = value(connection, f"SELECT sql FROM {quote(schema)}.sqlite_schema WHERE name = ?", (virtual,)) or ""
        if module_of(sql) in modules(connection):
            found |= dict.fromkeys(_made_with(sql) & set(named), "")
            continue
        for table in named:
            found[table] = (
                f"table {table} is not replicated: it seems to belong to the virtual table {virtual}, whose module"
                f" {module_of(sql)} this SQLite lacks"
            )
    return found


@cache
def _made_with(sql: str) -> frozenset[str]:
    """Return the names of the objects that a CREATE VIRTUAL TABLE statement creates in an empty file."""
    scratch = open_scratch()
    try:
        scratch.execute(sql)
        return frozenset(str(name) for (name,) in rows(scratch, "SELECT name FROM main.sqlite_schema"))
    except apsw.Error:
        return frozenset()
    finally:
        scratch.close()


def _definitions(connection: apsw.Connection, schema: str) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Return the text of each table and index by its name, because SQLite's catalog has no index on names.

    Return those of the indexes of each table, too.
    """
    kept = f"FROM {quote(schema)}.sqlite_schema WHERE type IN ('table', 'index') AND sql IS NOT NULL"
    indexes: dict[str, list[str]] = {}
    listed = rows(connection, f"SELECT type, name, tbl_name, sql {kept}")
    for kind, _, table, sql in listed:
        if kind == "index":
            indexes.setdefault(table, []).append(sql)
    return {name: sql for _, name, _, sql in listed}, indexes


def find_shape(connection: apsw.Connection, name: str, schema: str = "main") -> tuple[TableShape | None, str]:
    """Return the shape of a table, in any case, or None and the reason."""
    called = "SELECT name, wr FROM pragma_table_list(?) WHERE schema = ? AND type = 'table'"
    found = rows(connection, called, (name, schema))
    if not found:
        return None, f"there is no table {name}"
    exact, without_rowid = found[0]
    listed = f"SELECT name, sql FROM {quote(schema)}.sqlite_schema WHERE tbl_name = ? AND sql IS NOT NULL"
    return read_shape(connection, exact, without_rowid, schema, dict(rows(connection, listed, (exact,))))


def read_shape(
    connection: apsw.Connection,
    name: str,
    without_rowid: bool,
    schema: str = "main",
    definitions: Mapping[str, str] | None = None,
) -> tuple[TableShape | None, str]:
    """Return one table's shape, or None with the reason; a shape may come with a warning, too.

    ``definitions``: those of the schema, if the caller has read them.
    """
    definitions = _definitions(connection, schema)[0] if definitions is None else definitions
    info = rows(
        connection,
        'SELECT name, type, "notnull", pk, hidden, dflt_value IS NOT NULL FROM pragma_table_xinfo(?, ?)'
        " WHERE hidden IN (0, 2, 3)",
        (name, schema),
    )
    if len(info) > WIDEST:
        return None, f"table {name} is not replicated: it has {len(info)} columns; {WIDEST} are the most"
    names = {row[0].lower() for row in info}
    rowid = "" if without_rowid else next((r for r in ROWID_NAMES if r not in names), "")
    if not without_rowid and not rowid:
        return None, f"table {name} is not replicated: it has columns named rowid, _rowid_ and oid"
    collations = _collations(connection, name, schema, [row[0] for row in info if row[4] == 0])
    columns = [
        Column(column, affinity_of(kind), collations.get(column, "BINARY"), bool(must), pk - 1, defaulted=bool(default))
        for column, kind, must, pk, hidden, default in info
        if hidden == 0
    ]
    keys = sorted((c for c in columns if c.key >= 0), key=lambda c: c.key)
    others = [c for c in columns if c.key < 0]
    integer_key = bool(keys) and not without_rowid and _is_rowid(connection, name, schema, keys)
    warning = ""
    if not keys:
        keys = [Column(rowid, "INTEGER", key=0, pseudo="rowid")]
        warning = (
            f"table {name} has no primary key: its rows are known by rowid; nodes that insert count the same"
            " rowids, so of two such rows one ends in the conflict journal, and VACUUM may renumber them"
        )
    elif not without_rowid and not integer_key and not all(c.not_null for c in keys):
        keys.append(Column(rowid, "INTEGER", key=len(keys), pseudo="null"))
    unique, blind, made = _unique(connection, name, schema, collations)
    indexes = tuple(definitions[index] for index in made if index in definitions)
    shape = TableShape(name, (*keys, *others), rowid, unique, blind, integer_key, definitions.get(name, ""), indexes)
    if schema == "main":  # for a mirror's own tables nothing needs this
        shape = replace(shape, mirror_sql=mirror_definition(connection, shape))
    return shape, warning


def _is_rowid(connection: apsw.Connection, name: str, schema: str, keys: list[Column]) -> bool:
    """Return whether the key is the rowid itself: one INTEGER column without an index."""
    if len(keys) != 1 or keys[0].affinity != "INTEGER":
        return False
    origins = rows(connection, "SELECT origin FROM pragma_index_list(?, ?)", (name, schema))
    return ("pk",) not in origins


def _collations(connection: apsw.Connection, name: str, schema: str, columns: list[str]) -> dict[str, str]:
    found = {}
    for column in columns:
        found[column] = str(connection.column_metadata(schema, name, column)[1]).upper()
    return found


def _unique(
    connection: apsw.Connection, name: str, schema: str, collations: dict[str, str]
) -> tuple[tuple[tuple[str, ...], ...], bool, tuple[str, ...]]:
    """Return the columns of each further unique index, whether any is blind, and their names."""
    unique: list[tuple[str, ...]] = []
    blind = False
    made: list[str] = []
    listing = rows(connection, 'SELECT name, "unique", origin, partial FROM pragma_index_list(?, ?)', (name, schema))
    for index, is_unique, origin, partial in sorted(listing):
        if not is_unique or origin == "pk":
            continue
        parts = rows(connection, "SELECT name, coll FROM pragma_index_xinfo(?, ?) WHERE key", (index, schema))
        if partial or any(column is None or collations.get(column) != coll.upper() for column, coll in parts):
            blind = True
        else:
            unique.append(tuple(column for column, _ in parts))
        made.append(index)
    return tuple(unique), blind, tuple(made)
