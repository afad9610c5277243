"""Records of tables with counted keys: a number that another node took is no conflict, and one record is one row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from harmonylite.db.snapshot import save_copy
from harmonylite.db.sqlite.introspection import TableRules
from tests.parts.db.fix_replicas import Group, Member

RULES = TableRules(identity=(("m", ("app", "name")), ("detail", ("m_id", "tag"))))
KINDS = {
    "autoincrement": "CREATE TABLE m(id INTEGER PRIMARY KEY AUTOINCREMENT, app TEXT, name TEXT, at TEXT)",
    "integer key": "CREATE TABLE m(app TEXT, name TEXT, at TEXT, id INTEGER PRIMARY KEY)",
    "unique identity": "CREATE TABLE m(id INTEGER PRIMARY KEY, app TEXT, name TEXT, at TEXT, UNIQUE(app, name))",
    "key that is no rowid": "CREATE TABLE m(id INT NOT NULL PRIMARY KEY, app TEXT, name TEXT, at TEXT)",
    "without rowid": "CREATE TABLE m(id INTEGER PRIMARY KEY, app TEXT, name TEXT, at TEXT) WITHOUT ROWID",
    "no key": "CREATE TABLE m(app TEXT, name TEXT, at TEXT)",
    "strict": "CREATE TABLE m(id INTEGER PRIMARY KEY, app TEXT, name TEXT NOT NULL, at TEXT NOT NULL) STRICT",
}
TABLE = KINDS["autoincrement"]
DETAIL = "CREATE TABLE detail(id INTEGER PRIMARY KEY, m_id INTEGER REFERENCES m(id), tag TEXT)"
MENTION = "CREATE TABLE mention(k TEXT PRIMARY KEY NOT NULL, m_id INTEGER REFERENCES m, app TEXT, name TEXT)"
LINK = "CREATE TABLE link(m_id INTEGER REFERENCES m(id), k TEXT, PRIMARY KEY(m_id, k)) WITHOUT ROWID"
PUZZLE = (
    "SELECT count(*) FROM mention LEFT JOIN m ON m.id = m_id WHERE (m.app, m.name) IS NOT (mention.app, mention.name)"
)


def insert(member: Member, *names: str, at: str = "") -> None:
    """Let an application insert records as it counts: the next numbers of its own file."""
    key = "rowid" if "id I" not in member.run("SELECT sql FROM sqlite_schema WHERE name = 'm'")[0][0] else "id"
    for each in names:
        app, name = each.split(".")
        member.run(
            f"INSERT INTO m({key}, app, name, at) SELECT ifnull(max({key}), 0) + 1, ?, ?, ? FROM m",
            (app, name, at or member.options.node),
        )


def names(group: Group) -> list[str]:
    """Return the records that all have, each as often as it is there."""
    group.equal("m")
    return sorted(f"{app}.{name}" for app, name in group.members[0].run("SELECT app, name FROM m"))


BEGUN = ("x.1",)
BOTH: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "different records": (("x.2", "x.3"), ("y.1", "y.2", "y.3")),
    "the same records": (("x.2", "x.3"), ("x.2", "x.3")),
    "the same records in another order": (("x.2", "y.1", "y.2"), ("y.2", "x.2", "y.1")),
    "some the same": (("x.2", "y.1", "z.1"), ("y.1", "a.1", "x.2", "b.1")),
    "one that all had": (("x.2",), ("x.2",)),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("both", BOTH)
@pytest.mark.parametrize("shards", [1, 3])
def test_every_record_of_two_that_insert_at_once_is_there_once(
    make_group: Callable[[int], Group], kind: str, both: str, shards: int
) -> None:
    group = make_group(shards)
    a, b, _ = group.several(3, KINDS[kind], rules=RULES)
    insert(a, *BEGUN)
    group.settle()
    insert(a, *BOTH[both][0])
    insert(b, *BOTH[both][1])
    a.capture()
    b.capture()
    a.publish()
    b.publish()
    assert names(group) == sorted({*BEGUN, *BOTH[both][0], *BOTH[both][1]})


@pytest.mark.parametrize("when", ["before it captures", "while it is under way", "while it is under way, and restarts"])
@pytest.mark.parametrize("both", BOTH)
def test_records_of_others_may_come_at_any_time(group: Group, when: str, both: str) -> None:
    a, b = group.several(2, TABLE, rules=RULES)
    insert(a, *BEGUN)
    group.settle()
    insert(a, *BOTH[both][0])
    insert(b, *BOTH[both][1])
    if when != "before it captures":
        b.capture()
    a.send()
    b.receive()
    b.publish()
    if when.endswith("restarts"):
        b.stop()
        b.start()
        b.receive()  # it publishes nothing before that
    assert names(group) == sorted({*BEGUN, *BOTH[both][0], *BOTH[both][1]})


def test_the_value_of_a_record_that_gives_way_is_in_the_journal(group: Group) -> None:
    a, b = group.several(2, TABLE, rules=RULES)
    insert(a, "x.1", at="a's")
    insert(b, "y.1", "x.1", at="b's")
    a.capture()
    b.send()
    a.publish()
    assert group.equal("m") == [(1, "y", "1", "b's"), (2, "x", "1", "a's")]
    assert [(c.column, c.winning, c.overruled) for c in b.replica.conflicts(table="m")] == [("at", "a's", "b's")]


def crossed(group: Group, *ddl: str) -> tuple[Member, Member]:
    """Return two members: b has m 1 as y.1 and 2 as y.2, under way, and a's x.1 and x.2 have the numbers."""
    a, b = group.several(2, TABLE, *ddl, rules=RULES)
    insert(a, "x.1", "x.2")
    insert(b, "y.1", "y.2")
    a.send()
    b.capture()
    b.publish()
    return a, b


