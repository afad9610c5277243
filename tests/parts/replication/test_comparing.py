"""The comparison that runs by itself, on three whole nodes of one process that are written to all along."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path

import apsw
import pytest

from harmonylite.identity import folder_for
from harmonylite.node import anti_entropy
from harmonylite.replication.majority import Digest, majority_of
from harmonylite.replication.verify import Verifier
from tests.parts.fix_nats import RealNats, eventually
from tests.parts.replication.fix_nodes import Running, items, write

Trio = tuple[Running, Running, Running]
ROUNDS = 8
"""Comparisons of all nodes that a test waits for."""

Digests = Callable[[Verifier, float, set[str]], Awaitable[tuple[dict[str, Digest], list[str]]]]


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Digest]]:
    """The digests that each comparison of the nodes heard; no quiet moment is waited for."""
    found: list[dict[str, Digest]] = []
    digests: Digests = Verifier.digests

    async def listened(verifier: Verifier, seconds: float, known: set[str]) -> tuple[dict[str, Digest], list[str]]:
        answers, unread = await digests(verifier, seconds, known)
        found.append(answers)
        return answers, unread

    monkeypatch.setattr(Verifier, "digests", listened)
    monkeypatch.setattr(anti_entropy, "QUIET_WAIT", 0.2)
    monkeypatch.setattr(anti_entropy, "AGAIN", 0.2)
    monkeypatch.setattr(anti_entropy, "ANSWERS", 10.0)  # who is asked before it listens does not answer
    return found


async def three(nats: RealNats, folder: Path, more: str) -> AsyncIterator[Trio]:
    one, two, three = (Running(folder, name, nats.url, more=more) for name in ("one", "two", "three"))
    for running in (one, two, three):
        await running.start()
    yield one, two, three
    for running in (one, two, three):
        await running.stop()


@pytest.fixture
async def asked(nats: RealNats, tmp_path: Path) -> AsyncIterator[Trio]:
    """Three nodes that compare when a person asks."""
    async for found in three(nats, tmp_path, "[verify]\ninterval = 0\n"):
        yield found


@pytest.fixture
async def by_hand(nats: RealNats, tmp_path: Path) -> AsyncIterator[Trio]:
    """The same, and a change of the schema stays where it is made."""
    async for found in three(nats, tmp_path, '[verify]\ninterval = 0\n[schema]\napply = "none"\n'):
        yield found


@pytest.fixture(params=[1, 4])
async def trio(
    nats: RealNats, tmp_path: Path, request: pytest.FixtureRequest, heard: list[dict[str, Digest]]
) -> AsyncIterator[Trio]:
    """Three nodes that compare all the time, which ``heard`` hears; with one shard, and with four."""
    del heard  # it has to listen before they start
    more = f"[replication_log]\nshards = {request.param}\n[verify]\ninterval = 100\n"
    async for found in three(nats, tmp_path, more):
        yield found


@contextmanager
def written(*nodes: Running) -> Iterator[None]:
    """Have each of ``nodes`` written to by an application of its own, one row after the other."""
    over = threading.Event()

    def application(node: Running) -> None:
        for number in count():
            write(node.database, f"INSERT INTO item VALUES ('{node.database.parent.name} {number}')")
            if over.wait(0.01):
                return

    applications = [threading.Thread(target=application, args=(node,)) for node in nodes]
    for each in applications:
        each.start()
    try:
        yield
    finally:
        over.set()
        for each in applications:
            each.join()


def all_equal(nodes: Trio) -> bool:
    first, *others = (items(node.database) for node in nodes)
    return all(other == first for other in others)


async def test_a_comparison_under_load_ends_no_node_and_hears_all_agree(
    trio: Trio, heard: list[dict[str, Digest]]
) -> None:
    with written(*trio):
        await eventually(lambda: all(node.node.status_object.counters.folded_change_sets > 20 for node in trio))
        heard.clear()
        await eventually(lambda: sum(agreed(answers) for answers in heard) >= ROUNDS, "all answered")
    for answers in heard:
        assert len(majority_of(answers).all) == 1, answers
    for node in trio:
        status = node.node.status_object
        assert node.task is not None
        assert not node.task.done()
        assert status.counters.verify_differences == 0
        assert status.part("verify").state == "ok"
        assert status.counters.verify_runs > 0
    await eventually(lambda: all_equal(trio), "all hold the same")


def planted(file: Path, statement: str) -> None:
    """Change a file behind everybody's back: no trigger sees it."""
    with closing(apsw.Connection(str(file))) as connection:
        connection.set_busy_timeout(10_000)
        connection.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0)
        connection.execute(statement).fetchall()


