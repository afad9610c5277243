"""What the node waits for, told in the log: whoever reads only that must not be left to guess.

Invariant: a wait is told once, when it has lasted for `TOLD_AFTER` seconds, and its end once.
"""

from __future__ import annotations

import asyncio
import logging
import time

from harmonylite.status import TOLD_AFTER, NodeStatus

log = logging.getLogger(__name__)


class Telling:
    """Looks at the parts of ``status``."""

    def __init__(self, status: NodeStatus) -> None:
        self._status = status
        self._told: dict[str, float] = {}

    async def run(self) -> None:
        """Look again and again, without end."""
        while True:
            await asyncio.sleep(TOLD_AFTER)
            self.look(time.monotonic())

    def look(self, now: float) -> None:
        """Log what began to last, and what is over, since the last look. ``now``: on the monotonic clock."""
        for name, part in sorted(self._status.parts.items()):
            if part.state not in ("waiting", "failed"):
                if (since := self._told.pop(name, None)) is not None:
                    log.info("%s: goes on after %.0f s", name, now - since)
            elif now - part.since >= TOLD_AFTER and self._told.get(name) != part.since:
                self._told[name] = part.since
                log.warning("%s", part.sentence())
