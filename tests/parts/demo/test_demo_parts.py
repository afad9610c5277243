"""The demo without its nodes: scenes, digests, applications and the way it speaks."""

from __future__ import annotations

import hashlib
import io
import subprocess
from pathlib import Path

import apsw
import pytest
from rich.console import Console

from harmonylite.demo.console import DemoConsole
from harmonylite.demo.files import Application, backup, digest_file
from harmonylite.demo.member import Member
from harmonylite.demo.outro import hints, in_shell
from harmonylite.demo.own_file import OwnFile
from harmonylite.demo.shop import Shop
from harmonylite.demo.trio import Scene
from harmonylite.errors import ConfigError, HarmonyLiteError

CHINOOK = Path(__file__).parents[4] / "shared" / "data" / "chinook.sqlite"


def make(path: Path, *statements: str) -> Path:
    """Make a database from ``statements``."""
    connection = apsw.Connection(str(path))
    for sql in statements:
        connection.execute(sql)
    connection.close()
    return path


def ask(path: Path, sql: str) -> object:
    connection = apsw.Connection(str(path))
    connection.pragma("foreign_keys", "on")
    try:
        return connection.execute(sql).get
    finally:
        connection.close()


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A file with odd names, a generated column, a unique one, a composite key, a WITHOUT ROWID table, a view."""
    n = "WITH RECURSIVE n (value) AS (VALUES (1) UNION ALL SELECT value + 1 FROM n WHERE value < 40)"
    return make(
        tmp_path / "odd ünit.db",
        'CREATE TABLE "order ""x""" (a INTEGER, "b c" TEXT, "group" TEXT, n TEXT, u TEXT UNIQUE,'
        ' g TEXT AS (n || "b c") STORED, PRIMARY KEY (a, "b c")) WITHOUT ROWID',
        "CREATE TABLE plain (id INTEGER PRIMARY KEY, t VARCHAR(200) CHECK (t <> ''), ref INTEGER REFERENCES plain)",
        "CREATE TABLE keyless (x)",
        "CREATE VIEW v AS SELECT * FROM plain",
        f'{n} INSERT INTO "order ""x""" SELECT value, \'k\' || value, \'g\', NULL, value FROM n',
        f"{n} INSERT INTO plain SELECT value, 't', 1 FROM n",
    )


