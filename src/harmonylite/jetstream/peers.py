"""Questions from one node to all, over core NATS: `harmonylite.replication.ports.Peers`.

Invariant: nothing is stored, for the subject ``<subject_prefix>.peers.<topic>`` is outside every stream's
``<subject_prefix>.<shard>.*``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from nats.aio.msg import Msg

from harmonylite.errors import HarmonyLiteError, StreamError
from harmonylite.jetstream.connection import Connection
from harmonylite.jetstream.link import NatsLink
from harmonylite.jetstream.names import token

log = logging.getLogger(__name__)

AT_ONCE = 16
"""Questions of one topic that are answered at the same time; more wait."""


class NatsPeers:
    """All nodes that share ``subject_prefix``."""

    def __init__(self, link: NatsLink, subject_prefix: str) -> None:
        self._link = link
        self._prefix = f"{subject_prefix}.peers"

    async def ask(
        self, topic: str, payload: bytes, *, seconds: float, expect: int = 0,
        enough: Callable[[list[bytes]], bool] | None = None,
    ) -> list[bytes]:  # fmt: skip
        """Ask everybody; see `Peers.ask`. Ends early when nobody listens, too. StreamError when not connected."""
        connection = self._link.now()
        answers: list[bytes] = []
        done = asyncio.Event()

        def take(message: Msg) -> None:
            if message.headers and message.headers.get("Status") == "503":
                done.set()
                return
            answers.append(message.data)
            if (expect and len(answers) >= expect) or (enough is not None and enough(answers)):
                done.set()

        inbox = connection.new_inbox()
        subscription = await connection.subscribe(inbox, take)
        connection.at_end(done.set)
        try:
            await connection.publish(f"{self._prefix}.{token(topic)}", payload, reply=inbox)
            async with asyncio.timeout(seconds):
                await done.wait()
        except TimeoutError:
            pass
        finally:
            connection.forget(done.set)
            await connection.unsubscribe(subscription)
        return answers

    async def serve(self, topic: str, answer: Callable[[bytes], Awaitable[bytes | None]]) -> None:
        """Answer questions on ``topic``, over reconnects too; returns when the link is closed. See `Peers.serve`.

        Raises ReconnectsSpentError when the link is given up. Cancelling ends the answers under way.
        """
        room = asyncio.Semaphore(AT_ONCE)
        running: set[asyncio.Task[None]] = set()

        def take(message: Msg) -> None:
            connection = self._link.now() if self._link.connected else None
            if connection is not None and message.reply:
                task = asyncio.create_task(_answer(connection, message, answer, room), name=f"answer on {topic}")
                running.add(task)
                task.add_done_callback(running.discard)

        try:
            await self._subscribed(topic, take)
        finally:
            for task in running:
                task.cancel()

    async def publish(self, topic: str, payload: bytes) -> None:
        """Send ``payload`` to whoever listens on ``topic``, without any answer; StreamError when not connected."""
        await self._link.now().publish(f"{self._prefix}.{token(topic)}", payload)

    async def listen(self, topic: str, take: Callable[[bytes], None]) -> None:
        """Call ``take`` with everything that is published on ``topic``, over reconnects too, until the link is closed.

        Raises ReconnectsSpentError when the link is given up.
        """
        await self._subscribed(topic, lambda message: take(message.data))

    async def _subscribed(self, topic: str, take: Callable[[Msg], None]) -> None:
        while not self._link.closed:
            try:
                connection = await self._link.connection()
                subscription = await connection.subscribe(f"{self._prefix}.{token(topic)}", take)
                try:
                    await connection.over.wait()
                finally:
                    await connection.unsubscribe(subscription)
            except StreamError:
                if self._link.given_up:
                    raise


async def _answer(
    connection: Connection, message: Msg, answer: Callable[[bytes], Awaitable[bytes | None]], room: asyncio.Semaphore
) -> None:
    try:
        async with room:
            found = await answer(message.data)
        if found is not None:
            await connection.publish(message.reply, found)
    except HarmonyLiteError as error:
        log.info("a question on %s can't be answered now: %s", message.subject, error)
    except Exception:
        log.exception("a question on %s can't be answered", message.subject)
