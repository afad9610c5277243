"""A supervised child: its output is read for its whole life, and it can't outlive us."""

from __future__ import annotations

import asyncio
import signal
import sys

from harmonylite.nats_server.child_process import KEPT_LINES, Child

TALKER = "import sys\nfor i in range(20_000): print(f'line {i} ' + 'x' * 90, file=(sys.stdout, sys.stderr)[i % 2])"
DEAF = "import signal\nsignal.signal(15, signal.SIG_IGN)\nprint('deaf')\nsignal.sigwait([signal.SIGUSR1])"
LONG = "import sys\nprint('x' * 300_000)\nprint('the next line', flush=True)\nsys.exit(3)"


async def test_a_child_that_talks_a_lot_on_both_outputs_never_stalls() -> None:
    lines: list[str] = []
    child = Child(lines.append)
    await child.start([sys.executable, "-u", "-c", TALKER])
    assert await child.wait() == 0
    assert [line.split()[1] for line in lines] == [str(i) for i in range(20_000)]
    assert list(child.lines) == lines[-KEPT_LINES:]


async def test_a_line_longer_than_any_buffer_does_not_end_the_reading() -> None:
    lines: list[str] = []
    child = Child(lines.append)
    await child.start([sys.executable, "-c", LONG])
    assert await child.wait() == 3
    assert lines[-1] == "the next line"


async def test_a_child_that_ignores_the_request_to_end_is_killed_after_its_time() -> None:
    deaf = asyncio.Event()
    child = Child(lambda _: deaf.set())
    await child.start([sys.executable, "-u", "-c", DEAF])
    async with asyncio.timeout(60):
        await deaf.wait()
    await child.stop(0.5)
    assert await child.wait() == -signal.SIGKILL