@pytest.mark.parametrize("place", ["database", "mirror"])
@pytest.mark.parametrize("leads", [True, False])
async def test_a_comparison_under_load_finds_what_was_planted_and_repairs_it(
    trio: Trio, heard: list[dict[str, Digest]], place: str, leads: bool
) -> None:
    write(trio[0].database, "INSERT INTO item VALUES ('kept')")
    await eventually(lambda: all(items(node.database) == ["kept"] for node in trio), "the row is everywhere")
    await eventually(lambda: any(holds_lease(node) for node in trio), "a node leads")
    deviating = next(node for node in trio if holds_lease(node) == leads)
    with written(*trio):
        await eventually(lambda: all(node.node.status_object.counters.folded_change_sets > 20 for node in trio))
        file = deviating.database if place == "database" else folder_for(deviating.database) / "mirror.db"
        await asyncio.to_thread(planted, file, "DELETE FROM item WHERE id = 'kept'")
        heard.clear()
        seen: list[bool] = []

        def repaired() -> bool:
            seen.append("kept" in items(deviating.database))
            differences = sum(node.node.status_object.counters.verify_differences for node in trio)
            return bool(seen[-1] and differences and heard and agreed(heard[-1]))

        await eventually(repaired, "the difference is found and repaired")
    assert place == "database" or all(seen), "a row that only the mirror lacks never goes from the database"
    await eventually(lambda: all_equal(trio), "all hold the same")
    for node in trio:
        assert node.task is not None
        assert not node.task.done()


def holds_lease(node: Running) -> bool:
    assert node.node._services is not None
    return node.node._services.lease.held


def agreed(answers: dict[str, Digest]) -> bool:
    return len(answers) == 3 and len(majority_of(answers).all) == 1


async def test_a_person_who_repairs_a_deviating_mirror_sees_no_row_go_from_the_database(asked: Trio) -> None:
    deviating = asked[1]
    write(deviating.database, "INSERT INTO item VALUES ('kept')")
    await eventually(lambda: all(items(node.database) == ["kept"] for node in asked), "the row is everywhere")
    mirror = folder_for(deviating.database) / "mirror.db"
    await eventually(lambda: items(mirror) == ["kept"], "the row is in the mirror of its writer, too")
    planted(mirror, "DELETE FROM item")
    repairing = asyncio.create_task(deviating.asked.verify(True, 30.0, frozenset()))
    seen = []

    def over() -> bool:
        seen.append(items(deviating.database))
        return repairing.done()

    await eventually(over, "the repair")
    answer = await repairing
    assert answer["agree"], answer
    assert answer["repaired_from"] == ["one", "three"]
    assert all(each == ["kept"] for each in seen)


async def test_a_node_whose_schema_differs_is_named_with_what_differs_until_it_is_the_same(by_hand: Trio) -> None:
    one, _, last = by_hand
    write(one.database, "INSERT INTO item VALUES ('a')")
    await eventually(lambda: all_equal(by_hand), "the row is everywhere")
    assert (await one.asked.verify(False, 30.0, frozenset()))["agree"]
    statements = ("CREATE VIEW shown AS SELECT id FROM item", "CREATE UNIQUE INDEX lone ON item(id)")
    write(last.database, *statements, "PRAGMA user_version = 7")
    answer = await one.asked.verify(False, 30.0, frozenset())
    said = {node["node_id"]: (node["agrees"], node["note"]) for node in answer["nodes"]}
    note = "its schema differs from that of one, two in index lone, user_version, view shown"
    assert said == {"one": (True, ""), "two": (True, ""), "three": (False, note)}
    assert (answer["agree"], answer["schemas_equal"], answer["majority"]) == (False, False, ["one", "three", "two"])
    write(last.database, "DROP VIEW shown", "DROP INDEX lone", "PRAGMA user_version = 0")
    assert (await one.asked.verify(False, 30.0, frozenset()))["agree"]
