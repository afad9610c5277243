"""One pull consumer and its requests, on one connection.

Invariant: while it is open, the server holds a request for messages (unless the caller of `take` is behind), so it
sends a message as soon as it is stored; when the server goes silent, `take` raises.

Reference: https://docs.nats.io/nats-concepts/jetstream/consumers, ADR-13 (pull requests), ADR-37 (how much to request).
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from harmonylite.errors import HarmonyLiteError, StreamError
from harmonylite.jetstream.stream import Stream
from harmonylite.model import StreamMessage
from harmonylite.nats.connection import Connection

log = logging.getLogger(__name__)

BATCH = 256
"""Messages per request. The server holds two requests."""

ROOM = 8 * 1024 * 1024
"""Bytes per request, or ``max_payload`` if that is more. Two requests bound the memory."""

EXPIRES = 30.0
"""Seconds that a request waits at the server."""

HEARTBEAT = 2.0
"""Seconds between heartbeats while no message is stored."""

SILENCE = 2.5 * HEARTBEAT
"""Seconds without a heartbeat or message that count as silence."""

UNUSED = 60.0
"""Seconds after which the server forgets a consumer that no client reads."""


_NUMBER = re.compile(r"[0-9]{1,19}")


class PullEndedError(StreamError):
    """The consumer was deleted or is silent; create a new one."""


class PullConsumer:
    """A consumer of ``stream`` from sequence ``start`` on. ``subject``: only messages on it ("" = all).

    ``quiet``: awaited now and then while the consumer sends heartbeats and no messages; its error ends `take`.
    """

    def __init__(
        self,
        connection: Connection,
        stream: Stream,
        start: int,
        subject: str = "",
        *,
        quiet: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._connection = connection
        self._stream = stream
        self._api = stream.api
        self._start = start
        self._subject = subject
        self._quiet = quiet
        self._inbox = connection.new_inbox()
        self._consumer = f"hl{self._inbox.rpartition('.')[2]}"
        self._subscription: Subscription | None = None
        self._received = asyncio.Event()
        self._idle = False
        self._messages: list[StreamMessage] = []
        self._on_order = 0
        self._requests = 0
        self._ended = ""
        self._room = max(ROOM, connection.max_payload + 64 * 1024)
        self.pending = 0
        """How many messages the server had for it when it was created."""

    async def open(self) -> None:
        """Create the consumer and send the first requests; raises StreamError."""
        config: dict[str, Any] = {
            "name": self._consumer,
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": self._start,
            "ack_policy": "none",
            "replay_policy": "instant",
            "inactive_threshold": int(UNUSED * 1e9),
            "num_replicas": 1,
            "mem_storage": True,
        }
        if self._subject:
            config["filter_subject"] = self._subject
        self._connection.at_end(self._received.set)
        self._subscription = await self._connection.subscribe(f"{self._inbox}.*", self._got)
        verb = f"CONSUMER.CREATE.{self._stream.name}.{self._consumer}"
        made = await self._api.call(verb, {"stream_name": self._stream.name, "config": config, "action": "create"})
        self.pending = int(made.get("num_pending", 0))
        await self._order()

    async def aclose(self) -> None:
        """Delete the consumer; never raises for a server that does not answer."""
        self._connection.forget(self._received.set)
        if self._subscription is not None:
            await self._connection.unsubscribe(self._subscription)
        if self._connection.over.is_set():
            return
        try:
            # Not awaited: the server forgets an abandoned consumer after `UNUSED`.
            subject = f"{self._api.prefix}.CONSUMER.DELETE.{self._stream.name}.{self._consumer}"
            await self._connection.publish(subject, b"")
        except HarmonyLiteError as error:
            log.debug("failed to delete consumer %(consumer)s: %(error)s", {"consumer": self._consumer, "error": error})

    async def take(self) -> list[StreamMessage]:
        """Return all messages that have arrived, at least one; raises PullEndedError when no more will."""
        while not self._messages:
            self._received.clear()
            if self._connection.over.is_set():
                raise PullEndedError("the connection was lost")
            if self._ended:
                raise PullEndedError(self._ended)
            await self._order()
            await self._wait()
        taken, self._messages = self._messages, []
        await self._order()
        return taken

    async def _wait(self) -> None:
        """Wait for a message, a heartbeat or the end of the connection; silence ends the pull."""
        try:
            async with asyncio.timeout(SILENCE):
                await self._received.wait()
        except TimeoutError:
            raise PullEndedError(f"its consumer sent no heartbeat for {SILENCE:.1f} s") from None
        if self._idle and self._quiet is not None:
            self._idle = False
            await self._quiet()

    async def _order(self) -> None:
        while self._on_order <= BATCH and not self._ended:
            self._requests += 1
            self._on_order += BATCH
            body = {
                "batch": BATCH,
                "max_bytes": self._room,
                "expires": int(EXPIRES * 1e9),
                "idle_heartbeat": int(HEARTBEAT * 1e9),
            }
            await self._connection.publish(
                f"{self._api.prefix}.CONSUMER.MSG.NEXT.{self._stream.name}.{self._consumer}",
                json.dumps(body).encode(),
                reply=f"{self._inbox}.{self._requests}",
            )

    def _got(self, message: Msg) -> None:
        reply = message.reply.split(".")
        if len(reply) < 9 or reply[:2] != ["$JS", "ACK"]:
            self._status(message.headers or {})
            return
        # $JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>, or with a domain and
        # an account hash before the stream and a token behind: ADR-15.
        stored, sent = (reply[7], reply[9]) if len(reply) > 9 else (reply[5], reply[7])
        if not (_NUMBER.fullmatch(stored) and _NUMBER.fullmatch(sent)):
            return  # from another client, sent to our inbox
        self._idle = False
        self._messages.append(
            StreamMessage(self._stream.shard, int(stored), message.subject, message.data, int(sent) / 1e9)
        )
        self._on_order -= 1
        self._received.set()

    def _status(self, headers: dict[str, Any]) -> None:
        code, text = headers.get("Status", ""), headers.get("Description", "")
        if code == "100":
            self._idle = True
            self._received.set()
            return
        pending = headers.get("Nats-Pending-Messages")
        if pending is None or _NUMBER.fullmatch(str(pending)) is None:
            why = text.partition("\n")[0].strip() or "no responders"
            self._ended = f"its consumer ended: {why} ({code})"
            self._received.set()
            return
        self._on_order -= int(pending)
        if int(pending) == BATCH and text.startswith("Message Size"):
            self._room *= 2  # the next message alone exceeds it: max_payload was lowered since it was stored
        self._received.set()