LATER: dict[str, tuple[str, list[str]]] = {
    "changed": ("UPDATE m SET at = 'later' WHERE name = '1'", ["x.1", "x.2", "y.1", "y.2"]),
    "renamed": ("UPDATE m SET name = '9' WHERE name = '1'", ["x.1", "x.2", "y.2", "y.9"]),
    "deleted": ("DELETE FROM m WHERE name = '1'", ["x.1", "x.2", "y.2"]),
    "all deleted": ("DELETE FROM m", ["x.1", "x.2"]),
    "under another number": ("UPDATE m SET id = id + 10", ["x.1", "x.2", "y.1", "y.2"]),
    "one more": ("INSERT INTO m(app, name, at) VALUES ('y', '3', 'b')", ["x.1", "x.2", "y.1", "y.2", "y.3"]),
}


@pytest.mark.parametrize("what", LATER)
@pytest.mark.parametrize("restarts", [False, True])
def test_what_its_writer_does_to_a_record_meanwhile_is_done_to_that_record(
    group: Group, what: str, restarts: bool
) -> None:
    _, b = crossed(group)
    b.run(LATER[what][0])
    if restarts:
        b.stop()
        b.start()
        b.receive()  # it publishes nothing before that
    assert names(group) == LATER[what][1]
    later = dict(group.members[0].run("SELECT app || name, at FROM m"))
    assert later.get("y1", "later") == ("later" if what in ("changed", "deleted", "all deleted", "renamed") else "b")
    assert later["x1"] == "a"


@pytest.mark.parametrize("shards", [1, 3])
def test_what_refers_to_a_record_goes_with_it(make_group: Callable[[int], Group], shards: int) -> None:
    group = make_group(shards)
    a, b = group.several(2, TABLE, DETAIL, MENTION, LINK, rules=RULES)
    for member in (a, b):
        me = member.options.node
        insert(member, f"{me}.1", f"{me}.2", "all.1")
        member.run("INSERT INTO detail(m_id, tag) SELECT id, 'add' FROM m")
        member.run("INSERT INTO mention SELECT ? || id, id, app, name FROM m", (me,))
        member.run("INSERT INTO link SELECT id, app || name FROM m")
    a.send()
    b.capture()
    # written while what it refers to is under way
    b.run("INSERT INTO mention SELECT 'late' || id, id, app, name FROM m")
    b.run("INSERT INTO link SELECT id, 'late' || app || name FROM m")
    b.run("INSERT INTO detail(m_id, tag) SELECT id, 'late' FROM m")
    b.publish()
    group.equal("m", "detail", "mention", "link")
    for member in (a, b):
        assert member.run(PUZZLE) == [(0,)]
        assert member.run("SELECT count(*), count(DISTINCT app || name) FROM m") == [(5, 5)]
        tagged = (
            "SELECT app || name, group_concat(tag, ' ' ORDER BY tag) FROM detail JOIN m ON m.id = m_id GROUP BY m.id"
        )
        assert dict(member.run(tagged)) == {
            "a1": "add",
            "a2": "add",
            "b1": "add late",
            "b2": "add late",
            "all1": "add late",
        }
        assert member.run("SELECT k FROM link JOIN m ON m.id = m_id WHERE replace(k, 'late', '') <> app || name") == []


