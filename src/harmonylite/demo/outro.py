"""After the story: what to try by hand, with the nodes still up, until a person has seen enough.

Invariant: a node that a person kills comes back by itself, as an operator's supervisor would bring it back.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from harmonylite.demo.console import DemoConsole
from harmonylite.demo.member import Member
from harmonylite.demo.scene import Scene

ABSENCE_SECONDS = 5.0
"""How long a node that was killed by hand stays away, in seconds."""


async def stay(scene: Scene, members: Sequence[Member], console: DemoConsole) -> None:
    """Say what can be tried, then bring killed nodes back until cancelled (Ctrl-C)."""
    console.step("Your turn", "The nodes stay up, each with a page. In another terminal:")
    for line in hints(scene, members):
        console.command(line)
    console.fact("pages", "  ".join(member.url for member in members))
    console.fact("Ctrl-C", "stops the nodes and removes the folder")
    async with asyncio.TaskGroup() as group:
        for member in members:
            group.create_task(_keep(member, console), name=f"keep {member.name}")


def hints(scene: Scene, members: Sequence[Member]) -> list[str]:
    """Return commands that show something, ready to be copied into a shell."""
    one, two, three = members
    statement, query = scene.by_hand()
    here, there = f"{command_name()} -config {in_shell(one.config)}", f"{command_name()} -config {in_shell(two.config)}"
    return [
        f"{sqlite_shell()} {in_shell(one.db)} {in_shell(statement)}",
        f"{sqlite_shell()} {in_shell(three.db)} {in_shell(query)}",
        f"{there} status --watch",
        f"{there} conflicts",
        f"kill -9 {three.pid}    # comes back after {ABSENCE_SECONDS:.0f} s",
        f"{here} verify",
    ]


def in_shell(word: str | Path) -> str:
    """Return ``word`` as one word of a shell's command line."""
    quoted = re.sub(r'([\\"$`])', r"\\\1", str(word))
    return quoted if re.fullmatch(r"[\w/.-]+", quoted) else f'"{quoted}"'


def sqlite_shell() -> str:
    """Return a command that opens a SQLite file: sqlite3 where it is installed, else the shell that apsw brings."""
    return "sqlite3" if shutil.which("sqlite3") else f"{_near(Path(sys.executable))} -m apsw"


def command_name() -> str:
    """Return how this installation's ``harmonylite`` is called from here."""
    script = Path(sys.executable).with_name("harmonylite")
    return _near(script) if script.exists() else f"{_near(Path(sys.executable))} -m harmonylite"


def _near(program: Path) -> str:
    return in_shell(min(str(program), os.path.relpath(program), key=len))


async def _keep(member: Member, console: DemoConsole) -> None:
    while True:
        await member.gone()
        console.fact(member.name, f"is gone; it comes back in {ABSENCE_SECONDS:.0f} s")
        await asyncio.sleep(ABSENCE_SECONDS)
        await member.start()
        console.fact(member.name, f"is back: ready after {await member.ready():.1f} s, process {member.pid}")
