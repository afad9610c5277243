"""The checklist's judgements, each by facts made for it; and what is collected of a real configuration."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import apsw
import pytest

from harmonylite.config import Settings, load
from harmonylite.doctor import Row, check, collect
from harmonylite.doctor.facts import DatabaseFacts, DiskFacts, Facts, NatsFacts, StreamFacts
from tests.parts.fix_nats import RealNats

GOOD = """
db_path = "{folder}/app.db"
[nats]
urls = ["tls://me:hush@a:4222", "tls://me:hush@b:4222"]
[replication_log]
replicas = 3
shards = 4
"""


def settings(folder: Path, text: str = GOOD) -> Settings:
    (folder / "config.toml").write_text(text.replace("{folder}", str(folder)))
    return load(folder / "config.toml")


@pytest.fixture
def good(tmp_path: Path) -> Facts:
    """Facts at which there is nothing to say."""
    stream = StreamFacts("s-0", 3, "file", 65_536, 10, 1000, 1e9, 1e9 + 86_400)
    return Facts(
        settings=settings(tmp_path),
        nats=NatsFacts(version="2.15.1", servers=3, streams=(stream,)),
        database=DatabaseFacts(journal="wal", bytes=1, tables=2),
        disks=(DiskFacts("database", "/data", "ext4", 100 * 10**9, 50 * 10**9),),
        descriptors=65_536,
        report={"ready": True, "waits": [], "schema_state": {"hash": "ab"}},
        nodes=({"node_id": "a"}, {"node_id": "b"}, {"node_id": "c"}),
    )


def row(facts: Facts, name: str) -> Row:
    return next(row for row in check(facts) if row.name == name)


def test_where_all_is_as_recommended_every_row_is_ok(good: Facts) -> None:
    assert {row.name: row.level for row in check(good) if row.level != "ok"} == {}


STREAM = StreamFacts("s-0", 1, "memory", 100, 0, 0)
FAST = NatsFacts(streams=(StreamFacts("s-0", 1, "file", 65_536, 65_536, 0, 1e9, 1e9 + 2 * 86_400),))
YOUNG = NatsFacts(streams=(StreamFacts("s-0", 1, "file", 65_536, 9, 0, 1e9, 1e9 + 60),))
ENDLESS = NatsFacts(streams=(StreamFacts("s-0", 1, "file", 0, 100_001, 0, 1e9, 1e9 + 86_400),))
CASES: list[tuple[str, str, str, dict[str, Any]]] = [
    ("going back in time", "advice", "2.0 days: 65,536 messages (2.0 days so far, at 32,768 messages", {"nats": FAST}),
    ("going back in time", "unknown", "less than an hour of writes", {"nats": YOUNG}),
    ("going back in time", "ok", "1.0 days so far, at 100,000 messages a day; all are kept", {"nats": ENDLESS}),
    ("node", "problem", "NATS is away", {"report": {"ready": False, "waits": ["nats: NATS is away"]}}),
    ("node", "unknown", "no node runs", {"report": None}),
    ("schemas", "problem", "other affinities: b", {"report": {"schema_state": {"other_affinities": ["b"]}}}),
    ("schemas", "problem", "other identities: b, c", {"report": {"schema_state": {"other_identities": ["b", "c"]}}}),
    ("schemas", "unknown", "does not say", {"report": {"schema_state": {}}}),
    ("schemas", "unknown", "no node runs", {"report": None}),
    ("nodes", "problem", "silent: b", {"nodes": ({"node_id": "a"}, {"node_id": "b", "status": "unknown"})}),
    ("nodes", "advice", "2", {"nodes": ({"node_id": "a"}, {"node_id": "b"})}),
    ("deployment", "advice", "1 server", {"nats": NatsFacts(servers=1)}),
    ("deployment", "unknown", "refused", {"nats": NatsFacts(error="connection refused")}),
    ("replicas", "problem", "stream s-0 has 1", {"nats": NatsFacts(servers=3, streams=(STREAM,))}),
    ("storage", "problem", "memory", {"nats": NatsFacts(servers=3, streams=(STREAM,))}),
    ("storage", "unknown", "refused", {"nats": NatsFacts(error="connection refused")}),
    ("history", "problem", "s-0 keeps 100", {"nats": NatsFacts(servers=3, streams=(STREAM,))}),
    ("secret files", "advice", "others can read /etc/user.nkey", {"exposed": ("/etc/user.nkey",)}),
    ("clock", "problem", "5.00 s behind", {"nats": NatsFacts(clock_offset=5.0, streams=(STREAM,))}),
    ("clock", "problem", "5.00 s ahead", {"nats": NatsFacts(clock_offset=-5.0, streams=(STREAM,))}),
    ("file descriptors", "problem", "256", {"descriptors": 256}),
    ("file descriptors", "advice", "1,024", {"descriptors": 1024}),
    ("WAL mode", "advice", "delete", {"database": DatabaseFacts(journal="delete")}),
    ("transactions", "ok", "up to 100 ms", {}),
    ("WAL mode", "unknown", "no file", {"database": DatabaseFacts(error="no file")}),
    ("tables without keys", "advice", "log", {"database": DatabaseFacts(keyless=("log",))}),
    (
        "autoincrement keys",
        "advice",
        "a (AUTOINCREMENT), b",
        {"database": DatabaseFacts(counted=("a", "b"), autoincrement=("a",))},
    ),
    ("tables left out", "problem", "table x is not", {"database": DatabaseFacts(left_out=("table x is not…",))}),
    ("disk: database", "problem", "2%", {"disks": (DiskFacts("database", "/d", "ext4", 100, 2),)}),
    ("disk: database", "advice", "10%", {"disks": (DiskFacts("database", "/d", "ext4", 100, 10),)}),
    ("disk: database", "problem", "tmpfs", {"disks": (DiskFacts("database", "/d", "tmpfs", 100, 90),)}),
]


@pytest.mark.parametrize(("name", "level", "found", "change"), CASES)
def test_what_is_not_as_recommended_is_told_with_what_was_found(
    good: Facts, name: str, level: str, found: str, change: dict[str, Any]
) -> None:
    told = row(replace(good, **change), name)
    assert (told.level, found in told.found) == (level, True), told


@pytest.mark.parametrize(
    ("name", "level", "old", "new"),
    [
        ("shards", "advice", "shards = 4", "shards = 1"),
        ("compression", "advice", "shards = 4", "shards = 4\ncompress = false"),
        ("replicas", "problem", "replicas = 3", "replicas = 1"),
        ("access", "advice", "tls://", "nats://"),
        ("access", "problem", "me:hush@", ""),
        ("access", "problem", "[nats]", "[nats]\ninsecure = true"),
        ("deployment", "advice", ', "tls://me:hush@b:4222"', ""),
    ],
)
def test_the_configuration_is_judged_without_anything_running(
    good: Facts, tmp_path: Path, name: str, level: str, old: str, new: str
) -> None:
    changed = replace(good, settings=settings(tmp_path, GOOD.replace(old, new)))
    if name == "replicas":
        changed = replace(changed, nats=NatsFacts(servers=3))
    assert row(changed, name).level == level


def test_an_embedded_server_on_loopback_needs_no_password_of_yours(good: Facts, tmp_path: Path) -> None:
    text = 'db_path = "{folder}/app.db"\n'
    assert row(replace(good, settings=settings(tmp_path, text)), "access").level == "ok"
    peers = text + '[nats]\ncluster_addr = "127.0.0.1:4248"\ncluster_peers = ["nats://127.0.0.1:4249"]\n'
    changed = replace(good, settings=settings(tmp_path, peers))
    assert (row(changed, "access").level, row(changed, "access").found) == (
        "ok",
        "loopback only, generated password and cluster secret",
    )
    beyond = peers.replace("127.0.0.1:4248", "0.0.0.0:4248") + 'cluster_secret_file = "{folder}/secret"\n'
    assert row(replace(good, settings=settings(tmp_path, beyond)), "access").level == "advice"
    assert row(changed, "deployment").found == "embedded, 2 servers"


def test_what_a_server_file_of_ones_own_opens_is_not_called_loopback(good: Facts, tmp_path: Path) -> None:
    (tmp_path / "server.conf").write_text('listen: "0.0.0.0:4222"\n')
    text = 'db_path = "{folder}/app.db"\n[nats]\nserver_config = "{folder}/server.conf"\n'
    found = row(replace(good, settings=settings(tmp_path, text)), "access")
    assert (found.level, found.found) == ("advice", "as server_config says")


def test_a_seed_that_others_can_read_is_found(tmp_path: Path) -> None:
    seed = tmp_path / "user.nkey"
    seed.write_text("SU…")
    text = f'db_path = "{{folder}}/app.db"\n[nats]\nurls = ["nats://127.0.0.1:1"]\nseed_file = "{seed}"\n'
    for mode, found in ((0o640, (str(seed),)), (0o604, (str(seed),)), (0o600, ())):
        seed.chmod(mode)
        assert asyncio.run(collect(settings(tmp_path, text), report=None)).exposed == found


def test_no_row_shows_a_secret(good: Facts) -> None:
    assert "hush" not in str([row.plain() for row in check(good)])


def test_a_real_database_and_a_real_nats_are_looked_at_and_left_as_they_are(tmp_path: Path, nats: RealNats) -> None:
    connection = apsw.Connection(str(tmp_path / "app.db"))
    connection.execute(
        "CREATE TABLE counted (id INTEGER PRIMARY KEY AUTOINCREMENT); CREATE TABLE named (id TEXT PRIMARY KEY);"
        "CREATE TABLE loose (a); CREATE TABLE rowid (rowid, _rowid_, oid)"
    )
    connection.close()
    before = (tmp_path / "app.db").read_bytes()
    text = f'db_path = "{{folder}}/app.db"\n[nats]\nurls = ["{nats.url}"]\n'
    facts = asyncio.run(collect(settings(tmp_path, text), report=None))
    assert facts.database.journal == "delete"
    assert (facts.database.keyless, facts.database.autoincrement) == (("loose",), ("counted",))
    assert "columns named rowid" in facts.database.left_out[0]
    assert facts.nats.version.startswith("2.")
    assert "does not exist" in facts.nats.error or "not found" in facts.nats.error
    assert facts.disks[0].total > facts.disks[0].free > 0
    assert (tmp_path / "app.db").read_bytes() == before
    assert not (tmp_path / "mirror").exists()