def fingerprint(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


async def play(scene: Scene, path: Path, order: list[int]) -> None:
    """Let the sites write two bursts into one file, in ``order`` within each."""
    application = Application("here", path)
    for number in (1, 2):
        works = [scene.burst(site, number) for site in order]
        for work in works:
            assert ask(path, work.left[0]) != work.left[1], "it would not be missed"
        for work in works:
            await application.write(work.transactions)
        for work in works:
            assert ask(path, work.left[0]) == work.left[1]


async def scene_is_fair(scene: Scene, folder: Path) -> None:
    """Sites don't get in each other's way, whatever the order; clashes are at one row that the demo can show."""
    one, two = folder / "one.db", folder / "two.db"
    scene.build(one)
    backup(one, two)
    assert digest_file(one) == digest_file(two)
    await play(scene, one, [1, 2, 3])
    await play(scene, two, [3, 2, 1])
    assert digest_file(one) == digest_file(two)
    untouched = digest_file(one)
    for clash in (scene.two_columns(), scene.one_column()):
        before = ask(one, clash.show)
        for sql, values in (clash.one, clash.two):
            assert values == (), "people see these statements"
            await Application("here", one).write([[(sql, values)]])
        assert ask(one, clash.show) not in (None, before)
    changed = {name for name, digest in digest_file(one).items() if digest != untouched[name]}
    assert changed <= set(scene.touched)
    assert ask(one, "PRAGMA foreign_key_check") is None


async def test_the_shop_is_fair_to_its_sites(tmp_path: Path) -> None:
    await scene_is_fair(Shop(), tmp_path)


async def test_the_shops_search_is_right_after_all_writes(tmp_path: Path) -> None:
    shop, path = Shop(), tmp_path / "shop.db"
    shop.build(path)
    await play(shop, path, [1, 2, 3])
    make(path, "INSERT INTO product_search (product_search, rank) VALUES ('integrity-check', 1)")
    assert ask(path, shop.question[1])


def test_the_shop_is_the_same_every_time(tmp_path: Path) -> None:
    Shop().build(tmp_path / "a.db")
    Shop().build(tmp_path / "b.db")
    assert digest_file(tmp_path / "a.db") == digest_file(tmp_path / "b.db")
    assert sum(table.rows for table in digest_file(tmp_path / "a.db").values()) > 3000


@pytest.mark.skipif(not CHINOOK.exists(), reason="the sample file is not here")
async def test_a_real_file_is_fair_to_its_sites(tmp_path: Path) -> None:
    await scene_is_fair(OwnFile(CHINOOK), tmp_path)


async def test_an_odd_file_is_fair_to_its_sites_and_stays_as_it_was(odd: Path, tmp_path: Path) -> None:
    before, beside = fingerprint(odd), sorted(odd.parent.iterdir())
    folder = tmp_path / "copies"
    folder.mkdir()
    await scene_is_fair(OwnFile(odd), folder)
    assert fingerprint(odd) == before
    assert sorted(odd.parent.iterdir()) == sorted([*beside, folder])


def test_a_file_that_cannot_be_played_on_is_refused_with_a_reason(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        OwnFile(tmp_path / "missing.db").build(tmp_path / "copy.db")
    (tmp_path / "letter.txt").write_text("dear reader, this is no database at all" * 100)
    with pytest.raises(ConfigError, match=r"letter\.txt is not a SQLite file, or is damaged"):
        OwnFile(tmp_path / "letter.txt").build(tmp_path / "other.db")
    Shop().build(tmp_path / "shop.db")
    (tmp_path / "half.db").write_bytes((tmp_path / "shop.db").read_bytes()[:20_000])
    with pytest.raises(ConfigError, match=r"half\.db is not a SQLite file, or is damaged"):
        OwnFile(tmp_path / "half.db").build(tmp_path / "half-copy.db")


NUMBERS = "WITH RECURSIVE n (value) AS (VALUES (1) UNION ALL SELECT value + 1 FROM n WHERE value < 40) INSERT INTO t"


@pytest.mark.parametrize(
    "statements",
    [
        [],
        ["CREATE TABLE t (a TEXT, b TEXT)", f"{NUMBERS} SELECT value, value FROM n"],
        ["CREATE TABLE t (id INTEGER PRIMARY KEY, a INT, b REAL)", f"{NUMBERS} SELECT value, value, value FROM n"],
        ["CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT, b TEXT)", "INSERT INTO t VALUES (1, 'a', 'b')"],
        [
            "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT CHECK (length(a) < 9), b TEXT)",
            f"{NUMBERS} SELECT value, 'a', 'b' FROM n",
        ],
    ],
    ids=["nothing", "no key", "no text", "one row", "a check that the second burst would break"],
)
async def test_copies_of_a_file_without_a_table_to_play_with_get_one(tmp_path: Path, statements: list[str]) -> None:
    file = make(tmp_path / "mine.db", 'CREATE TABLE "DEMO_notes" (x)', *statements)
    folder = tmp_path / "copies"
    folder.mkdir()
    scene = OwnFile(file)
    await scene_is_fair(scene, folder)
    assert scene.touched == ("demo_notes_2",)
    assert scene.remark.endswith("the copies get one more, demo_notes_2")


async def test_rows_are_added_also_where_only_another_table_counts_its_keys(tmp_path: Path) -> None:
    file = make(
        tmp_path / "mine.db",
        "CREATE TABLE t (id TEXT PRIMARY KEY, a TEXT, b TEXT)",
        f"{NUMBERS} SELECT 'k' || value, 'a', 'b' FROM n",
        "CREATE TABLE u (id INTEGER PRIMARY KEY)",
        f"{NUMBERS.replace(' t', ' u')} SELECT value FROM n",
    )
    folder = tmp_path / "copies"
    folder.mkdir()
    scene = OwnFile(file)
    await scene_is_fair(scene, folder)
    assert (sorted(scene.touched), scene.remark) == (["t", "u"], "")


def test_reading_a_file_in_wal_mode_leaves_nothing_beside_it(tmp_path: Path) -> None:
    file = make(tmp_path / "wal.db", "PRAGMA journal_mode = wal", "CREATE TABLE t (x)")
    before = fingerprint(file)
    backup(file, tmp_path / "copy.db")
    assert (sorted(tmp_path.glob("wal.db*")), fingerprint(file)) == ([file], before)


def test_a_copy_is_made_while_an_application_writes(tmp_path: Path) -> None:
    file = make(tmp_path / "live.db", "PRAGMA journal_mode = wal", "CREATE TABLE t (x)", "INSERT INTO t VALUES (1)")
    application = apsw.Connection(str(file))
    application.execute("BEGIN IMMEDIATE; INSERT INTO t VALUES (2)")
    backup(file, tmp_path / "copy.db")
    application.execute("COMMIT")
    application.close()
    assert ask(tmp_path / "copy.db", "SELECT group_concat(x) FROM t") == "1"
    assert ask(file, "SELECT group_concat(x) FROM t") == "1,2"


def test_what_a_node_left_in_the_copied_file_is_not_taken_along(odd: Path, tmp_path: Path) -> None:
    make(
        odd,
        "CREATE TABLE __harmonylite__log (id INTEGER PRIMARY KEY)",
        "CREATE TABLE xx_harmonylite__mine (id INTEGER PRIMARY KEY)",
        "CREATE TRIGGER __harmonylite__t AFTER INSERT ON plain BEGIN INSERT INTO __harmonylite__log VALUES (NULL); END",
    )
    OwnFile(odd).build(tmp_path / "copy.db")
    assert ask(
        tmp_path / "copy.db", "SELECT group_concat(name) FROM sqlite_schema WHERE name LIKE '%harmonylite%'"
    ) == ("xx_harmonylite__mine")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1", "'1'"),
        ("1", "1.0"),
        ("'a'", "x'61'"),
        ("''", "NULL"),
        ("'a' || char(0) || 'b'", "'a' || char(0) || 'c'"),
        ("CAST(x'ff00' AS TEXT)", "CAST(x'fe00' AS TEXT)"),
        ("0.1", "0.10000000000000002"),
        ("9007199254740993", "9007199254740992"),
    ],
)
def test_a_digest_sees_every_difference(tmp_path: Path, one: str, other: str) -> None:
    paths = [
        make(tmp_path / f"{n}.db", "CREATE TABLE t (a, b)", f"INSERT INTO t VALUES ({value}, 1)")
        for n, value in enumerate((one, other))
    ]
    assert digest_file(paths[0]) != digest_file(paths[1])


