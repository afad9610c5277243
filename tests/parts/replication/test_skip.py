"""Leaving out a message: only the one before which the node is paused, listed, counted, repaired and undone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from harmonylite.changes.skipped import LeftOut
from harmonylite.db.apply.apply import Applying
from harmonylite.errors import HarmonyLiteError, NotPausedError, NotUndoneError
from harmonylite.replication.pause import Pauses
from harmonylite.wire import VERSION, Envelope, TableBlock
from tests.parts.fix_nats import RealNats, eventually
from tests.parts.replication.fix_nodes import Running, change_set, items, write

EXTRA = "CREATE TABLE extra(id TEXT PRIMARY KEY)"


def item(number: int, *keys: str) -> Envelope:
    return change_set("x", number, TableBlock("item", ["id", "rowid"], 2, inserts=[[key, None] for key in keys]))


STATES: dict[str, Callable[[int], Envelope] | None] = {
    "nothing in its way": None,
    "a block that is none": lambda n: change_set("x", n, body=b"garbage"),
    "a row that is too short": lambda n: change_set("x", n, TableBlock("item", ["id", "rowid"], 2, inserts=[["a"]])),
    "a newer version": lambda n: structs.replace(item(n, "new"), version=VERSION + 1),
    "a table that is not here": lambda n: change_set("x", n, TableBlock("extra", ["id"], 1, inserts=[["e"]])),
}


@pytest.fixture
async def nodes(nats: RealNats, tmp_path: Path) -> AsyncIterator[Callable[..., Running]]:
    """Make nodes on one NATS; they are stopped at the end."""
    made: list[Running] = []

    def make(name: str, *ddl: str) -> Running:
        # a node that waits for the migration of its own file is one that is paused
        made.append(Running(tmp_path, name, nats.url, *ddl, more='[schema]\napply = "none"\n'))
        return made[-1]

    yield make
    for running in made:
        await running.stop()


@pytest.mark.parametrize("what", STATES.values(), ids=STATES)
async def test_a_message_is_left_out_only_where_the_node_is_paused_before_it(
    nodes: Callable[..., Running], what: Callable[[int], Envelope] | None
) -> None:
    node = nodes("near")
    await node.start()
    seq = await node.says(item(1, "one")) + 1
    await eventually(lambda: items(node.database) == ["one"], "the node follows")
    if what is not None:
        assert await node.says(what(2)) == seq
        await eventually(lambda: (0, seq) in node.engine.receiver.paused, "paused")
    others = [(0, seq - 1), (0, seq + 1), (0, 1_000_000), (7, seq), (1, 1), *([] if what else [(0, seq)])]
    for shard, other in others:
        with pytest.raises(NotPausedError, match=f"does not wait before message {other} of shard {shard}"):
            await node.asked.skip(shard, other)
    assert await node.asked.left_out() == []
    if what is not None:
        said = await node.asked.skip(0, seq)
        assert (said["shard"], said["seq"]) == (0, seq)
        with pytest.raises(NotPausedError):
            await node.asked.skip(0, seq)
    await node.says(item(3, "two"))
    await eventually(lambda: items(node.database) == ["one", "two"], "it continues")
    listed = [(entry["shard"], entry["seq"]) for entry in await node.asked.left_out()]
    assert listed == ([] if what is None else [(0, seq)])
    assert ("skip" in node.node.status_object.all_warnings) == (what is not None)
    if what is not None:
        await node.restart()
        await node.says(item(4, "three"))
        await eventually(lambda: items(node.database) == ["one", "three", "two"], "it continues after a restart")
        assert node.node.status_object.left_out == (f"0:{seq}",)


async def test_an_own_change_set_that_is_left_out_is_captured_and_published_again(
    nodes: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    near, far = nodes("near"), nodes("far")
    apply = Applying.apply
    refused: set[Any] = set()

    def picky(self: Applying, batch: Any, **how: Any) -> Any:
        """Refuse the first change set of near's own, on near."""
        for fragment in batch.fragments:
            if self._node == fragment.id.node == "near" and (not refused or fragment.id in refused):
                refused.add(fragment.id)
                raise fragment.broken("the test says so")
        return apply(self, batch, **how)

    monkeypatch.setattr(Applying, "apply", picky)
    await near.start()
    await far.start()
    write(near.database, "INSERT INTO item VALUES ('own')")
    await eventually(lambda: bool(near.node.status_object.parts["merge"].state == "failed"), "paused")
    (name,) = refused
    paused = near.engine.receiver.paused
    seq = next(seq for seq in range(1, 99) if (0, seq) in paused)
    said = await near.asked.skip(0, seq)
    assert said["change_set"] == str(name)
    assert (said["rows"], said["keys"]) == ({"item": 1}, {"item": ["own"]})
    write(near.database, "INSERT INTO item VALUES ('later')")
    await eventually(lambda: items(far.database) == ["later", "own"], "near is not mute")
    await eventually(lambda: near.node.status_object.pending_rows == 0, "its row is in the order")
    found = await near.asked.verify(False, 30.0, frozenset())
    assert found["agree"], found
    assert await near.asked.left_out() == [], "the mirrors are equal: it lacks nothing"


