"""All SQLite work runs on one thread, in order, and a caller who gives up abandons the wait and not the call."""

from __future__ import annotations

import asyncio
import threading

import pytest

from harmonylite.db.sqlite.thread import GiveWayError, SqliteThread
from harmonylite.logs import bind, bound


async def test_calls_run_one_after_the_other_on_one_thread() -> None:
    thread, seen = SqliteThread(), []

    def note(number: int) -> int:
        seen.append((number, threading.get_ident()))
        return number

    try:
        assert await asyncio.gather(*(thread.run(note, number) for number in range(50))) == list(range(50))
        assert [number for number, _ in seen] == list(range(50))
        assert len({ident for _, ident in seen}) == 1
        assert seen[0][1] != threading.get_ident()
    finally:
        await thread.aclose()


async def test_log_lines_of_the_thread_name_the_database_as_those_of_its_tasks_do() -> None:
    thread = SqliteThread()
    bind(database="shop")
    try:
        assert (await thread.run(bound))["database"] == "shop"
    finally:
        await thread.aclose()


async def test_a_call_whose_caller_gave_up_runs_to_its_end() -> None:
    thread, begun, may_end, ended = SqliteThread(), threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        may_end.wait(60)
        ended.set()

    task = asyncio.create_task(thread.run(work))
    assert await asyncio.to_thread(begun.wait, 60)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not ended.is_set()
    may_end.set()
    await thread.aclose()
    assert ended.is_set()


async def test_an_error_reaches_the_caller() -> None:
    thread = SqliteThread()
    try:
        with pytest.raises(ZeroDivisionError):
            await thread.run(lambda: 1 // 0)
    finally:
        await thread.aclose()


async def test_calls_that_wait_are_dropped_when_the_thread_ends() -> None:
    thread, begun, may_end = SqliteThread(), threading.Event(), threading.Event()
    ran: list[str] = []

    def work() -> bool:
        begun.set()
        return may_end.wait(60)

    first = asyncio.create_task(thread.run(work))
    second = asyncio.create_task(thread.run(ran.append, "second"))
    assert await asyncio.to_thread(begun.wait, 60)
    closing = asyncio.create_task(thread.aclose())
    await asyncio.wait([second])
    may_end.set()
    await closing
    assert await first is True
    with pytest.raises(asyncio.CancelledError):
        await second
    assert ran == []
    with pytest.raises(RuntimeError, match="has ended"):
        await thread.run(ran.append, "late")
    await thread.aclose()


async def test_what_is_owed_runs_though_its_caller_gave_up_and_the_thread_ends() -> None:
    thread, begun, may_end = SqliteThread(), threading.Event(), threading.Event()
    ran: list[str] = []

    def work() -> bool:
        begun.set()
        return may_end.wait(60)

    waits = [asyncio.create_task(thread.run(work)), asyncio.create_task(thread.always(ran.append, "first"))]
    waits += [
        asyncio.create_task(thread.run(ran.append, "dropped")),
        asyncio.create_task(thread.always(ran.append, "2")),
    ]
    assert await asyncio.to_thread(begun.wait, 60)
    for each in waits[1:]:
        each.cancel()
    closing = asyncio.create_task(thread.aclose())
    await asyncio.wait(waits[1:])
    may_end.set()
    await closing
    assert ran == ["first", "2"]


async def test_a_thread_whose_loop_has_ended_goes_on_to_its_end() -> None:
    thread, may_end, ended = SqliteThread(), threading.Event(), threading.Event()

    def work() -> None:
        may_end.wait(60)
        ended.set()

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await thread.run(work)

    await asyncio.to_thread(asyncio.run, give_up())
    may_end.set()
    assert await asyncio.to_thread(ended.wait, 60)
    assert await thread.run(lambda: 7) == 7
    await thread.aclose()


async def test_a_call_that_pauses_goes_on_as_soon_as_another_one_waits_for_it() -> None:
    thread, begun = SqliteThread(), threading.Event()

    def pauses() -> bool:
        begun.set()
        return thread.pause(600)

    try:
        assert await thread.run(thread.pause, 0.0), "nobody waits"
        first = asyncio.create_task(thread.run(pauses))
        assert await asyncio.to_thread(begun.wait, 60)
        await asyncio.gather(thread.run(int), first)
        assert first.result() is False
    finally:
        await thread.aclose()


async def test_a_call_that_gives_way_runs_again_after_those_that_wait() -> None:
    thread, ran = SqliteThread(), []

    def waiting(name: str) -> str:
        ran.append(name)
        if not thread.pause(60.0):
            raise GiveWayError
        return name

    try:
        first = asyncio.create_task(thread.run(waiting, "first"))
        assert await thread.run(lambda: "second") == "second"
        assert await thread.run(lambda: "third") == "third"
        assert not first.done()
        assert ran.count("first") >= 1
    finally:
        await thread.aclose()
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_what_is_checked_by_the_clock_is_checked_between_the_calls_until_it_is_found() -> None:
    thread, checks, idents = SqliteThread(), list[None](), set[int]()

    def third() -> bool:
        checks.append(None)
        idents.add(threading.get_ident())
        if len(checks) == 1:
            raise GiveWayError
        return len(checks) == 3

    try:
        checking = asyncio.create_task(thread.until(third, 0.001))
        calls = [await thread.run(threading.get_ident) for _ in range(20)]
        await checking
        await thread.run(thread.pause, 0.005)
        assert len(checks) == 3, "nobody waits for it any more"
        assert idents == set(calls)
    finally:
        await thread.aclose()


async def test_an_error_of_a_check_reaches_the_caller_and_ends_it() -> None:
    thread, checks = SqliteThread(), list[None]()

    def fails() -> bool:
        checks.append(None)
        raise ZeroDivisionError

    try:
        with pytest.raises(ZeroDivisionError):
            await thread.until(fails, 0.001)
        await thread.run(thread.pause, 0.005)
        assert len(checks) == 1
    finally:
        await thread.aclose()


async def test_a_check_whose_caller_gave_up_is_forgotten_and_one_that_waits_ends_with_the_thread() -> None:
    thread, checked = SqliteThread(), threading.Event()

    def never() -> bool:
        checked.set()
        return False

    given_up = asyncio.create_task(thread.until(never, 0.001))
    assert await asyncio.to_thread(checked.wait, 60)
    given_up.cancel()
    await asyncio.wait({given_up})
    await thread.run(int)
    checked.clear()
    await thread.run(thread.pause, 0.005)
    await thread.run(int)
    assert not checked.is_set()
    waiting = asyncio.create_task(thread.until(never, 0.001))
    assert await asyncio.to_thread(checked.wait, 60)
    await thread.aclose()
    with pytest.raises(asyncio.CancelledError):
        await waiting
