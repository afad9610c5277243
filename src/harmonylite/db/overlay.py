"""The images of a node's own change set on its way back: what a three-way merge of newer local writes starts from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import apsw

from harmonylite.changes.inbox import Piece
from harmonylite.db.exact import marks
from harmonylite.db.tracked import Tracked
from harmonylite.wire import TableBlock


def lay_over(connection: apsw.Connection, table: Tracked, pieces: Iterable[Piece]) -> None:
    """Write the images of ``table`` in ``pieces`` into its ``own`` scratch table; deleted rows are marked ``gone``."""
    connection.execute(f"DELETE FROM {table.scratch('own')}")
    for piece in pieces:
        for block in piece.decoded():
            for part in block:
                if part.table == table.shape.name:
                    _lay(connection, table, part)


def _lay(connection: apsw.Connection, table: Tracked, part: TableBlock) -> None:
    places = [table.shape.names.index(name) for name in part.columns]
    names = ", ".join(f"c{i}" for i in places)
    upserts: list[list[Any]] = [*part.inserts, *(row for group in part.updates for row in group.rows)]
    for gone, images in ((1, part.deletes), (0, upserts)):
        for row in images:
            values, bound = marks(row)
            connection.execute(
                f"INSERT INTO {table.scratch('own')}({names}, gone) VALUES ({values}, {gone})", bound
            )
