"""Tables with counted keys and an identity, and what refers to them: drawn for some of the seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from random import Random

import apsw

Must = Callable[[bool, str], None]

IDENTITY = (("record", ("app", "name")), ("detail", ("record_id", "tag")))
DDL = (
    "CREATE TABLE record(id INTEGER PRIMARY KEY AUTOINCREMENT, app TEXT, name TEXT, at TEXT)",
    "CREATE TABLE detail(id INTEGER PRIMARY KEY, record_id INTEGER REFERENCES record(id), tag TEXT,"
    " UNIQUE(record_id, tag))",
    "CREATE TABLE mention(k TEXT PRIMARY KEY NOT NULL, record_id INTEGER REFERENCES record(id), app TEXT, name TEXT)",
)
APPS, NAMES, TAGS = ("x", "y"), ("1", "2", "3", "4", "5"), ("add", "view")


def recorded(seed: int) -> bool:
    """Return whether the applications of a schedule keep records."""
    return seed % 11 == 4


class Records:
    """What the applications of one schedule recorded. ``made``: app and name of every record that was committed;
    ``mentions``: the keys of what refers to one.
    """

    def __init__(self, seed: int) -> None:
        self.made: set[tuple[str, str]] = set()
        self.mentions: set[str] = set()
        self.deletes = seed % 2 == 0
        self._rng = Random(f"records {seed}")

    def due(self) -> bool:
        """Return whether an application is to write now."""
        return self._rng.random() < 0.3

    def choose(self, nodes: Sequence[str]) -> str:
        """Return the node whose application writes."""
        return self._rng.choice(nodes)

    def transaction(self, node: str, connection: apsw.Connection) -> None:
        """Do what a migration tool does: record what isn't recorded yet, and refer to it."""
        rng = self._rng
        made: set[tuple[str, str]] = set()
        mentions: set[str] = set()
        connection.execute("BEGIN IMMEDIATE")
        for _ in range(rng.choice((1, 1, 2, 4))):
            record = rng.choice(APPS), rng.choice(NAMES)
            there = connection.execute("SELECT min(id) FROM record WHERE app = ? AND name = ?", record).get
            chance = rng.random()
            if there is None:
                connection.execute("INSERT INTO record(app, name, at) VALUES (?, ?, ?)", (*record, node))
                made.add(record)
            elif chance < 0.2:
                connection.execute("UPDATE record SET at = ? WHERE id = ?", (f"{node}{rng.random()}", there))
            elif chance < 0.3 and self.deletes:
                with suppress(apsw.ConstraintError):  # something refers to it
                    connection.execute("DELETE FROM record WHERE id = ?", (there,))
            elif chance < 0.6:
                detail = "INSERT OR IGNORE INTO detail(record_id, tag) VALUES (?, ?)"
                connection.execute(detail, (there, rng.choice(TAGS)))
            else:
                key = f"{node}{rng.random()}"
                connection.execute("INSERT INTO mention VALUES (?, ?, ?, ?)", (key, there, *record))
                mentions.add(key)
        if rng.random() < 0.05:
            connection.execute("ROLLBACK")
            return
        connection.execute("COMMIT")
        self.made |= made
        self.mentions |= mentions

    def check_at_rest(self, connection: apsw.Connection, must: Must) -> None:
        """Every record is there once, and what refers to one refers to that one.

        Where records are deleted, others may get their numbers, and what still refers to them can't be told apart.
        """
        found = connection.execute("SELECT app, name FROM record").fetchall()
        must(len(found) == len(set(found)), f"a record is there twice: {sorted(found)}")
        keys = {key for (key,) in connection.execute("SELECT k FROM mention")}
        must(keys == self.mentions, f"what refers to records is gone: {self.mentions - keys}")
        if self.deletes:
            return
        must(set(found) == self.made, f"records are gone: {self.made - set(found)}")
        wrong = connection.execute(
            "SELECT k, mention.app, mention.name, r.app, r.name FROM mention LEFT JOIN record AS r ON r.id = record_id"
            " WHERE (r.app, r.name) IS NOT (mention.app, mention.name)"
        ).fetchall()
        must(not wrong, f"what refers to a record refers to another one: {wrong}")
