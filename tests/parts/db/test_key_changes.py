"""A primary key that changes with rows under way: a row of the older key finds its place under the new one."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.parts.db.fix_replicas import Group, Member

DEV = "CREATE TABLE dev(uuid TEXT PRIMARY KEY, user TEXT, name TEXT)"


def rebuilt(columns: str, given: str = "uuid, user, name") -> list[str]:
    """Return the statements that rebuild ``dev``."""
    return [
        f"CREATE TABLE dev_new({columns})",
        f"INSERT INTO dev_new(uuid, user, name) SELECT {given} FROM dev",
        "DROP TABLE dev",
        "ALTER TABLE dev_new RENAME TO dev",
    ]


KEYS = {
    "one column more": rebuilt("uuid TEXT NOT NULL, user TEXT NOT NULL, name TEXT, PRIMARY KEY(uuid, user)"),
    "one column more, first": rebuilt("uuid TEXT, user TEXT, name TEXT, PRIMARY KEY(user, uuid)"),
    "not null": rebuilt("uuid TEXT PRIMARY KEY NOT NULL, user TEXT, name TEXT"),
    "without rowid": rebuilt("uuid TEXT PRIMARY KEY, user TEXT, name TEXT) WITHOUT ROWID --"),
    "without rowid, one more": rebuilt("uuid TEXT, user TEXT, name TEXT, PRIMARY KEY(uuid, user)) WITHOUT ROWID --"),
}
KEYS = {
    name: [sql.replace(") WITHOUT ROWID --)", ") WITHOUT ROWID") for sql in statements]
    for name, statements in KEYS.items()
}


def migrate(member: Member, statements: Sequence[str]) -> None:
    """Rebuild in one transaction, seen at its end."""
    for sql in ("BEGIN", *statements, "COMMIT"):
        member.run(sql)
    member.replica.reinstall()


@pytest.mark.parametrize("key", KEYS)
def test_rows_under_way_under_the_older_key_arrive_under_the_new_one(group: Group, key: str) -> None:
    a, b = group.several(2, DEV)
    a.run("INSERT INTO dev VALUES ('d1', 'u1', 'one'), ('d4', 'u4', 'four'), ('d5', 'u5', 'five')")
    group.settle()
    a.run("INSERT INTO dev VALUES ('d3', 'u3', 'three')")
    a.run("UPDATE dev SET name = 'ONE' WHERE uuid = 'd1'")
    b.run("INSERT INTO dev VALUES ('d2', 'u2', 'two')")
    b.run("DELETE FROM dev WHERE uuid = 'd4'")
    b.run("UPDATE dev SET user = 'u6' WHERE uuid = 'd5'")
    a.send()
    b.send()
    migrate(a, KEYS[key])
    migrate(b, KEYS[key])
    group.settle()
    wanted = [("d1", "u1", "ONE"), ("d2", "u2", "two"), ("d3", "u3", "three"), ("d5", "u6", "five")]
    assert a.run("SELECT * FROM dev ORDER BY 1") == b.run("SELECT * FROM dev ORDER BY 1") == wanted
    group.equal("dev")


@pytest.mark.parametrize("key", KEYS)
def test_a_node_that_has_migrated_goes_on_receiving_from_one_that_has_not(group: Group, key: str) -> None:
    a, b = group.several(2, DEV)
    a.run("INSERT INTO dev VALUES ('d1', 'u1', 'one')")
    group.settle()
    migrate(a, KEYS[key])
    b.run("INSERT INTO dev VALUES ('d2', 'u2', 'two')")
    b.send()
    b.run("UPDATE dev SET name = 'TWO' WHERE uuid = 'd2'")
    b.receive()
    b.send()
    a.receive()
    b.receive()
    assert a.run("SELECT * FROM dev ORDER BY 1") == [("d1", "u1", "one"), ("d2", "u2", "TWO")]
    migrate(b, KEYS[key])
    assert len(group.equal("dev")) == 2


UNIQUE = {
    "a unique column": "slug TEXT NOT NULL UNIQUE",
    "a unique number": "slug INTEGER NOT NULL UNIQUE",
    "a unique blob": "slug BLOB NOT NULL UNIQUE",
    "one with a default": "slug TEXT NOT NULL DEFAULT '' UNIQUE",
    "one that may be NULL": "slug TEXT DEFAULT 'x' UNIQUE",
    "two together": "slug TEXT NOT NULL, part INT NOT NULL DEFAULT 0, UNIQUE(slug, part)",
    "one beside an old one": "slug TEXT NOT NULL, UNIQUE(name, slug)",
    "two with defaults": "slug TEXT NOT NULL DEFAULT '', part INT DEFAULT 0, UNIQUE(slug, part)",
}


@pytest.mark.parametrize("strict", ["", " STRICT"])
@pytest.mark.parametrize("key", ["TEXT PRIMARY KEY NOT NULL", "TEXT PRIMARY KEY", "INTEGER PRIMARY KEY", "TEXT"])
@pytest.mark.parametrize("unique", UNIQUE)
def test_a_rebuild_may_bring_a_column_of_a_unique_index(group: Group, unique: str, key: str, strict: str) -> None:
    a, b = group.several(2, f"CREATE TABLE a(id {key}, name TEXT NOT NULL, email TEXT){strict}")
    a.run("INSERT INTO a VALUES (1, 'one', 'x'), (2, 'two', NULL), (3, 'three', 'x')")
    group.settle()
    b.run("INSERT INTO a VALUES (4, 'four', 'y'), (5, 'five', 'z')")
    b.run("UPDATE a SET name = 'TWO' WHERE id = 2")
    b.send()
    value = (
        "id"
        if "INT" in UNIQUE[unique].split(",")[0]
        else "CAST('s' || id AS BLOB)"
        if "BLOB" in unique or "blob" in unique
        else "'s' || id"
    )
    statements = [
        f"CREATE TABLE new_a(id {key}, name TEXT NOT NULL, email TEXT, {UNIQUE[unique]}){strict}",
        f"INSERT INTO new_a(id, name, email, slug) SELECT id, name, email, {value} FROM a",
        "DROP TABLE a",
        "ALTER TABLE new_a RENAME TO a",
    ]
    migrate(a, statements)
    a.receive()  # what b wrote under the old schema arrives
    assert a.run("SELECT count(*) FROM a") == [(5,)]
    a.stop()
    a.start()
    migrate(b, statements)
    found = group.equal("a")
    assert len(found) == 5
    assert a.run("SELECT id, name, email, slug FROM a ORDER BY 1") == b.run(
        "SELECT id, name, email, slug FROM a ORDER BY 1"
    )
    assert a.run(f"SELECT count(*) FROM a WHERE slug IS NOT {value}") == [(0,)]
