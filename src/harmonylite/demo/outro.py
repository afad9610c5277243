"""After the story: commands to try by hand while the nodes run.

Invariant: a node that a person kills is restarted, as a supervisor would.
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
from harmonylite.demo.trio import Scene

ABSENCE_SECONDS = 5.0
"""Seconds until a node that a person killed is restarted."""


async def stay(scene: Scene, members: Sequence[Member], console: DemoConsole) -> None:
    """Show the commands, then restart killed nodes until cancelled (Ctrl-C)."""
    console.step("Your turn", "The nodes stay up, each with a page. In another terminal:")
    for line in hints(scene, members):
        console.command(line)
    console.fact("pages", "  ".join(member.url for member in members))
    console.fact("Ctrl-C", "stops the nodes and removes the folder")
    async with asyncio.TaskGroup() as group:
        for member in members:
            group.create_task(_keep(member, console), name=f"keep {member.name}")


def hints(scene: Scene, members: Sequence[Member]) -> list[str]:
    """Return commands to copy into a shell."""
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
    """Return ``word`` quoted for a shell."""
    quoted = re.sub(r'([\\"$`])', r"\\\1", str(word))
    return quoted if re.fullmatch(r"[\w/.-]+", quoted) else f'"{quoted}"'


def sqlite_shell() -> str:
    """Return a command that opens a SQLite file: sqlite3 if it is installed, else apsw's shell."""
    return "sqlite3" if shutil.which("sqlite3") else f"{_near(Path(sys.executable))} -m apsw"


def command_name() -> str:
    """Return the command of this installation's ``harmonylite``."""
    script = Path(sys.executable).with_name("harmonylite")
    return _near(script) if script.exists() else f"{_near(Path(sys.executable))} -m harmonylite"


def _near(program: Path) -> str:
    return in_shell(min(str(program), os.path.relpath(program), key=len))


async def _keep(member: Member, console: DemoConsole) -> None:
    while True:
        await member.wait()
        console.fact(member.name, f"is gone; it comes back in {ABSENCE_SECONDS:.0f} s")
        await asyncio.sleep(ABSENCE_SECONDS)
        await member.run()
        console.fact(member.name, f"is back: ready after {await member.ready():.1f} s, process {member.pid}")
