"""An application, as a process of its own: it opens its file with SQLite, writes, and knows nothing of HarmonyLite.

``python -m harmonylite.demo.writer FILE`` reads lines of JSON, each a list of transactions, each a list of
``[sql, bindings]``, and answers each with one line. A line ``{"hold": [...]}`` runs one transaction, answers, and
commits only when the next line comes.

Invariant: nothing of this package is imported; what is written here, any program could have written.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import apsw

LOCK_WAIT_MS = 20_000


def main(path: str) -> None:
    """Serve the file ``path`` until the input ends."""
    connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READWRITE)
    connection.set_busy_timeout(LOCK_WAIT_MS)
    connection.pragma("foreign_keys", "on")
    for line in sys.stdin:
        request = json.loads(line)
        if isinstance(request, dict):
            hold(connection, request["hold"])
        else:
            answer(write(connection, request))
    connection.close()


def write(connection: apsw.Connection, transactions: list[list[Any]]) -> dict[str, float]:
    """Run each of ``transactions`` and commit it; tell how many rows they changed and how long it took."""
    started, rows = time.monotonic(), 0
    for statements in transactions:
        connection.execute("BEGIN IMMEDIATE")
        rows += run(connection, statements)
        connection.execute("COMMIT")
    done = time.monotonic()
    return {"commits": len(transactions), "rows": rows, "seconds": done - started, "done": done}


def hold(connection: apsw.Connection, statements: list[Any]) -> None:
    """Run ``statements``, say so, and commit when told."""
    connection.execute("BEGIN IMMEDIATE")
    rows = run(connection, statements)
    answer({"held": True})
    if not sys.stdin.readline():
        return  # nobody is there any more; closing rolls back
    connection.execute("COMMIT")
    answer({"commits": 1, "rows": rows, "seconds": 0.0, "done": time.monotonic()})


def run(connection: apsw.Connection, statements: list[Any]) -> int:
    """Run the statements of one transaction; return how many rows they changed, triggers' work not counted."""
    rows = 0
    for sql, values in statements:
        connection.execute(sql, values)
        rows += connection.changes()
    return rows


def answer(what: dict[str, Any]) -> None:
    """Print one line of JSON, at once."""
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
