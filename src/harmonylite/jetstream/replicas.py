"""How many servers keep a stream if the configuration names no number: all that there are, at most three.

Invariant: the number is never lowered, and never raised above the number of servers that are connected now, because a
replica on a missing server could cost the stream its quorum. JetStream decides how many servers there are.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Mapping, Sequence
from typing import Any

from harmonylite.backoff import Backoff, Retry
from harmonylite.errors import StreamError, StreamLostError
from harmonylite.jetstream.api import ApiError, JetStream
from harmonylite.jetstream.backup import HELD
from harmonylite.jetstream.stream import Stream
from harmonylite.ticks import tick

log = logging.getLogger(__name__)

MOST = 3
"""Replicas that survive the loss of one server; with more, each publish needs more acknowledgements."""

POLL_EVERY = 5.0
"""Seconds between polls of how many servers there are."""

SPREAD = 2.0
"""Seconds over which the nodes that see a new server at once spread."""

CHECK_EVERY = 600.0
"""Seconds between checks of the streams while the number of servers stays the same."""

SECONDS = 10.0
"""Deadline of one request that creates or changes a stream."""

TOO_FEW = frozenset({10005, 10074})
"""JetStream's errors for more replicas than there are servers: no suitable peers, and a server without a cluster."""


async def create(api: JetStream, config: Mapping[str, Any]) -> int:
    """Create a stream and return its number of replicas: as many as there are servers if ``config`` names none.

    Raises StreamError, ApiError.
    """
    asked = [int(config["num_replicas"])] if "num_replicas" in config else counts(api, 0)
    for count in asked:
        try:
            await api.call(f"STREAM.CREATE.{config['name']}", {**config, "num_replicas": count}, seconds=SECONDS)
        except ApiError as error:
            if error.code not in TOO_FEW:
                raise
            if count == asked[-1]:
                raise ApiError(
                    f"stream {config['name']} can't have {count} replicas: there are fewer servers", code=error.code
                ) from None
        else:
            return count
    raise AssertionError("the last try returns or raises")


def counts(api: JetStream, above: int) -> list[int]:
    """Return the numbers of replicas to try, the best first, all above ``above``."""
    return list(range(min(MOST, api.link.servers), above, -1))


class ReplicaGrowth:
    """Raises the replicas of the streams ``names`` as servers join, if they exist and accept messages."""

    def __init__(self, api: JetStream, names: Sequence[str]) -> None:
        self._api = api
        self._names = names
        self._retry = Retry(log, "checking replicas", Backoff(POLL_EVERY, CHECK_EVERY, calm=3 * CHECK_EVERY))

    async def run(self) -> None:
        """Check without end: when there are more servers than before, and at long intervals."""
        before, due = 1, 0.0
        while True:
            await tick(POLL_EVERY)
            now, servers = time.monotonic(), min(MOST, self._api.link.servers)
            if servers == 1 or (servers <= before and now < due):
                continue
            await asyncio.sleep(random.uniform(0.0, SPREAD))
            try:
                more = await self.check() < servers
            except StreamError as error:
                pause = self._retry.failed(error, now)
            else:
                pause = self._retry.backoff.failed(now) if more else CHECK_EVERY
            before, due = servers, now + pause

    async def check(self) -> int:
        """Add the replicas that are possible now; return the lowest number of any stream. Raises StreamError."""
        return min([await self._raise(name) for name in self._names])

    async def _raise(self, name: str) -> int:
        try:
            details = await Stream(self._api, name, 0).details()
        except StreamLostError:
            return MOST  # when it is created it gets as many as there are then
        config, have = details.config, int(details.config.get("num_replicas") or 1)
        if HELD in (config.get("metadata") or {}) or details.role.shut or details.role.left_for:
            return have
        for count in counts(self._api, have):
            try:
                await self._api.call(f"STREAM.UPDATE.{name}", {**config, "num_replicas": count}, seconds=SECONDS)
            except ApiError as error:
                if error.code not in TOO_FEW:
                    raise
            else:
                log.info(
                    "raised stream %(stream)s to %(replicas)d replicas (%(before)d before)",
                    {"stream": name, "replicas": count, "before": have},
                )
                return count
        return have
