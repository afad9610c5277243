"""A node takes in its own old change sets with as much work as those of others: it counts statements, not seconds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import apsw
import pytest

from harmonylite.changes.reassembler import Reassembler
from harmonylite.db.replica import Replica
from harmonylite.db.snapshot import install_mirror
from harmonylite.db.sqlite.connection import open_file
from harmonylite.db.sqlite.thread import SqliteThread
from harmonylite.snapshots import roll_forward
from tests.parts.db.fix_replicas import Group, Member
from tests.parts.recovery.fix_newcomers import Newcomer, T
from tests.simulation.tails import Tape

MANY = 300
"""So many change sets come after the snapshot."""


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many statements the replicas' connections ran from now on, and how many of them began a transaction."""
    done: Counter[str] = Counter()

    def seen(event: dict[str, Any]) -> None:
        done["statements"] += 1
        done["transactions"] += event["sql"].startswith("BEGIN")

    def opened(path: Path, **how: bool) -> apsw.Connection:
        connection = open_file(path, **how)
        connection.trace_v2(apsw.SQLITE_TRACE_STMT, seen)
        return connection

    monkeypatch.setattr("harmonylite.db.replica.open_file", opened)
    return done


def tail(group: Group, folder: Path, thread: SqliteThread, writer: str) -> Newcomer:
    """Return a node ``b`` without a file; ``writer`` wrote all that came after the snapshot."""
    a, b = group.several(2, T)
    newcomer = Newcomer(group, folder, thread)
    newcomer.options = replace(newcomer.options, node="b", session="after")
    newcomer.tapes = [Tape(group.world, shard, 0, node="b") for shard in range(group.world.shards)]
    member: Member = b if writer == "itself" else a
    for n in range(MANY):
        member.run("INSERT INTO t VALUES (?, 'after the snapshot', 0)", (n,))
        member.send()
        member.receive()
    return newcomer


@pytest.mark.parametrize("shards", [1, 4])
async def test_a_node_that_comes_back_folds_its_own_change_sets_with_the_work_of_others(
    make_group: Callable[[int], Group],
    tmp_path: Path,
    thread: SqliteThread,
    work: Counter[str],
    monkeypatch: pytest.MonkeyPatch,
    shards: int,
) -> None:
    monkeypatch.setattr(roll_forward, "POLL_EVERY", 60.0)
    spent = {}
    for writer in ("itself", "another"):
        folder = tmp_path / writer
        folder.mkdir()
        newcomer = tail(make_group(shards), folder, thread, writer)
        work.clear()
        await newcomer.builder().make(newcomer.snapshot)
        spent[writer] = dict(work)
        assert newcomer.app.execute("SELECT count(*) FROM t").get == MANY
    assert spent["itself"]["statements"] <= 1.1 * spent["another"]["statements"]
    assert spent["itself"]["transactions"] <= spent["another"]["transactions"] + 5
    assert spent["itself"]["transactions"] < MANY / 4, "many change sets go into one transaction"


@pytest.mark.parametrize("shards", [1, 4])
def test_a_node_that_starts_again_merges_its_own_earlier_change_sets_with_the_work_of_others(
    make_group: Callable[[int], Group], tmp_path: Path, thread: SqliteThread, work: Counter[str], shards: int
) -> None:
    spent = {}
    for writer in ("itself", "another"):
        folder = tmp_path / writer
        folder.mkdir()
        newcomer = tail(make_group(shards), folder, thread, writer)
        app = newcomer.app
        app.execute(T)
        install_mirror(newcomer.options, newcomer.snapshot)
        opened = Replica(newcomer.options)
        opened.open()
        opened.reconcile(first=True)
        reassembler = Reassembler(opened.positions())
        for tape in newcomer.tapes:
            for message in newcomer.group.world.after(tape.shard, 0, 1_000_000):
                reassembler.add(message)
        work.clear()
        while (batch := reassembler.take(own=("b", newcomer.options.session))) is not None:
            opened.apply(batch)
        spent[writer] = dict(work)
        assert app.execute("SELECT count(*) FROM t").get == MANY
        opened.close()
        app.close()
    assert spent["itself"]["statements"] <= 1.1 * spent["another"]["statements"]
    assert spent["itself"]["transactions"] <= spent["another"]["transactions"]
