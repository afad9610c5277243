"""What a row costs doesn't grow with its table: no statement on a commit's way reads the whole of one."""

from __future__ import annotations

from typing import Any

import apsw
import pytest

from harmonylite.schema.sql import quote
from tests.parts.db.fix_replicas import Group, Member

ROWS = 40
KEYS = {
    "an integer key": "CREATE TABLE item (id INTEGER PRIMARY KEY, x, y, u)",
    "a text key": "CREATE TABLE item (id TEXT PRIMARY KEY NOT NULL, x, y, u)",
    "a key that may be null": "CREATE TABLE item (id TEXT PRIMARY KEY, x, y, u)",
    "two columns, no rowid": "CREATE TABLE item (id, z DEFAULT 0, x, y, u, PRIMARY KEY (id, z)) WITHOUT ROWID",
    "no key": "CREATE TABLE item (id, x, y, u)",
}
WRITES = (
    "INSERT INTO item (id, x, y, u) VALUES (101, 'new', 0, 101)",
    "UPDATE item SET x = 'a' WHERE id = 2",
    "DELETE FROM item WHERE id = 3",
    "INSERT OR REPLACE INTO item (id, x, y, u) VALUES (4, 'replaced', 0, 4)",
    "UPDATE item SET id = 105 WHERE id = 5",
    "UPDATE item SET u = 106 WHERE id = 6",
)
AT_ONCE = (
    ("UPDATE item SET x = 'mine' WHERE id = 7", "UPDATE item SET y = 'yours' WHERE id = 7"),
    ("UPDATE item SET x = 'mine' WHERE id = 8", "UPDATE item SET x = 'yours' WHERE id = 8"),
    ("UPDATE item SET x = 'mine' WHERE id = 9", "DELETE FROM item WHERE id = 9"),
    ("UPDATE item SET u = 200 WHERE id = 10", "UPDATE item SET u = 200 WHERE id = 11"),
)


class Statements:
    """The statements that a member's connection runs while it is watched, each once."""

    def __init__(self, member: Member) -> None:
        self.connection = member.replica.connection
        self.seen: dict[str, Any] = {}

    def watch(self) -> None:
        self.connection.exec_trace = self._seen

    def _seen(self, _cursor: apsw.Cursor, sql: str, bindings: Any) -> bool:
        self.seen[sql] = bindings
        return True

    def scans(self) -> list[str]:
        """Return the statements that read a whole table of the application's or of the mirror's."""
        self.connection.exec_trace = None
        ours = [sql for sql in self.seen if f".{quote('item')}" in sql and not sql.startswith(("CREATE", "DROP"))]
        assert ours
        found = []
        for sql in ours:
            for *_, detail in self.connection.execute(f"EXPLAIN QUERY PLAN {sql}", self.seen[sql]):
                words = detail.split()
                if words[0] == "SCAN" and words[1] in ("d", "m", "t", "b", "item"):
                    found.append(f"{detail}: {sql}")
        return found


@pytest.mark.parametrize("analyzed", [False, True], ids=["", "analyzed while it was small"])
@pytest.mark.parametrize("unique", [False, True], ids=["", "unique"])
@pytest.mark.parametrize("ddl", KEYS.values(), ids=KEYS)
def test_no_statement_on_a_commits_way_reads_a_whole_table(
    group: Group, ddl: str, unique: bool, analyzed: bool
) -> None:
    index = ("CREATE UNIQUE INDEX item_u ON item (u)",) if unique else ()
    ten = "WITH RECURSIVE c(i) AS (SELECT -1 UNION ALL SELECT i - 1 FROM c LIMIT 10)"
    fill = f"{ten} INSERT INTO item (id, x, y, u) SELECT i, 0, 0, i FROM c"
    stale = (fill, "ANALYZE") if analyzed else ()
    members = group.several(2, ddl, "CREATE INDEX item_id ON item (id)", *index, *stale)
    for n in range(1, ROWS + 1):
        members[0].run("INSERT INTO item (id, x, y, u) VALUES (?, ?, ?, ?)", (n, f"x{n}", f"y{n}", n))
    group.settle()
    watched = [Statements(member) for member in members]
    for each in watched:
        each.watch()
    for sql in WRITES:
        members[0].run(sql)
        group.settle()
    for mine, yours in AT_ONCE:
        members[0].run(mine)
        members[1].run(yours)
        group.settle()
    assert [scan for each in watched for scan in each.scans()] == []
