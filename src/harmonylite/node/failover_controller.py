"""When a cut-off region starts a failover, and when it closes it.

Invariant: a failover is made only where the region's own JetStream has a majority, no sibling that answers can reach
the primary region, and at least two of them can continue with it. Any node that reaches the primary region in several
checks in a row closes it.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Annotated

import msgspec
from msgspec import Meta

from harmonylite.changes.failover import beginning
from harmonylite.errors import StreamError
from harmonylite.foreign import Codec, Line, Name, Seq, Shard
from harmonylite.jetstream.regions.failover_streams import FailoverStreams
from harmonylite.jetstream.regions.mirror_streams import RegionWatch
from harmonylite.model import Position
from harmonylite.ports import Peers

log = logging.getLogger(__name__)

TOPIC = "siblings"
ASK = 1.0
"""Seconds that the other nodes of the region have to answer with their lineage."""
STEADY = 3
"""Checks in a row that the primary region must answer before a failover is closed.

A link that flaps is not back.
"""
LEAST = 2
"""Nodes that must be able to continue with a failover: alone, there is no node to converge with."""


class Sibling(msgspec.Struct, frozen=True):
    """A node's lineage in a region. ``shards``: by shard the order's identity, the position, and the message to
    continue from; empty while it is in no order. ``reaches``: the primary region answers it.
    """

    node: Name
    region: Line
    reaches: bool
    shards: Annotated[dict[Shard, tuple[Line, Seq, Seq]], Meta(max_length=1024)]

    @property
    def positions(self) -> dict[int, Position]:
        """The same as positions."""
        return {shard: Position(shard, seq, resume, order) for shard, (order, seq, resume) in self.shards.items()}


CODEC = Codec("a sibling's lineage", Sibling)


async def siblings(peers: Peers, region: str) -> dict[str, Sibling]:
    """Return the answers of the nodes of ``region``, by name; raises StreamError."""
    answered = await peers.ask(TOPIC, b"", CODEC.decode, seconds=ASK)
    return {sibling.node: sibling for sibling in answered.answers if sibling.region == region}


class FailoverController:
    """Makes and closes the failovers of one region. ``after``: seconds that the primary region must be out of reach
    before one is made, 0 = never. ``turn``: called when a node may have to turn; ``own``: this node's own.
    """

    def __init__(
        self,
        streams: FailoverStreams,
        region: str,
        peers: Peers,
        *,
        after: float,
        turn: Callable[[], None],
        own: Callable[[], Awaitable[Sibling | None]],
    ) -> None:
        self._streams = streams
        self._region = region
        self._peers = peers
        self._after = after
        self._turn = turn
        self._own = own
        self._checked = False
        self._logged = ""

    async def serve(self) -> None:
        """Answer siblings at which position this node is, without end."""

        async def answer(_: bytes) -> bytes | None:
            own = await self._own()
            return CODEC.encode(own) if own is not None else None

        await self._peers.serve(TOPIC, bytes, answer)

    async def check(self, watch: RegionWatch) -> None:
        """Start or close a failover if necessary, after each check of the primary region; raises StreamError."""
        away = watch.unreachable_for
        if not away and self._checked and not self._streams.seen:
            return
        known = await self._streams.all()
        self._checked = True
        for failover in known:
            if failover.open and watch.steady >= (1 if not self._streams.needed else STEADY):
                log.warning("primary region is back: closed failover %(failover)s", {"failover": failover.mark})
                await self._streams.close(failover)
            elif failover.open and not failover.whole:
                await self._streams.complete(failover)
            elif not failover.open:
                await self._streams.close(failover)
        if away and self._after and away >= self._after and not any(failover.open for failover in known):
            try:
                self._say(await self._begin())
            except StreamError as error:
                self._say(f"that failed: {error.message}")
        if self._streams.seen:
            self._turn()

    def _say(self, why_not: str) -> None:
        """Log once why no failover starts, not at every check."""
        if why_not and why_not != self._logged:
            log.info("no failover: %(reason)s", {"reason": why_not})
        self._logged = why_not

    async def _begin(self) -> str:
        """Make a failover; return why none was made, "" when one is there."""
        found = await siblings(self._peers, self._region)
        reaching = sorted(node for node, sibling in found.items() if sibling.reaches)
        if reaching:
            return f"node {', '.join(reaching)} still reaches home"
        copied = await self._streams.copied()
        starts, able = beginning(copied, {node: sibling.positions for node, sibling in found.items()})
        if len(able) < LEAST:
            return f"it takes {LEAST} nodes that can continue with it; of {len(found)} that answer {len(able)} can"
        if await self._streams.make(starts):
            log.warning(
                "starting failover: primary region unreachable, nodes %(nodes)s take part",
                {"nodes": ", ".join(sorted(able))},
            )
        with suppress(StreamError):
            await self._streams.all()
        return ""
