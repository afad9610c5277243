"""A node id that is in use is refused to anyone who comes second; a process that is gone or silent refuses nobody."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from harmonylite.errors import FencedError
from harmonylite.nats.link import NatsLink
from harmonylite.nats.peers import NatsPeers
from harmonylite.node import claim as module
from harmonylite.node.claim import CODEC, Claim, Running
from tests.parts.fix_nats import PATIENCE, RealNats, eventually, quick

DB = Path("/data/a/shop.db")


class Process:
    """Stands for one process: a link of its own and the claim over it."""

    def __init__(self, nats: RealNats, session: str, node: str = "n1") -> None:
        self.link = NatsLink(quick(nats.url))
        self.peers = NatsPeers(self.link, "p", node)
        self.claim = Claim(self.peers, node, session, DB, "1.2.3")
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Process:
        await self._stack.enter_async_context(self.link)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.claim.aclose()
        await self._stack.aclose()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.3)
    monkeypatch.setattr(module, "SETTLE", 0.05)


@pytest.fixture
def patient(impatient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for an answer that has to come, however long it takes; nobody waits where nobody listens."""
    monkeypatch.setattr(module, "PATIENCE", PATIENCE)


async def answers(process: Process, asker: Process) -> None:
    """Wait until ``process`` answers ``asker``."""
    async with asyncio.timeout(PATIENCE):
        while not await asker.claim._others():  # noqa: ASYNC110 -- NATS has no event for a subscription elsewhere
            await asyncio.sleep(0.01)


@pytest.mark.usefixtures("patient")
async def test_the_second_process_is_refused_and_told_where_the_first_one_runs(nats: RealNats) -> None:
    async with Process(nats, "one") as one, Process(nats, "two") as two:
        await one.claim.open()
        await answers(one, two)
        with pytest.raises(FencedError) as caught:
            await two.claim.open()
        for part in ("node id n1 is in use", "process ", " on host ", f"{str(DB)!r}", " UTC", "copied configuration"):
            assert part in str(caught.value)
        assert caught.value.exit_code == 8
        assert one.claim._task
        await answers(one, two)
        assert not one.claim._task.done()


async def test_other_ids_and_nobody_are_no_reason_to_wait(nats: RealNats, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 3600)
    async with Process(nats, "one", "other") as other, Process(nats, "two") as two:
        await other.claim.open()
        await two.claim.open()


async def test_a_process_that_is_gone_refuses_nobody(nats: RealNats) -> None:
    async with Process(nats, "one") as one, Process(nats, "two") as two:
        await one.claim.open()
        await answers(one, two)
        await one.__aexit__()
        await two.claim.open()


async def test_a_process_that_does_not_answer_does_not_run(nats: RealNats) -> None:
    async with Process(nats, "one") as frozen, Process(nats, "two") as two:
        await frozen.link.now().subscribe("p.peers.node-n1", lambda _: None)
        await two.claim.open()


CUT_OFF = CODEC.encode(Running("n", "s", "h", 1, "d", 0, 0))[:-4]


@pytest.mark.parametrize("answer", [b"", b"\xff", b"{}", b"[1]", CUT_OFF])
async def test_an_odd_answer_does_not_end_a_start(nats: RealNats, answer: bytes) -> None:
    async with Process(nats, "one") as odd, Process(nats, "two") as two:

        async def say(_: bytes) -> bytes:
            return answer

        serving = asyncio.create_task(odd.peers.serve("node-n1", bytes, say))
        await eventually(lambda: odd.link.connected)
        await two.claim.open()
        serving.cancel()


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("sessions", [("a", "b"), ("b", "a")])
async def test_of_two_that_start_together_one_stays(
    nats: RealNats, monkeypatch: pytest.MonkeyPatch, sessions: tuple[str, str]
) -> None:
    async def nobody(_: Claim) -> None:
        """Both asked before either could answer."""

    monkeypatch.setattr(Claim, "check", nobody)
    monkeypatch.setattr(module, "SETTLE", 0.5)
    async with Process(nats, sessions[0]) as one, Process(nats, sessions[1]) as two:
        two.claim._started = one.claim._started
        await asyncio.gather(one.claim.open(), two.claim.open())
        stays, goes = (one, two) if sessions[0] < sessions[1] else (two, one)
        with pytest.raises(BaseExceptionGroup) as caught:
            await goes.claim.ended()
        assert caught.group_contains(FencedError)
        assert stays.claim._task
        await answers(stays, goes)
        assert not stays.claim._task.done()


@pytest.mark.parametrize(
    ("mine", "theirs", "session", "yields"),
    [
        (100.0, 0.0, "a", False),
        (0.0, 100.0, "z", True),
        (5.0, 5.3, "a", True),
        (5.3, 5.0, "a", True),
        (5.0, 5.3, "z", False),
        (5.3, 5.0, "z", False),
    ],
)
def test_the_one_that_has_run_for_longer_stays(
    monkeypatch: pytest.MonkeyPatch, mine: float, theirs: float, session: str, yields: bool
) -> None:
    monkeypatch.setattr(module, "SETTLE", 1.0)
    claim = Claim(None, "n", "m", DB)  # type: ignore[arg-type] # it asks nobody here
    claim._started = time.monotonic() - mine
    assert claim._yields_to(Running("n", session, "h", 1, "d", 0.0, theirs)) is yields