async def lacking(near: Running, far: Running) -> int:
    """Have near, which lacks the table extra, leave out a transaction of far's; return its sequence."""
    await far.start()
    await near.start()
    rows = "INSERT INTO extra VALUES ('e')", "INSERT INTO item VALUES ('lost')"
    write(far.database, "BEGIN", EXTRA, *rows, "COMMIT")  # one change set, whenever the node looks
    await eventually(lambda: any((0, seq) in near.engine.receiver.paused for seq in range(9)), "near waits")
    seq = next(seq for seq in range(9) if (0, seq) in near.engine.receiver.paused)
    said = await near.asked.skip(0, seq)
    assert said["keys"].items() >= {"extra": ["e"], "item": ["lost"]}.items()
    write(far.database, "INSERT INTO item VALUES ('next')")
    await eventually(lambda: items(near.database) == ["next"], "near continues")
    return seq


async def test_two_nodes_of_which_one_left_a_message_out_are_told_apart_and_that_one_is_repaired(
    nodes: Callable[..., Running],
) -> None:
    near, far = nodes("near"), nodes("far")
    await lacking(near, far)
    write(near.database, EXTRA)
    await eventually(lambda: "extra" in near.node.status_object.tables, "the migration is here too")
    for asked in (near, far):
        found = await asked.asked.verify(False, 30.0, frozenset())
        assert not found["agree"]
        assert found["majority"] == ["far"], "who left a message out has no say against who did not"
        assert [(node["node_id"], node["agrees"]) for node in found["nodes"]] == [("far", True), ("near", False)]
        assert "verify -repair" in found["note"]
    assert items(near.database) == ["next"], "nothing is repaired that was not asked for"
    found = await far.asked.verify(True, 30.0, frozenset())
    assert not found["agree"], "far is right, and repairs nobody else"
    assert items(far.database) == ["lost", "next"]
    found = await near.asked.verify(True, 60.0, frozenset())
    assert found["agree"], found
    assert found["repaired_from"] == ["far"]
    assert items(near.database) == ["lost", "next"]
    assert await near.asked.left_out() == []
    assert "skip" not in near.node.status_object.all_warnings


async def test_what_was_left_out_is_taken_in_at_its_place_in_the_order(nodes: Callable[..., Running]) -> None:
    near, far = nodes("near"), nodes("far")
    seq = await lacking(near, far)
    write(far.database, "UPDATE item SET id = 'renamed' WHERE id = 'lost'")
    await eventually(lambda: items(near.database) == ["next", "renamed"], "what comes later is taken in")
    with pytest.raises(NotUndoneError, match=f"message {seq + 1} of shard 0 is not left out here"):
        await near.asked.undo_skip(0, seq + 1)
    with pytest.raises(NotUndoneError, match=r"can't be taken in: .*needs table extra"):
        await near.asked.undo_skip(0, seq)
    assert [entry["seq"] for entry in await near.asked.left_out()] == [seq], "nothing was changed"
    write(far.database, "INSERT INTO item VALUES ('still')")
    await eventually(lambda: "still" in items(near.database), "it follows as before")
    write(near.database, EXTRA, "INSERT INTO item VALUES ('mine')")
    await eventually(lambda: "extra" in near.node.status_object.tables, "the migration is here too")
    said = await near.asked.undo_skip(0, seq)
    assert said["seq"] == seq
    await eventually(lambda: items(near.database) == ["mine", "next", "renamed", "still"], "no row is lost or back")
    found = await near.asked.verify(False, 30.0, frozenset())
    assert found["agree"], found
    assert await near.asked.left_out() == []
    await near.restart()
    assert (await near.asked.verify(False, 30.0, frozenset()))["agree"]


Step = tuple[str, int, int]


@given(
    st.lists(
        st.tuples(st.sampled_from(["begin", "end", "ask", "refuse", "leave out"]), st.integers(0, 1), st.integers(1, 2))
    )
)
def test_whatever_happens_only_what_is_waited_for_can_be_asked_for(steps: list[Step]) -> None:
    async def play() -> None:
        pauses, waiting = Pauses(), dict[tuple[int, int], Any]()
        asked: dict[tuple[int, int], asyncio.Task[LeftOut]] = {}
        for what, shard, seq in steps:
            at = (shard, seq)
            if what == "begin":
                waiting[at] = pauses.begin(shard, seq, "why")
            elif what == "end":
                pauses.end([at])
                waiting.pop(at, None)
                if at in asked:
                    with pytest.raises(NotPausedError):
                        await asked.pop(at)
            elif what == "ask" and at not in asked:
                task = asyncio.create_task(pauses.leave_out(shard, seq))
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                assert task.done() == (at not in waiting)
                if at in waiting:
                    asked[at] = task
                else:
                    with pytest.raises(NotPausedError):
                        task.result()
            elif at in waiting:
                assert waiting[at].asked.is_set() == (at in asked)
                outcome = LeftOut(shard, seq) if what == "leave out" else HarmonyLiteError("no room")
                waiting[at].answer(outcome)
                if at in asked and what == "leave out":
                    assert await asked.pop(at) == outcome
                elif at in asked:
                    with pytest.raises(HarmonyLiteError, match="no room"):
                        await asked.pop(at)
            assert all((at in pauses) == (at in waiting) for at in [(0, 1), (0, 2), (1, 1), (1, 2)])
        pauses.clear()
        await asyncio.gather(*asked.values(), return_exceptions=True)

    asyncio.run(play())
