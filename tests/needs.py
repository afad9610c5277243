"""What some tests need of the machine beyond Python, and one line about those that are left out without it.

Invariant: `make test` passes where all of this is missing; only the PATH is searched for it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

FORCED = "TESTS_NEED"
"""Environment variable: first words of needs, by spaces, that must be there; their lack is then a fault."""

LIBRARIES = Path(__file__).parents[1] / ".venv" / "libraries"

MOUNT = ["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]


@dataclass(frozen=True)
class Need:
    """A thing of the machine. ``missing``: what to do about its absence, "" where it is there."""

    what: str
    missing: str
    found: tuple[str, ...] = ()
    """The command, where it is one that `make libraries` installs."""

    @property
    def reason(self) -> str:
        """Why a test is left out."""
        return f"needs {self.what} ({self.missing})"

    @property
    def mark(self) -> pytest.MarkDecorator:
        """Leave a test out where the thing is missing."""
        return pytest.mark.skipif(bool(self.missing), reason=self.reason)

    def skip(self) -> None:
        """Leave the running test out where the thing is missing; fail it where `FORCED` names the thing."""
        if self.missing:
            forced = self.what.split()[0] in os.environ.get(FORCED, "").split()
            (pytest.fail if forced else pytest.skip)(self.reason)


def programs(*names: str, package: str) -> Need:
    """Return the need of programs that Debian's ``package`` brings."""
    there = all(shutil.which(name) for name in names)
    return Need(" and ".join(names), "" if there else f"apt-get install {package}")


def libraries(which: str, *command: str) -> Need:
    """Return the need of a server that ``make libraries`` installs; the last word is a path below its folder."""
    program = LIBRARIES / which / command[-1]
    there = program.exists() and all(shutil.which(word) for word in command[:-1])
    return Need(which, "" if there else f"make libraries WHICH={which}", (*command[:-1], str(program)))


def mounts() -> Need:
    """Return the need of the right to mount a file system in a namespace of one's own."""
    may = os.geteuid() == 0 and shutil.which(MOUNT[0]) is not None
    may = may and subprocess.run(MOUNT, check=False, capture_output=True).returncode == 0
    return Need("mounts", "" if may else "run as root, with CAP_SYS_ADMIN")


MOUNTS = mounts()
SSHD = programs("sshd", package="openssh-server")
KEYSCAN = programs("ssh-keyscan", package="openssh-client")
CHROMIUM = programs("chromium", "chromedriver", package="chromium chromium-driver")
PROMTOOL = programs("promtool", package="prometheus")
AZURITE = libraries("azurite", "node", "node_modules/azurite/dist/src/blob/main.js")
ANALYZE = programs("systemd-analyze", package="systemd")


def left_out(reasons: Iterable[str]) -> str:
    """Return one line about the tests that were skipped for ``reasons``, "" when there are none."""
    counted = sorted(Counter(reasons).items())
    found = "; ".join(f"{count} {'test' if count == 1 else 'tests'}: {reason}" for reason, count in counted)
    return f"not run here: {found}" if found else ""