def test_a_digest_is_blind_to_the_order_of_rows_and_to_views_and_search(tmp_path: Path) -> None:
    rows = ["INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (2)", "INSERT INTO t VALUES (2)"]
    make(tmp_path / "a.db", "CREATE TABLE t (a)", *rows)
    make(tmp_path / "b.db", "CREATE TABLE t (a)", "CREATE VIRTUAL TABLE f USING fts5(x)", *reversed(rows))
    assert digest_file(tmp_path / "a.db") == digest_file(tmp_path / "b.db")
    assert digest_file(tmp_path / "a.db")["t"].rows == 3


async def test_a_held_transaction_is_committed_when_told_and_rolled_back_otherwise(tmp_path: Path) -> None:
    path = make(tmp_path / "t.db", "CREATE TABLE t (a)")
    application = Application("here", path)
    async with application.holding(("INSERT INTO t VALUES (1)", ())) as commit:
        assert ask(path, "SELECT count(*) FROM t") == 0
        assert (await commit()).rows == 1
    async with application.holding(("INSERT INTO t VALUES (2)", ())):
        pass
    assert ask(path, "SELECT group_concat(a) FROM t") == "1"


async def test_a_refused_write_says_why(tmp_path: Path) -> None:
    path = make(tmp_path / "t.db", "CREATE TABLE t (a UNIQUE)", "INSERT INTO t VALUES (1)")
    with pytest.raises(HarmonyLiteError, match="UNIQUE constraint failed"):
        await Application("here", path).write([[("INSERT INTO t VALUES (1)", ())]])


def test_a_statement_reaches_sqlite_through_a_shell_unchanged() -> None:
    sql = """SELECT "a\\b", '$HOME', `c`"""
    done = subprocess.run(["/bin/sh", "-c", f"printf %s {in_shell(sql)}"], capture_output=True, text=True, check=True)
    assert done.stdout == sql


@pytest.mark.parametrize("installed", [True, False])
def test_the_commands_to_try_show_something_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: bool
) -> None:
    monkeypatch.setattr("harmonylite.demo.outro.shutil.which", lambda name: name if installed else None)
    folder = tmp_path / "a folder"
    folder.mkdir()
    members = [Member(n, folder / str(n), "shop.db", http=n, cluster=n, peers=[]) for n in (1, 2, 3)]
    for member in members:
        member.folder.mkdir()
    shop = Shop()
    shop.build(members[0].db)
    change, look, *others = hints(shop, members)
    assert ("sqlite3 " if installed else " -m apsw ") in change
    assert all("'" in line or '"' in line for line in others if "-config" in line), "the folder has a space"
    if not installed:
        look = look.replace("/3/", "/1/")
        prices = set()
        for _ in range(3):
            subprocess.run(["/bin/sh", "-c", change], check=True)
            prices.add(subprocess.run(["/bin/sh", "-c", look], check=True, capture_output=True, text=True).stdout)
        assert len(prices) == 3


def test_piped_output_is_plain_and_shows_brackets_as_they_are() -> None:
    sink = io.StringIO()
    teller = DemoConsole(Console(file=sink, highlight=False, width=80))
    teller.title("headline", "text")
    teller.step("a step", "why")
    with teller.waiting("for it"):
        teller.fact("node 1", "holds [bold]")
    teller.command("harmonylite verify", "[1] all " + "equal " * 30)
    teller.table(["table"], [["[order]"]])
    text = sink.getvalue()
    assert "\x1b" not in text
    assert "1. a step" in text
    assert "holds [bold]" in text
    assert "[order]" in text
    assert "equal " * 30 in text, "output of commands is not folded"
