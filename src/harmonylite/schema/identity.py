"""Which columns identify a record of a table with counted keys: what a person configured, else what is known of tools.

Two nodes that insert at the same time count the same numbers. Where the identity of a row is known, a number that is
taken is no clash: the row gets the next free one, and equal identities are one record.

Invariant: what is known of a tool's table counts only where the table has all the columns that the tool gives it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from harmonylite.schema.names import find, fits, folded


@dataclass(frozen=True, slots=True)
class Bookkeeping:
    """A table in which ``tool`` keeps what it did. ``identity``: its natural key; ``more``: columns to know it by."""

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
"""Tables whose key is counted. Tools that key theirs by name, version or a random id need no identity."""

Identities = Iterable[tuple[str, tuple[str, ...]]]
"""Names or patterns of tables, each with its identity, as configured."""


def identity_of(table: str, columns: Collection[str], configured: Identities) -> tuple[str, ...]:
    """Return the columns that identify a record of ``table``, as the table spells them; () where none are known.

    A configured identity that names a column which the table lacks is returned as it is written.
    """
    for pattern, identity in configured:
        if fits(table, [pattern]):
            return tuple(find(name, columns) or name for name in identity)
    called = folded(table)
    for known in (each for each in BOOKKEEPING if folded(each.table) == called):
        have = {folded(name): name for name in columns}
        if all(folded(name) in have for name in (*known.identity, *known.more)):
            return tuple(have[folded(name)] for name in known.identity)
    return ()


def ranks(refers: Mapping[str, Collection[str]]) -> dict[str, int]:
    """Return, for each table with an identity, after how many others it comes when those it refers to come first.

    ``refers``: by table, the tables with an identity that its columns refer to. A circle is cut where it is met.
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
