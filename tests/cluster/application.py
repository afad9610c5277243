"""An application, as a process of its own with the SQLite that Python brings: ``python application.py FILE``.

Each line of input is one JSON request, each answer one line:

``[[sql, values], …]``  one transaction; answers ``{"rows": …}``, or ``{"error": …}`` when SQLite refuses it
``{"hold": [[sql, values], …]}``  the same, but commits only when the next line comes
``{"plain": [sql, …]}``  each statement for itself, outside of transactions: ``PRAGMA``, ``ATTACH``
``{"load": NAME, "pause": S, "most": N, "accounts": K}``  transactions without end, or N of them; the number of each is
    told once it is committed. Every one inserts an event, counts the writer's own counter up, changes a row that
    everybody fights over and moves money between two of the writer's K accounts, whose sum stays 0.

Invariant: nothing of HarmonyLite is imported; what is written here, any program could have written.
"""

from __future__ import annotations

import json
import random
import sqlite3
import sys
import time
from typing import Any

TABLES = """
CREATE TABLE events(id TEXT PRIMARY KEY, writer TEXT NOT NULL, n INTEGER NOT NULL, note TEXT);
CREATE TABLE counters(writer TEXT PRIMARY KEY, n INTEGER NOT NULL);
CREATE TABLE fought(id INTEGER PRIMARY KEY, value TEXT, last TEXT);
CREATE TABLE accounts(writer TEXT, k INTEGER, amount INTEGER NOT NULL, PRIMARY KEY(writer, k)) WITHOUT ROWID;
INSERT INTO fought SELECT value, 'at first', '' FROM json_each('[1,2,3,4,5]');
"""


def main(path: str) -> None:
    """Serve the file ``path`` until the input ends."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=60)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if isinstance(request, dict) and "load" in request:
                load(connection, **request)
            elif isinstance(request, dict) and "plain" in request:
                for sql in request["plain"]:
                    connection.execute(sql).fetchall()
                answer({"rows": 0})
            elif isinstance(request, dict):
                write(connection, request["hold"], hold=True)
            else:
                write(connection, request)
        except sqlite3.Error as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            answer({"error": f"{type(error).__name__}: {error}"})
    connection.close()


def write(connection: sqlite3.Connection, statements: list[Any], *, hold: bool = False) -> None:
    """Run ``statements`` in one transaction."""
    rows = 0
    connection.execute("BEGIN IMMEDIATE")
    for sql, values in statements:
        rows += max(0, connection.execute(sql, values).rowcount)
    if hold:
        answer({"held": True})
        if not sys.stdin.readline():
            return
    connection.execute("COMMIT")
    answer({"rows": rows})


def load(connection: sqlite3.Connection, *, load: str, pause: float = 0.0, most: int = 0, accounts: int = 4) -> None:
    """Write without end, or ``most`` transactions."""
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("INSERT INTO counters VALUES (?, 0) ON CONFLICT DO NOTHING", (load,))
    connection.executemany(
        "INSERT INTO accounts VALUES (?, ?, 0) ON CONFLICT DO NOTHING", [(load, k) for k in range(accounts)]
    )
    done = int(connection.execute("SELECT n FROM counters WHERE writer = ?", (load,)).fetchone()[0])
    connection.execute("COMMIT")
    for n in range(done + 1, done + most + 1 if most else sys.maxsize):
        giver, taker = random.sample(range(accounts), 2)
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO events VALUES (?, ?, ?, ?)", (f"{load}-{n}", load, n, "x" * (n % 50)))
        connection.execute("UPDATE counters SET n = n + 1 WHERE writer = ?", (load,))
        connection.execute("UPDATE fought SET value = ?, last = ? WHERE id = ?", (f"{load}-{n}", load, n % 5 + 1))
        for k, amount in ((giver, -n), (taker, n)):
            connection.execute("UPDATE accounts SET amount = amount + ? WHERE writer = ? AND k = ?", (amount, load, k))
        connection.execute("COMMIT")
        answer(n)
        time.sleep(pause)
    answer("done")


def answer(what: Any) -> None:
    """Print one line of JSON, at once."""
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