@pytest.mark.parametrize("what", ["its value", "its name, too"])
@pytest.mark.parametrize("kind", ["integer key", "key that is no rowid", "strict"])
def test_an_update_under_way_goes_to_the_record_that_its_writer_saw(group: Group, kind: str, what: str) -> None:
    a, b = group.several(2, KINDS[kind], rules=RULES)
    insert(a, "x.1", "x.2")
    group.settle()
    b.run("DELETE FROM m WHERE id = 2")
    insert(b, "y.1", "x.2")  # the number that is free is given again, and the record has another one
    a.run("UPDATE m SET at = 'updated' WHERE id = 2")
    if what == "its name, too":
        a.run("UPDATE m SET name = '3' WHERE id = 2")
    a.capture()
    b.send()
    a.publish()
    group.settle()
    renamed = "x.3" if what == "its name, too" else "x.2"
    assert names(group) == ["x.1", renamed, "y.1"]
    assert a.run("SELECT id, app FROM m WHERE at = 'updated'") == [(3, "x")]


def test_rows_that_turn_out_to_be_one_record_are_one(group: Group) -> None:
    a, b = group.several(2, TABLE, DETAIL, rules=RULES)
    insert(b, "x.1", "y.1")
    insert(a, "y.1")
    b.run("INSERT INTO detail(m_id, tag) VALUES (2, 'add')")
    a.run("INSERT INTO detail(m_id, tag) VALUES (1, 'add')")
    b.send()
    a.receive()
    assert a.run("SELECT id FROM m WHERE app = 'y' ORDER BY id") == [(1,), (2,)]  # until its own is folded
    a.run("INSERT INTO detail(m_id, tag) VALUES (2, 'add')")
    a.send()
    assert group.equal("m") == [(1, "x", "1", "b"), (2, "y", "1", "a")]
    assert group.equal("detail") == [(1, 2, "add")]


