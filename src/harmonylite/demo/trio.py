"""The three members together: made, started, waited for, stopped.

Invariant: "equal" is never concluded from what a node says of itself, only from digests of the three files.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from harmonylite.db.sqlite.connection import mapped, open_file
from harmonylite.demo.member import Member, free_ports
from harmonylite.demo.own_file import backup
from harmonylite.demo.scene import Scene
from harmonylite.demo.table_digest import TableDigest, digest_file
from harmonylite.errors import VerifyError

EQUAL_SECONDS = 120.0
"""How long the files may take to become equal, in seconds."""

LOOK_SECONDS = 0.01
"""Between two comparisons of the files, in seconds."""

GLANCE_SECONDS = 0.002
"""Between two quick looks into the files, in seconds."""

Rows: TypeAlias = list[tuple[object, ...]]
"""What a query found."""


def make_members(scene: Scene, folder: Path) -> list[Member]:
    """Build the scene's file for the first member and back it up for the others. Raises ConfigError, DatabaseError."""
    ports = free_ports(6)
    cluster = ports[3:]
    members = []
    for number in (1, 2, 3):
        home = folder / f"node{number}"
        home.mkdir()
        peers = [port for n, port in enumerate(cluster, start=1) if n != number]
        member = Member(number, home, scene.file_name, http=ports[number - 1], cluster=cluster[number - 1], peers=peers)
        member.prepare()
        members.append(member)
    scene.build(members[0].db)
    for member in members[1:]:
        backup(members[0].db, member.db)
    return members


@contextlib.asynccontextmanager
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


async def until_equal(members: Sequence[Member], tables: tuple[str, ...], seconds: float = EQUAL_SECONDS) -> float:
    """Wait until the members' files hold the same rows in ``tables``; return when that was seen (monotonic clock).

    :raises HarmonyLiteError: a node ended. :raises VerifyError: the files still differ after ``seconds``.
    """
    deadline = time.monotonic() + seconds
    while True:
        for member in members:
            member.expect_running()
        digests, seen = await asyncio.to_thread(_look, members, tables)
        if all(digest == digests[0] for digest in digests[1:]):
            return seen
        if time.monotonic() > deadline:
            names = ", ".join(differing(digests))
            who = ", ".join(member.name for member in members)
            raise VerifyError(
                f"{who} still differ in {names} after {seconds:.0f} s", advice=f"logs: {members[0].log.parent.parent}"
            )
        await asyncio.sleep(LOOK_SECONDS)


async def until_seen(
    members: Sequence[Member],
    queries: Sequence[str],
    done: Callable[[list[list[Rows]]], bool],
    seconds: float = EQUAL_SECONDS,
) -> float:
    """Ask each member's file ``queries`` again and again until ``done`` of the answers; return when that was.

    ``done`` gets a list of answers for each member. It asks quickly, so as to say how long something took; whether the
    files are equal it does not say. Raises HarmonyLiteError when a node ended, VerifyError after ``seconds``.
    """
    deadline = time.monotonic() + seconds
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(contextlib.closing(open_file(m.db, read_only=True))) for m in members]
        while True:
            for member in members:
                member.expect_running()
            now = time.monotonic()
            with mapped("look at the files"):
                answers = [[[tuple(row) for row in file.execute(sql)] for sql in queries] for file in files]
            if done(answers):
                return now
            if now > deadline:
                raise VerifyError(f"after {seconds:.0f} s the files still answer {answers} to {'; '.join(queries)}")
            await asyncio.sleep(GLANCE_SECONDS)


def _look(members: Sequence[Member], tables: tuple[str, ...]) -> tuple[list[dict[str, TableDigest]], float]:
    """Digest the files; the time is that of beginning with the last one: what was equal by then was equal at then."""
    digests, seen = [], 0.0
    for member in members:
        seen = time.monotonic()
        digests.append(digest_file(member.db, tables))
    return digests, seen


def differing(digests: Sequence[dict[str, TableDigest]]) -> list[str]:
    """Return the tables that are not the same everywhere."""
    names = {name for digest in digests for name in digest}
    return sorted(name for name in names if len({digest.get(name) for digest in digests}) > 1)
