"""The one narrator: what parts wait for, failed at or did goes into the log here, and nowhere else.

Invariant: a wait is logged when it has lasted for `SHOWN_AFTER` seconds, a failure or an event at once, the end of a
wait or failure once, and meanwhile a line each `AGAIN_AFTER` seconds. What waits only because another part does is not
logged for itself: the sentence of that other part names it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress

from harmonylite.status import SHOWN_AFTER, NodeStatus, Part
from harmonylite.ticks import tick

log = logging.getLogger(__name__)

AGAIN_AFTER = 60.0
"""Seconds between lines on a wait or a failure that lasts."""

POLL_EVERY = 1.0
"""Seconds between polls of the parts."""


class WaitLog:
    """Polls the parts of ``status``. ``page``: where the node's page is, "" = nowhere."""

    def __init__(self, status: NodeStatus, page: str = "") -> None:
        self._status = status
        self._page = page
        self._ready = False
        self._logged: dict[str, tuple[float, str]] = {}
        self._last: dict[str, float] = {}
        self._explained: dict[str, float] = {}

    async def run(self) -> None:
        """Poll without end, and once more when it is cancelled."""
        try:
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(None if self._ready else POLL_EVERY):
                        # until it is ready, each move is polled: the line says how long that took
                        await (tick(POLL_EVERY) if self._ready else self._status.moved.wait())
                self.poll(time.monotonic())
        finally:
            log_events(self._status)

    def poll(self, now: float) -> None:
        """Log which waits began to last, and which are over, since the last call. ``now``: on the monotonic clock."""
        if not self._ready and self._status.ready:
            self._ready = True
            self._log_ready(now)
        for name, part in sorted(self._status.parts.items()):
            if part.reason in _log_events(part) and part.stuck:
                self._logged[name], self._last[name] = (part.since, part.state), now
            if not part.stuck:
                if (logged := self._logged.pop(name, None)) is not None:
                    log.info("%(part)s: resumed after %(seconds).0f s", {"part": name, "seconds": now - logged[0]})
            elif self._status.cause(part) is not part or name in self._status.elsewhere:
                # When its cause is over it may continue in a moment, at its next try.
                self._explained[name] = now
            elif self._due(part, now):
                self._logged[name], self._last[name] = (part.since, part.state), now
                failed = part.state == "failed"
                log.log(logging.ERROR if failed else logging.WARNING, "%s", self._status.sentence(part))

    def _log_ready(self, now: float) -> None:
        status, page = self._status, f", page {self._page}" if self._page else ""
        tables, seconds = len(status.tables), now - status.started
        log.info(
            "ready: database %(database)s, tables %(tables)d%(page)s, after %(seconds).1f s",
            {"database": status.db_path, "tables": tables, "page": page, "seconds": seconds},
        )

    def _due(self, part: Part, now: float) -> bool:
        if self._logged.get(part.name) == (part.since, part.state):
            return now - self._last[part.name] >= AGAIN_AFTER
        since = max(part.since, self._explained.get(part.name, 0.0))
        return part.state == "failed" or now - since >= SHOWN_AFTER


def log_events(status: NodeStatus) -> None:
    """Log the events of all parts, where no wait log runs, or none any more."""
    for _, part in sorted(status.parts.items()):
        _log_events(part)


def _log_events(part: Part) -> list[str]:
    """Log what happened to ``part`` since the last call; return the texts."""
    events, part.events = part.events, []
    for event in events:
        text = f"%(part)s: {event.text}"
        log.log(logging.WARNING if event.warning else logging.INFO, text, {"part": part.name, **event.fields})
    return [event.sentence for event in events]
