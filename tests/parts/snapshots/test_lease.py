"""The lease on a real NATS: one holder at a time, given back on a stop, taken over when it is not renewed."""

from __future__ import annotations

import pytest

from harmonylite.jetstream.object_store import JetStreamObjects
from harmonylite.jetstream.settings import StreamSettings
from harmonylite.nats.link import NatsLink
from harmonylite.snapshots.lease import LEASE, Lease


class Clock:
    """Monotonic seconds of one machine, which has nothing to do with another's."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def objects(link: NatsLink) -> JetStreamObjects:
    return JetStreamObjects(link, StreamSettings())


def lease(objects: JetStreamObjects, node: str, clock: Clock) -> Lease:
    return Lease(objects, node, f"session of {node}", seconds=30.0, clock=clock)


async def test_one_node_holds_it_and_the_others_know_who(objects: JetStreamObjects) -> None:
    a, b = lease(objects, "a", Clock(5)), lease(objects, "b", Clock(1e9))
    assert await a.renew()
    assert not await b.renew()
    assert (a.held, b.held, b.holder) == (True, False, "a")


async def test_it_is_kept_by_renewing_and_lost_without(objects: JetStreamObjects) -> None:
    here, there = Clock(0), Clock(1000)
    a, b = lease(objects, "a", here), lease(objects, "b", there)
    await a.renew()
    for _ in range(5):
        assert not await b.renew()
        here.now += 20
        there.now += 20
        assert await a.renew()
    assert not await b.renew()
    here.now += 31
    there.now += 31
    assert not a.held, "the holder itself counts the time from before it asked"
    assert await b.renew(), "it did not move for the whole time by the other's clock"
    assert not await a.renew(), "a holder that was frozen has lost it"


async def test_what_was_given_back_is_free_at_once(objects: JetStreamObjects) -> None:
    a, b = lease(objects, "a", Clock(0)), lease(objects, "b", Clock(0))
    await a.renew()
    assert not await b.renew()
    await a.release()
    assert not a.held
    assert await b.renew()
    await a.release()  # another's is not given away
    assert await b.renew()


class Raced:
    """Pointers that another node sets right before this one does, as often as ``raced`` says."""

    def __init__(self, objects: JetStreamObjects) -> None:
        self._objects = objects
        self.raced: list[Lease] = []

    async def pointer(self, key: str) -> tuple[bytes, int] | None:
        return await self._objects.pointer(key)

    async def set_pointer(self, key: str, value: bytes, *, revision: int) -> bool:
        if self.raced:
            assert await self.raced.pop().renew()
        return await self._objects.set_pointer(key, value, revision=revision)


async def test_of_two_that_take_it_at_once_one_holds_it(objects: JetStreamObjects) -> None:
    pointers, other = Raced(objects), lease(objects, "b", Clock(0))
    late = Lease(pointers, "a", "session of a", seconds=30.0, clock=Clock(0))
    assert not late.held
    pointers.raced.append(other)
    assert not await late.renew()
    assert (late.held, other.held) == (False, True)
    assert not await late.renew()
    assert late.holder == "b"


async def test_a_holder_that_was_overtaken_gives_nothing_away(objects: JetStreamObjects) -> None:
    frozen, there = Clock(0), Clock(0)
    a, b = lease(objects, "a", frozen), lease(objects, "b", there)
    await a.renew()
    assert not await b.renew()
    there.now += 31
    assert await b.renew(), "a's clock stood still, so a takes itself for the holder"
    before = await objects.pointer(LEASE)
    assert a.held
    await a.release()
    assert await objects.pointer(LEASE) == before


async def test_taking_it_is_logged_once(objects: JetStreamObjects, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "harmonylite.snapshots.lease")
    a = lease(objects, "a", Clock(0))
    for _ in range(3):
        assert await a.renew()
    assert len(caplog.messages) == 1


async def test_another_process_of_the_same_node_waits_too(objects: JetStreamObjects) -> None:
    first = Lease(objects, "a", "one", seconds=30.0, clock=Clock(0))
    second = Lease(objects, "a", "two", seconds=30.0, clock=Clock(0))
    assert await first.renew()
    assert not await second.renew()


async def test_it_is_others_while_another_node_has_not_given_it_back(objects: JetStreamObjects) -> None:
    asking, other = lease(objects, "a", Clock(0)), lease(objects, "b", Clock(0))
    assert not await asking.is_others(), "nobody ever had it"
    earlier = Lease(objects, "a", "an earlier process", seconds=30.0, clock=Clock(0))
    await earlier.renew()
    assert not await asking.is_others()
    assert await other.is_others()
    await earlier.release()
    assert not await other.is_others()
    await other.renew()
    assert await asking.is_others()
    assert not await other.is_others()


async def test_it_is_held_from_when_it_was_asked_for_and_not_at_the_moment_it_ends(objects: JetStreamObjects) -> None:
    clock = Clock(100)
    a = lease(objects, "a", clock)
    states = [a.held]
    assert await a.renew()
    for now in (100.0, 129.9, 130.0):
        clock.now = now
        states.append(a.held)
    assert states == [False, True, True, False]
    assert a.pause == 10.0, "it is renewed three times before it runs out"


@pytest.mark.parametrize("bad", [b'{"node":"\xff","session":"s"}', b'{"node":5}', b"", b"[" * 5000])
async def test_one_that_can_not_be_read_is_an_unknowns_until_it_runs_out(objects: JetStreamObjects, bad: bytes) -> None:
    here, there = Clock(0), Clock(1000)
    a, b = lease(objects, "a", here), lease(objects, "b", there)
    await a.renew()
    found = await objects.pointer(LEASE)
    assert found is not None
    assert await objects.set_pointer(LEASE, bad, revision=found[1])
    assert not await a.renew()
    await a.release()  # there is nothing of its own to give back
    assert not await b.renew()
    assert b.holder == "unknown"
    there.now += 29
    assert not await b.renew()
    there.now += 1
    assert await b.renew(), "it ran out by the clock of who waited for it"
    assert (b.held, b.holder) == (True, "b")
