"""Put an overruled value back: a write like the application's, captured and published like those.

Invariant: only the overruled column of that row is written, and only while it still holds the winning value of the
journal; what was written since is never touched.
"""

from __future__ import annotations

from harmonylite.db.replica_options import ReplicaOptions
from harmonylite.db.sqlite.connection import open_file, transaction
from harmonylite.db.sqlite.lossless import marks
from harmonylite.db.sqlite.real_digits import use
from harmonylite.errors import ChangedSinceError
from harmonylite.model import Conflict, text_of
from harmonylite.schema.names import ROWIDS
from harmonylite.schema.sql import quote

KINDS = ("update", "insert", "join")
"""Kinds of conflicts after which the row is still there: one of its columns can be set."""


def put_back(options: ReplicaOptions, conflict: Conflict, digits: int) -> None:
    """Set the column of ``conflict`` to the overruled value, in a separate transaction.

    The capture triggers log it, and the application's triggers run. ``digits``: those of the replica. Raises
    ChangedSinceError if the row is gone, or its column holds another value by now; DatabaseError,
    DatabaseBusyError.
    """
    key = {name: value for name, value in conflict.key.items() if value is not None or name not in ROWIDS}
    row = f"{conflict.table} {', '.join(f'{name}={text_of(value)}' for name, value in key.items())}"
    if conflict.kind not in KINDS or not key:
        raise ChangedSinceError(f"{row}: a conflict of kind {conflict.kind} has no single column to set")
    new, bound = marks([conflict.overruled])
    conditions = []
    for name, value in [*key.items(), (conflict.column, conflict.winning)]:
        place, more = marks([value])
        conditions.append(f"{quote(name)} IS {place}")
        bound += more
    sql = f"UPDATE {quote(conflict.table)} SET {quote(conflict.column)} = {new} WHERE {' AND '.join(conditions)}"
    connection = open_file(options.database)
    try:
        use(connection, digits)
        with transaction(connection, f"put {row} back", immediate=True):
            before = connection.total_changes()
            connection.execute(sql, bound)
            if connection.total_changes() == before:
                raise ChangedSinceError(
                    f"{row}: column {conflict.column} does not hold {text_of(conflict.winning)} any more",
                    advice="it was written again since, or the row is gone; look at it before you write it",
                )
    finally:
        connection.close()
