"""Remove everything that HarmonyLite put into the application's file, and nothing else.

Invariant: only names with exactly our prefix are dropped, in one transaction.
"""

from __future__ import annotations

from pathlib import Path

import apsw

from harmonylite.db.sqlite.connection import open_file, rows, transaction
from harmonylite.db.sqlite.side_effect_triggers import drop_statement
from harmonylite.errors import DatabaseBusyError
from harmonylite.schema.sql import PRIVATE

LOCK_SECONDS = 10.0
"""How long another connection's write lock is waited for, in seconds."""


def cleanup(db_path: Path, *, seconds: float = LOCK_SECONDS) -> list[str]:
    """Drop our triggers and tables from ``db_path`` in one transaction; return their names, triggers first.

    No node may be running on the file. Raises DatabaseBusyError or DatabaseError with nothing changed.
    ``seconds``: how long another connection's write lock is waited for.
    """
    connection = open_file(db_path)
    connection.set_busy_timeout(round(seconds * 1000))
    try:
        with transaction(connection, f"clean up {db_path}", immediate=True):
            ours = _private_objects(connection)
            for kind, name in ours:
                connection.execute(drop_statement(kind, name))
        return [name for _, name in ours]
    except DatabaseBusyError as error:
        raise DatabaseBusyError(
            error.message, advice="let the application end what it writes, then try again"
        ) from error
    finally:
        connection.close()


def _private_objects(connection: apsw.Connection) -> list[tuple[str, str]]:
    """Return type and name of each of our objects in the database: exactly our prefix, triggers first."""
    found = rows(connection, "SELECT type, name FROM main.sqlite_schema")
    ours = [(kind, name) for kind, name in found if name.startswith(PRIVATE)]
    return sorted(ours, key=lambda item: ("trigger", "view", "index", "table").index(item[0]))
