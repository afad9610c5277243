"""The three members together: made, started, waited for, stopped.

Invariant: "equal" is never concluded from what a node says of itself, only from digests of the three files.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import TypeAlias

from harmonylite.db.sqlite.connection import reading
from harmonylite.demo.member import Member, free_ports
from harmonylite.demo.own_file import backup
from harmonylite.demo.scene import Scene
from harmonylite.demo.table_digest import TableDigest, digest_file
from harmonylite.errors import VerifyError

EQUAL_SECONDS = 120.0
"""How long the files may take to become equal, in seconds."""

POLL_SECONDS = 0.01
"""Between two comparisons of the files, in seconds."""

GLANCE_SECONDS = 0.002
"""Between two quick polls of the files, in seconds."""

Rows: TypeAlias = list[tuple[object, ...]]
"""What a query found."""


def make_members(scene: Scene, folder: Path) -> list[Member]:
    """Build the scene's file for the first member and back it up for the others. Raises ConfigError, DatabaseError."""
    ports = free_ports(6)
    members = []
    for index in range(3):
        home = folder / f"node{index + 1}"
        home.mkdir()
        peers = [port for port in ports[3:] if port != ports[3 + index]]
        members.append(
            Member(index + 1, home, scene.file_name, http=ports[index], cluster=ports[3 + index], peers=peers)
        )
        members[-1].prepare()
    scene.build(members[0].db)
    for member in members[1:]:
        backup(members[0].db, member.db)
    return members


@asynccontextmanager
async def running(members: Sequence[Member]) -> AsyncIterator[dict[str, float]]:
    """Start all and wait until each is ready: gives the seconds that each took. All are gone afterwards.

    :raises HarmonyLiteError: one did not become ready.
    """
    try:
        for member in members:
            await member.start()
        seconds = await asyncio.gather(*(member.ready() for member in members))
        yield {member.name: took for member, took in zip(members, seconds, strict=True)}
    finally:
        # Cancelled once more while it waits, it still must not leave processes behind: the second time they are killed.
        try:
            await asyncio.gather(*(member.aclose() for member in members))
        except asyncio.CancelledError:
            await asyncio.shield(asyncio.gather(*(member.kill() for member in members)))
            raise


async def until_equal(members: Sequence[Member], tables: tuple[str, ...]) -> float:
    """Wait until the members' files hold the same rows in ``tables``; return when that was seen (monotonic clock).

    :raises HarmonyLiteError: a node ended. :raises VerifyError: the files still differ after `EQUAL_SECONDS`.
    """

    async def check() -> tuple[str, float]:
        digests, seen = [], 0.0
        for member in members:
            seen = time.monotonic()  # of the last one: what was equal by then was equal at then
            digests.append(await asyncio.to_thread(digest_file, member.db, tables))
        return ", ".join(differing(digests)), seen

    return await _until(members, check, POLL_SECONDS)


async def until_seen(
    members: Sequence[Member], queries: Sequence[str], done: Callable[[list[list[Rows]]], bool]
) -> float:
    """Ask each member's file ``queries`` again and again until ``done`` of the answers; return when that was.

    ``done`` gets a list of answers for each member. It asks quickly, so as to say how long something took; whether the
    files are equal it does not say. Raises as `until_equal` does.
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
