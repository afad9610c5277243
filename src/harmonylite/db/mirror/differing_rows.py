"""Which rows of a mirror are not what they should be."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import apsw

from harmonylite.db.mirror.compare import differing_keys
from harmonylite.db.sqlite.connection import attach, mapped, rows, value
from harmonylite.db.tracking.tracked_table import TrackedTable
from harmonylite.schema.sql import quote

SAMPLE = 5
"""How many keys of a table are named."""


def deviations(
    connection: apsw.Connection, tables: Mapping[str, TrackedTable], right: Path
) -> dict[str, tuple[int, list[tuple[Any, ...]]]]:
    """Return, by table, how many rows of ``mirror`` differ from the mirror file ``right``, and some of their keys."""
    found = {}
    attach(connection, right, "right", read_only=True)
    try:
        with mapped("compare mirrors"):
            for name, table in tables.items():
                known = value(connection, f"SELECT 1 FROM {quote('right')}.sqlite_schema WHERE name = ?", (name,))
                keys = differing_keys(table, table.mirror, f"{quote('right')}.{quote(name)}")
                count = int(value(connection, f"SELECT count(*) FROM ({keys})")) if known else 0
                if count:
                    found[name] = (count, rows(connection, f"SELECT * FROM ({keys}) LIMIT {SAMPLE}"))
    finally:
        connection.execute("DETACH right")
    return found
