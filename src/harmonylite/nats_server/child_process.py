"""A child process that can't outlive this one, whose output is read to its end.

Invariant: when this process is gone, however it went, so is the child (on Linux; elsewhere only after `stop`).
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Sequence

# Runs between fork and exec in an interpreter of its own, for code in a `preexec_fn` can deadlock beside threads. The
# signal comes when the *thread* that started us ends, which is the event loop's and lives as long as the loop. The
# parent may already be gone before the first call: then it is not our parent any more.
_GUARD = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    sys.exit(70)
os.execv(sys.argv[2], sys.argv[2:])
"""

KEPT_LINES = 40
"""Last lines of output that are kept to explain an end."""


def guarded(command: Sequence[str]) -> list[str]:
    """Return the command that runs ``command``, its first word an absolute path, and ends with this process."""
    return [sys.executable, "-I", "-S", "-c", _GUARD, str(os.getpid()), *command]


class Child:
    """One run of a program. ``line``: called with every line of its output, standard error included."""

    def __init__(self, line: Callable[[str], None]) -> None:
        self.lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._line = line
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None

    async def start(self, command: Sequence[str]) -> None:
        """Start ``command``, its first word an absolute path; raises OSError."""
        self._process = await asyncio.create_subprocess_exec(
            *guarded(command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            process_group=0,  # a Ctrl-C at the terminal is for us; we stop the child when we are done with it
        )
        self._reader = asyncio.create_task(self._read(), name=f"output of {command[0]}")

    @property
    def pid(self) -> int:
        """The child's process id, 0 before it was started."""
        return self._process.pid if self._process is not None else 0

    @property
    def ended(self) -> bool:
        """True once the child has ended."""
        return self._process is not None and self._process.returncode is not None

    async def wait(self) -> int:
        """Wait for the end and for the last line of output; return the exit code, minus the signal's number."""
        assert self._process is not None, "start first"
        code = await self._process.wait()
        if self._reader is not None:
            await asyncio.wait([self._reader])
        return code

    async def stop(self, seconds: float) -> None:
        """Terminate it, kill it after ``seconds``; return when it is gone."""
        if self._process is None:
            return
        self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(seconds):
                await self.wait()
        except TimeoutError:
            self.signal(signal.SIGKILL)
            await self.wait()

    def signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        while True:
            try:
                raw = await self._process.stdout.readline()
            except ValueError:
                continue  # a line above the reader's limit: asyncio drops it, the next one is whole again
            if not raw:
                return
            text = raw.decode(errors="replace").rstrip()
            self.lines.append(text)
            self._line(text)
