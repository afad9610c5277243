"""The three members together: create, start, wait for and stop them.

Invariant: only digests of the three files show that they are equal, never what a node reports.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import TypeAlias

from harmonylite.db.sqlite.connection import reading
from harmonylite.demo.files import Rows, TableDigest, backup, digest_file
from harmonylite.demo.member import STOP_SECONDS, Member, free_ports
from harmonylite.demo.own_file import OwnFile
from harmonylite.demo.shop import Shop
from harmonylite.errors import VerifyError

EQUAL_SECONDS = 120.0
"""Seconds until the files must be equal."""

POLL_SECONDS = 0.01
"""Seconds between two comparisons of the files."""

GLANCE_SECONDS = 0.002
"""Seconds between two quick polls of the files."""

Scene: TypeAlias = Shop | OwnFile
"""A database, and what happens to it."""


def make_members(scene: Scene, folder: Path) -> list[Member]:
    """Build the scene's file for the first member and back it up for the others. Raises ConfigError, DatabaseError."""
    ports = free_ports(6)
    members = []
    for index in range(3):
        home = folder / f"node{index + 1}"
        home.mkdir()
        peers = [port for port in ports[3:] if port != ports[3 + index]]
        http, cluster = ports[index], ports[3 + index]
        members.append(Member(index + 1, home, scene.file_name, http=http, cluster=cluster, peers=peers))
    scene.build(members[0].db)
    for member in members[1:]:
        backup(members[0].db, member.db)
    return members


@asynccontextmanager
async def running(members: Sequence[Member]) -> AsyncIterator[dict[str, float]]:
    """Start all, wait until each is ready, and provide the seconds that each took. All are gone afterwards.

    Raises HarmonyLiteError when one does not become ready.
    """
    try:
        for member in members:
            await member.run()
        seconds = await asyncio.gather(*(member.ready() for member in members))
        yield {member.name: took for member, took in zip(members, seconds, strict=True)}
    finally:
        try:
            await asyncio.gather(*(member.stop(STOP_SECONDS) for member in members))
        except asyncio.CancelledError:  # a second time: no process may stay behind
            await asyncio.shield(asyncio.gather(*(member.kill() for member in members)))
            raise


async def until_equal(members: Sequence[Member], tables: tuple[str, ...]) -> float:
    """Wait until the members' files hold the same rows in ``tables``; return when that was (monotonic clock).

    Raises HarmonyLiteError when a node ended, VerifyError when the files still differ after `EQUAL_SECONDS`.
    """

    async def check() -> tuple[str, float]:
        digests, seen = [], 0.0
        for member in members:
            seen = time.monotonic()  # before the last one is read
            digests.append(await asyncio.to_thread(digest_file, member.db, tables))
        return ", ".join(differing(digests)), seen

    return await _until(members, check, POLL_SECONDS)


async def until_seen(
    members: Sequence[Member], queries: Sequence[str], done: Callable[[list[list[Rows]]], bool]
) -> float:
    """Poll each member's file with ``queries`` until ``done`` of the answers, a list per member; return when that was.

    It polls fast, to measure how long something took; `until_equal` shows that the files are equal. Raises as that.
    """
    with ExitStack() as stack:
        files = [stack.enter_context(reading(member.db)) for member in members]

        async def check() -> tuple[str, float]:
            now = time.monotonic()
            answers = [[[tuple(row) for row in file.execute(sql)] for sql in queries] for file in files]
            return "" if done(answers) else f"{answers} to {'; '.join(queries)}", now

        return await _until(members, check, GLANCE_SECONDS)


async def _until(members: Sequence[Member], check: Callable[[], Awaitable[tuple[str, float]]], pause: float) -> float:
    """Poll until nothing differs; return when that was. ``check``: returns what differs, and when it checked."""
    deadline = time.monotonic() + EQUAL_SECONDS
    while True:
        for member in members:
            member.expect_running()
        differs, seen = await check()
        if not differs:
            return seen
        if time.monotonic() > deadline:
            who, logs = ", ".join(member.name for member in members), members[0].folder.parent
            raise VerifyError(f"{who} still differ after {EQUAL_SECONDS:.0f} s: {differs}", advice=f"logs: {logs}")
        await asyncio.sleep(pause)


def differing(digests: Sequence[dict[str, TableDigest]]) -> list[str]:
    """Return the tables that are not the same everywhere."""
    names = {name for digest in digests for name in digest}
    return sorted(name for name in names if len({digest.get(name) for digest in digests}) > 1)
