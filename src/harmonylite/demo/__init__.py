"""`harmonylite demo`: three real nodes on this machine, on copies of a person's own file or on a small shop.

Invariant: the demo only reads the person's file, and removes every process and file that it created.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from harmonylite.errors import HarmonyLiteError, VerifyError

if TYPE_CHECKING:
    from harmonylite.demo.trio import Scene

INTERRUPTED = 130
"""Exit code after Ctrl-C during the story, as of shells."""


def run(file: Path | None, exit_when_done: bool) -> int:
    """Play the demo on copies of ``file`` (None: a small shop); return the exit code, 0 only if all files ended equal.

    ``exit_when_done``: stop the nodes at the end; otherwise they stay up until Ctrl-C or SIGTERM, with hints what to
    try by hand. Raises ConfigError for an unusable file, HarmonyLiteError when a node fails; the folder with the
    logs is then kept, and the error names it.
    """
    from harmonylite.demo.own_file import OwnFile
    from harmonylite.demo.shop import Shop

    scene: Scene = OwnFile(file.expanduser()) if file else Shop()
    folder = Path(tempfile.mkdtemp(prefix="harmonylite-demo-"))
    keep = False
    try:
        return asyncio.run(_main(scene, folder, exit_when_done))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return INTERRUPTED
    except HarmonyLiteError as error:
        keep = any(folder.glob("node*/*.log"))
        if not keep:
            raise
        advice = "; ".join(filter(None, (error.advice, f"everything is kept in {folder}")))
        raise type(error)(error.message, advice=advice) from error
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


async def _main(scene: Scene, folder: Path, exit_when_done: bool) -> int:
    from harmonylite.demo.console import DemoConsole
    from harmonylite.demo.outro import stay
    from harmonylite.demo.story import Story
    from harmonylite.demo.trio import make_members, running

    main = asyncio.current_task()
    assert main is not None
    for number in (signal.SIGTERM, signal.SIGHUP):  # SIGHUP: the terminal was closed
        asyncio.get_running_loop().add_signal_handler(number, main.cancel)
    console = DemoConsole()
    console.title(
        "HarmonyLite: three SQLite files, written everywhere, always the same in the end", f"on {scene.title}"
    )
    console.step("Three files, three nodes", f"Everything is in {folder}")
    with console.waiting("the files are being made"):
        members = make_members(scene, folder)
    if scene.remark:
        console.fact("note", scene.remark)
    async with AsyncExitStack() as stack:
        with console.waiting("three nodes are starting, each with a NATS server of its own"):
            seconds = await stack.enter_async_context(running(members))
        for member in members:
            console.fact(member.name, f"ready after {seconds[member.name]:.1f} s, process {member.pid}, {member.url}")
        equal = await Story(scene, members, console).play()
        if not exit_when_done:
            try:
                await stay(scene, members, console)
            except asyncio.CancelledError:
                main.uncancel()  # Ctrl-C is how a person leaves; what follows is the ordinary end
    return 0 if equal else VerifyError.exit_code
