"""Take everything out of the application's file that HarmonyLite put into it, and nothing else."""

from __future__ import annotations

from pathlib import Path

from harmonylite.db.connection import open_file, transaction
from harmonylite.db.hooks import drop_statement
from harmonylite.db.install import private_objects


def cleanup(db_path: Path) -> list[str]:
    """Drop our triggers and tables from ``db_path`` in one transaction; return their names, triggers first.

    No node may be running on the file. Raises DatabaseBusyError or DatabaseError with nothing changed.
    """
    connection = open_file(db_path)
    try:
        with transaction(connection, f"clean up {db_path}", immediate=True):
            ours = private_objects(connection)
            for kind, name in ours:
                connection.execute(drop_statement(kind, name))
        return [name for _, name in ours]
    finally:
        connection.close()