def test_a_reference_that_another_node_wrote_stays_with_its_record(group: Group) -> None:
    a, b = group.several(2, TABLE, MENTION, rules=RULES)
    insert(a, "x.1")
    a.run("INSERT INTO mention VALUES ('a', 1, 'x', '1')")
    a.send()
    insert(b, "y.1")
    b.receive()  # its own record 1 is still to be sent
    b.run("UPDATE mention SET name = '1' || '' WHERE k = 'a'")
    assert names(group) == ["x.1", "y.1"]
    group.equal("mention")
    assert b.run(PUZZLE) == [(0,)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("both", BOTH)
def test_a_file_that_joins_brings_its_records(group: Group, kind: str, both: str) -> None:
    first, second = BOTH[both]
    ddl = (KINDS[kind], MENTION)

    def filled(who: str, records: tuple[str, ...]) -> tuple[str, ...]:
        key = "rowid" if kind == "no key" else "id"
        rows = [
            f"INSERT INTO m({key}, app, name, at) VALUES ({i}, '{each[0]}', '{each[2]}', '{who}')"
            for i, each in enumerate(records, 1)
        ]
        return *rows, f"INSERT INTO mention SELECT '{who}' || {key}, {key}, app, name FROM m"

    group.member(*ddl, *filled("a", (*BEGUN, *first)), rules=RULES)
    group.member(*ddl, *filled("b", second), rules=RULES)
    assert names(group) == sorted({*BEGUN, *first, *second})
    group.equal("mention")
    if kind != "no key":  # nothing can refer to its rows
        assert [member.run(PUZZLE) for member in group.members] == [[(0,)], [(0,)]]


def adopt(member: Member, donor: Member) -> None:
    """Start again from a copy of another member's mirror."""
    newer = member.options.folder / "incoming.db"
    save_copy(donor.options.mirror, newer)
    member.stop()
    member.start()
    member.replica.adopt(newer)
    member.reassembler = type(member.reassembler)(member.replica.positions())


@pytest.mark.parametrize("kind", ["autoincrement", "unique identity", "without rowid", "no key"])
@pytest.mark.parametrize("both", BOTH)
@pytest.mark.parametrize("when", ["unsent", "under way, and once more when it is folded there"])
def test_records_that_a_newer_mirror_has_under_other_numbers_are_those(
    group: Group, kind: str, both: str, when: str
) -> None:
    first, second = BOTH[both]
    a, b, c = group.several(3, KINDS[kind], MENTION, rules=RULES)
    insert(a, *BEGUN)
    group.settle()
    for member, records in ((a, first), (b, second), (c, ("c.1", *reversed(second)))):
        insert(member, *records)
        if kind != "no key":
            member.run("INSERT INTO mention SELECT ? || id, id, app, name FROM m", (member.options.node,))
    c.send()
    a.send()
    if when != "unsent":
        b.capture()
    if when.endswith("once more when it is folded there"):
        c.receive()
    if when != "unsent":
        b.publish()
    if when.endswith("once more when it is folded there"):
        adopt(b, c)
    c.receive()
    adopt(b, c)
    assert names(group) == sorted({*BEGUN, *first, *second, "c.1"})
    group.equal("mention")
    if kind != "no key":
        assert [member.run(PUZZLE) for member in group.members] == [[(0,)]] * 3


def test_many_records_are_told_apart_by_sql(group: Group) -> None:
    a, b = group.several(2, KINDS["unique identity"], rules=RULES)
    many = "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 20000)"
    for member, step in ((a, 2), (b, 3)):
        member.run(f"{many} INSERT INTO m SELECT i, 'x', i * {step}, 'many' FROM n")
    a.send()
    b.send()
    assert len(group.equal("m")) == len({i * 2 for i in range(1, 20001)} | {i * 3 for i in range(1, 20001)})


def test_the_largest_number_may_be_taken(group: Group) -> None:
    a, b = group.several(2, KINDS["integer key"], rules=RULES)
    for member, name in ((a, "1"), (b, "2")):
        member.run("INSERT INTO m(id, app, name, at) VALUES (?, 'x', ?, '')", (2**63 - 1, name))
    a.send()
    b.send()
    assert [row[0] for row in group.equal("m")] == [1, 2**63 - 1]


@pytest.mark.parametrize(
    ("ddl", "identity", "why"),
    [
        ("CREATE TABLE w(k TEXT PRIMARY KEY NOT NULL, v)", ("v",), "as its key is not one whole number"),
        ("CREATE TABLE w(k INTEGER PRIMARY KEY, v)", ("v", "u"), "as it has no column u"),
        ("CREATE TABLE w(k INTEGER PRIMARY KEY, v)", ("K", "v"), "as k is the number itself"),
    ],
)
def test_an_identity_that_can_not_be_one_is_named(group: Group, ddl: str, identity: tuple[str, ...], why: str) -> None:
    member = group.member(ddl, rules=TableRules(identity=(("w", identity),)))
    assert member.replica.warnings["w"] == f"table w: its identity has no effect, {why}"


TOOLS: dict[str, tuple[str, tuple[Any, ...]]] = {
    "Django": (
        'CREATE TABLE "django_migrations" ("id" integer NOT NULL PRIMARY KEY AUTOINCREMENT,'
        ' "app" varchar(255) NOT NULL, "name" varchar(255) NOT NULL, "applied" datetime NOT NULL)',
        ("app", "name"),
    ),
    "Knex": (
        "CREATE TABLE `knex_migrations` (`id` integer not null primary key autoincrement, `name` varchar(255),"
        " `batch` integer, `migration_time` datetime)",
        ("name",),
    ),
    "goose": (
        "CREATE TABLE goose_db_version (id INTEGER PRIMARY KEY AUTOINCREMENT, version_id INTEGER NOT NULL,"
        " is_applied INTEGER NOT NULL, tstamp TIMESTAMP DEFAULT (datetime('now')))",
        ("version_id",),
    ),
    "TypeORM": (
        'CREATE TABLE "migrations" ("id" integer PRIMARY KEY AUTOINCREMENT NOT NULL, "timestamp" bigint NOT NULL,'
        ' "name" varchar NOT NULL)',
        ("timestamp", "name"),
    ),
    "Laravel": (
        'CREATE TABLE "migrations" ("id" integer primary key autoincrement not null, "migration" varchar not null,'
        ' "batch" integer not null)',
        ("migration",),
    ),
    "Liquibase": (
        "CREATE TABLE DATABASECHANGELOG (ID VARCHAR(255) NOT NULL, AUTHOR VARCHAR(255) NOT NULL,"
        " FILENAME VARCHAR(255) NOT NULL, DATEEXECUTED TEXT NOT NULL, ORDEREXECUTED INT NOT NULL)",
        ("ID", "AUTHOR", "FILENAME"),
    ),
    "Rails": ('CREATE TABLE "schema_migrations" ("version" varchar NOT NULL PRIMARY KEY)', ()),
    "Alembic": (
        "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, CONSTRAINT pk PRIMARY KEY (version_num))",
        (),
    ),
    "an application's own": ("CREATE TABLE migrations(id INTEGER PRIMARY KEY, from_country TEXT, birds INT)", ()),
}


@pytest.mark.parametrize("tool", TOOLS)
def test_tables_of_known_tools_have_an_identity(group: Group, tool: str) -> None:
    ddl, identity = TOOLS[tool]
    member = group.member(ddl)
    assert [table.shape.identity for table in member.replica.tables.values()] == [identity]
