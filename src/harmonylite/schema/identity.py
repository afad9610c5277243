"""Which columns identify a record of a table with counted keys: configured ones, else those known for a tool's table.

Two nodes that insert at the same time count the same numbers. If the identity of a row is known, a number that is
taken causes no conflict: the row gets the next free one, and equal identities are one record.

Invariant: a tool's table is recognized only if it has all columns that the tool gives it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from harmonylite.schema.names import find, fits, folded


@dataclass(frozen=True, slots=True)
class Bookkeeping:
    """A table in which ``tool`` records its work. ``identity``: its natural key; ``more``: columns that it also has."""

    tool: str
    table: str
    identity: tuple[str, ...]
    more: tuple[str, ...] = ()


BOOKKEEPING = (
    Bookkeeping("Django", "django_migrations", ("app", "name"), ("applied",)),
    Bookkeeping("Django", "django_content_type", ("app_label", "model")),
    Bookkeeping("Django", "auth_permission", ("content_type_id", "codename")),
    Bookkeeping("Django", "auth_group_permissions", ("group_id", "permission_id")),
    Bookkeeping("Django", "auth_user_groups", ("user_id", "group_id")),
    Bookkeeping("Django", "auth_user_user_permissions", ("user_id", "permission_id")),
    Bookkeeping("Knex", "knex_migrations", ("name",), ("batch", "migration_time")),
    Bookkeeping("goose", "goose_db_version", ("version_id",), ("is_applied",)),
    Bookkeeping("TypeORM", "migrations", ("timestamp", "name")),
    Bookkeeping("Laravel", "migrations", ("migration",), ("batch",)),
    Bookkeeping("db-migrate", "migrations", ("name",), ("run_on",)),
    Bookkeeping("MikroORM", "mikro_orm_migrations", ("name",), ("executed_at",)),
    Bookkeeping("Strapi", "strapi_migrations", ("name",), ("time",)),
    Bookkeeping("Flyway", "flyway_schema_history", ("script", "checksum"), ("installed_rank",)),
    Bookkeeping("Liquibase", "DATABASECHANGELOG", ("ID", "AUTHOR", "FILENAME"), ("ORDEREXECUTED",)),
    Bookkeeping("Aerich", "aerich", ("app", "version"), ("content",)),
    Bookkeeping("Peewee Migrate", "migratehistory", ("name",), ("migrated_at",)),
    Bookkeeping("Piccolo", "migration", ("app_name", "name"), ("ran_on",)),
)
"""Tables with a counted key. Tools that use a name, a version or a random id as the key need no identity."""

_BY_TABLE = {
    folded(known.table): [each for each in BOOKKEEPING if folded(each.table) == folded(known.table)]
    for known in BOOKKEEPING
}

Identities = Iterable[tuple[str, tuple[str, ...]]]
"""Names or patterns of tables, each with its identity, as configured."""


def identity_of(table: str, columns: Collection[str], configured: Identities) -> tuple[str, ...]:
    """Return the columns that identify a record of ``table``, as the table spells them; () if none are known.

    A configured identity with a column that the table lacks is returned as configured.
    """
    for pattern, identity in configured:
        if fits(table, [pattern]):
            return tuple(find(name, columns) or name for name in identity)
    called = folded(table)
    for known in _BY_TABLE.get(called, ()):
        have = {folded(name): name for name in columns}
        if all(folded(name) in have for name in (*known.identity, *known.more)):
            return tuple(have[folded(name)] for name in known.identity)
    return ()


def ranks(refers: Mapping[str, Collection[str]]) -> dict[str, int]:
    """Return the rank of each table with an identity; those that it refers to have lower ones.

    ``refers``: by table, the tables with an identity that its columns refer to. The table that closes a cycle ends it.
    """
    found: dict[str, int] = {}

    def rank(table: str, above: tuple[str, ...]) -> int:
        if table not in found:
            below = [rank(other, (*above, table)) for other in refers.get(table, ()) if other not in (*above, table)]
            found[table] = 1 + max(below, default=-1)
        return found[table]

    for table in refers:
        rank(table, ())
    return found
