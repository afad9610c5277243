"""A lease: which node saves snapshots, or publishes the feed. Its holder renews a pointer in NATS before it expires.

Invariant: no two machines' clocks are compared. The holder counts its time from before it asked for it; the others take
over when the pointer's revision has not moved for the whole time by their own monotonic clock. Two holders at once,
while a frozen one has not noticed yet, do no harm: both save exact snapshots, and the pointer is compared and set;
both publish the same events.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import msgspec

from harmonylite.errors import ForeignError
from harmonylite.foreign import Codec, Line
from harmonylite.snapshots.repository import PointerStore

log = logging.getLogger(__name__)

LEASE = "lease"


class Holder(msgspec.Struct, frozen=True):
    """Who holds the lease; both texts are empty when it was given back."""

    node: Line = ""
    session: Line = ""


CODEC = Codec("the lease", Holder)
UNKNOWN = Holder("unknown", "unknown")
"""The holder of a malformed lease, which expires like any other."""


class Lease:
    """A lease, seen from one process. ``seconds``: how long it lasts; ``clock``: monotonic seconds.

    ``key``: its pointer; ``duty``: what its holder does, as a phrase for the log.
    """

    def __init__(
        self,
        pointers: PointerStore,
        node: str,
        session: str,
        *,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
        key: str = LEASE,
        duty: str = "saves the snapshots",
    ) -> None:
        self._pointers = pointers
        self._key = key
        self._duty = duty
        self._me = Holder(node, session)
        self._seconds = seconds
        self._clock = clock
        self._until = float("-inf")
        self._seen = 0
        self._since = float("-inf")
        self.holder = ""

    @property
    def held(self) -> bool:
        """True while this process holds the lease for sure."""
        return self._clock() < self._until

    @property
    def pause(self) -> float:
        """Seconds between two calls of `renew`."""
        return self._seconds / 3

    async def is_others(self) -> bool:
        """Return whether another node holds the lease, or did when it was last set again. Raises StreamError."""
        found = await self._pointers.pointer(self._key)
        return found is not None and _decode(found[0]).node not in ("", self._me.node)

    async def renew(self) -> bool:
        """Keep the lease, or take it when it is free or has run out; return whether it is held. Raises StreamError."""
        now = self._clock()
        found = await self._pointers.pointer(self._key)
        holder, revision = (_decode(found[0]), found[1]) if found is not None else (Holder(), 0)
        self.holder = holder.node
        if revision != self._seen:
            self._seen, self._since = revision, now
        if holder not in (self._me, Holder()) and now - self._since < self._seconds:
            self._until = float("-inf")
            return False
        if not await self._pointers.set_pointer(self._key, CODEC.encode(self._me), revision=revision):
            self._until = float("-inf")
            return False
        if holder != self._me:
            log.info(
                "this node %(duty)s now%(after)s",
                {"duty": self._duty, "after": f", after {holder.node}" if holder.node else ""},
            )
        self._until = now + self._seconds
        self.holder = self._me.node
        return True

    async def release(self) -> None:
        """Give the lease back, if it is held, so that another node need not wait for it. Raises StreamError."""
        if not self.held:
            return
        self._until = float("-inf")
        found = await self._pointers.pointer(self._key)
        if found is not None and _decode(found[0]) == self._me:
            await self._pointers.set_pointer(self._key, CODEC.encode(Holder()), revision=found[1])


def _decode(value: bytes) -> Holder:
    try:
        return CODEC.decode(value)
    except ForeignError:
        return UNKNOWN
