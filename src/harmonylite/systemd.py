"""Report a node to systemd: its start, its state, signs of life, its end (sd_notify(3)).

Invariant: a notification never waits and never harms the node; where systemd asks for none, nothing runs. What the
process manager has no room for now is sent again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Protocol

from harmonylite.ticks import tick

log = logging.getLogger(__name__)

EVERY = 1.0
"""Seconds between reads of the status; shorter where the watchdog wants it."""
BEGINS_EVERY = 0.05
"""Seconds between reads until the node has begun: units that systemd starts after it wait for that."""
LONGER = 30
"""Seconds by which each read extends the start's deadline: filling a new database may take many minutes."""


class ServiceStatus(Protocol):
    """What systemd is notified of: the fields of `harmonylite.status.NodeStatus`, of one node or of a whole process."""

    stopping: bool

    @property
    def cdc_installed(self) -> bool: ...

    @property
    def caught_up(self) -> bool: ...

    @property
    def comes_back(self) -> bool: ...

    @property
    def waits(self) -> list[str]: ...

    @property
    def pending_rows(self) -> int: ...


class Notifier:
    """Sends states to the socket of the process manager. ``path``: as NOTIFY_SOCKET names it."""

    def __init__(self, path: str) -> None:
        self._address = "\0" + path[1:] if path.startswith("@") else path
        self._sent: dict[str, str] = {}

    def send(self, **states: str | int) -> bool:
        """Send ``states``, but for a STATUS equal to the one sent last; return whether the process manager took them.

        Its socket holds a few messages only, ten by Linux's default.
        """
        news = {name: str(state) for name, state in states.items()}
        if news.get("STATUS") == self._sent.get("STATUS"):
            news.pop("STATUS", None)
        if not news:
            return True
        text = "".join(f"{name}={state}\n" for name, state in news.items())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.setblocking(False)
                sock.sendto(text.encode(), self._address)
        except OSError as error:
            log.debug("can't notify systemd: %(error)s", {"error": error})
            return False
        self._sent |= news
        return True


@asynccontextmanager
async def supervised(status: ServiceStatus, environment: Mapping[str, str] = os.environ) -> AsyncIterator[None]:
    """Notify systemd about the node as long as the body runs, if it asks for that."""
    path = environment.get("NOTIFY_SOCKET", "")
    if not path:
        yield
        return
    notifier = Notifier(path)
    notifying = asyncio.create_task(_notify(notifier, status, _watchdog(environment)), name="notify systemd")
    try:
        yield
    finally:
        notifying.cancel()
        await asyncio.wait({notifying})
        notifier.send(STOPPING=1)


async def _notify(notifier: Notifier, status: ServiceStatus, watchdog: float) -> None:
    """Notify without end. ``watchdog``: seconds within which a sign of life is wanted, 0: none is."""
    begun, extended = False, float("-inf")
    pause = min(EVERY, watchdog / 3) if watchdog else EVERY
    while True:
        states: dict[str, str | int] = {"STATUS": _sentence(status)}
        if status.stopping:
            states["STOPPING"] = 1
        elif not begun and status.cdc_installed and (status.caught_up or not status.comes_back):
            # From here on no commit of the application is missed, whether NATS is there or not, and none is made on top
            # of values that are older than what this node had offered before.
            states["READY"] = 1
        elif not begun and time.monotonic() - extended >= EVERY:
            extended, states["EXTEND_TIMEOUT_USEC"] = time.monotonic(), LONGER * 1_000_000
        if watchdog:
            states["WATCHDOG"] = 1
        begun = (notifier.send(**states) and "READY" in states) or begun
        await (tick(pause) if begun else asyncio.sleep(min(pause, BEGINS_EVERY)))


def _watchdog(environment: Mapping[str, str]) -> float:
    """Return the seconds within which systemd wants a sign of life of this process, 0 where it wants none."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    microseconds = environment.get("WATCHDOG_USEC", "")
    return int(microseconds) / 1e6 if microseconds.isdigit() else 0.0


def _sentence(status: ServiceStatus) -> str:
    """Return the node's state, on one line."""
    if status.stopping:
        return "ending"
    if status.waits:
        return "; ".join(status.waits).replace("\n", " ")
    pending = f", {status.pending_rows} rows pending" if status.pending_rows else ""
    return f"{'caught up' if status.caught_up else 'starting'}{pending}"
