"""After the story: what to try by hand, with the nodes still up, until a person has seen enough.

Invariant: a node that a person kills comes back by itself, as an operator's supervisor would bring it back.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from harmonylite.demo.member import Member
from harmonylite.demo.scene import Scene
from harmonylite.demo.teller import Teller

ABSENCE_SECONDS = 5.0
"""How long a node that was killed by hand stays away, in seconds."""


async def stay(scene: Scene, members: Sequence[Member], teller: Teller) -> None:
    """Say what can be tried, then bring killed nodes back until cancelled (Ctrl-C)."""
    for line in hints(scene, members):
        teller.command(line)
    teller.fact("pages", "  ".join(member.url for member in members))
    teller.fact("Ctrl-C", "stops the nodes and removes the folder")
    async with asyncio.TaskGroup() as group:
        for member in members:
            group.create_task(_keep(member, teller), name=f"keep {member.name}")


def hints(scene: Scene, members: Sequence[Member]) -> list[str]:
    """Return commands that show something, ready to be copied into a shell."""
    one, two, three = members
    clash = scene.one_column()
    return [
        f"sqlite3 {one.db} {in_shell(clash.one[0])}",
        f"sqlite3 {three.db} {in_shell(clash.show)}",
        f"{command_name()} -config {two.config} status",
        f"{command_name()} -config {two.config} conflicts",
        f"kill -9 {three.pid}    # comes back after {ABSENCE_SECONDS:.0f} s",
        f"{command_name()} -config {one.config} verify",
    ]


def in_shell(sql: str) -> str:
    """Return ``sql`` as one word of a shell's command line."""
    for special in ("\\", '"', "$", "`"):
        sql = sql.replace(special, "\\" + special)
    return f'"{sql}"'


def command_name() -> str:
    """Return how this installation's ``harmonylite`` is called from here."""
    script = Path(sys.executable).with_name("harmonylite")
    if not script.exists():
        return f"{sys.executable} -m harmonylite"
    return min(str(script), os.path.relpath(script), key=len)


async def _keep(member: Member, teller: Teller) -> None:
    while True:
        await member.gone()
        teller.fact(member.name, f"is gone; it comes back in {ABSENCE_SECONDS:.0f} s")
        await asyncio.sleep(ABSENCE_SECONDS)
        await member.start()
        teller.fact(member.name, f"is back: ready after {await member.ready():.1f} s, process {member.pid}")
