"""Questions from one node to all, over core NATS: `harmonylite.ports.Peers`.

Invariant: nothing is stored, for the subject ``<subject_prefix>.peers.<topic>`` is outside every stream's
``<subject_prefix>.<shard>.*``. Whatever is sent there costs a bounded number of tasks, and ends none but its own.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from nats.aio.msg import Msg

from harmonylite.backoff import Backoff, Retry
from harmonylite.errors import ForeignError, HarmonyLiteError, StreamError
from harmonylite.foreign import Text
from harmonylite.nats.connection import Connection
from harmonylite.nats.link import NatsLink
from harmonylite.ports import Answered, unread
from harmonylite.status import Counters
from harmonylite.wire import token

log = logging.getLogger(__name__)

T = TypeVar("T")

AT_ONCE = 16
"""Questions of one topic that are answered concurrently; more wait."""
WAITING = 64
"""Questions of one topic that wait for their turn; more are dropped, and counted."""
PATIENCE = 10.0
"""Seconds that a question waits for its turn; then it is dropped, because its sender has stopped waiting."""
MOST_ANSWERS = 1024
"""Answers to one question that are read."""
NODE = "Harmonylite-Node"
"""Header of an answer: who gave it, also where the answer itself can't be read."""

ANSWERER = Text("the name of a node", r"[A-Za-z0-9_-]{1,64}")


class NatsPeers:
    """All nodes that share ``subject_prefix``. ``node``: who asks and answers here, "" = unnamed."""

    def __init__(self, link: NatsLink, subject_prefix: str, node: str = "", counters: Counters | None = None) -> None:
        self._link = link
        self._prefix = f"{subject_prefix}.peers"
        self._headers = {NODE: node} if node else None
        self._counters = counters or Counters()
        self._logged: set[str] = set()

    async def ask(
        self,
        topic: str,
        payload: bytes,
        read: Callable[[bytes], T],
        *,
        seconds: float,
        expect: int = 0,
        enough: Callable[[list[T]], bool] | None = None,
    ) -> Answered[T]:
        """Ask all nodes; see `Peers.ask`. Ends early when no node listens, too. StreamError when not connected."""
        connection = self._link.now()
        answered: Answered[T] = Answered([], [])
        done = asyncio.Event()

        def take(message: Msg) -> None:
            if message.headers and message.headers.get("Status") == "503":
                done.set()
                return
            if len(answered.answers) + len(answered.unread) >= MOST_ANSWERS:
                done.set()
                return
            try:
                answered.answers.append(read(message.data))
            except ForeignError as error:
                self._counters.unread_answers += 1
                node = _answerer(message)
                self._log_once(f"{topic} {node}", f"{unread([node])} when asked on {topic}: {error}")
                if node not in answered.unread:
                    answered.unread.append(node)
                return
            if (expect and len(answered.answers) >= expect) or (enough is not None and enough(answered.answers)):
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
        return answered

    async def serve(
        self, topic: str, read: Callable[[bytes], T], answer: Callable[[T], Awaitable[bytes | None]]
    ) -> None:
        """Answer questions on ``topic``, over reconnects too; returns when the link is closed. See `Peers.serve`.

        Raises ReconnectsSpentError when the link is given up. Cancelling ends the answers under way.
        """
        room = asyncio.Semaphore(AT_ONCE)
        running: set[asyncio.Task[None]] = set()

        def take(message: Msg) -> None:
            connection = self._link.now() if self._link.connected else None
            if connection is None or not message.reply:
                return
            if len(running) >= AT_ONCE + WAITING:
                self._counters.dropped_questions += 1
                return
            try:
                question = read(message.data)
            except ForeignError as error:
                self._counters.unread_questions += 1
                self._log_once(topic, f"a question on {topic} gets no answer: {error}")
                return
            work = self._answer(connection, message, partial(answer, question), room)
            task = asyncio.create_task(work, name=f"answer on {topic}")
            running.add(task)
            task.add_done_callback(running.discard)

        try:
            await self._subscribed(topic, take)
        finally:
            for task in running:
                task.cancel()

    async def publish(self, topic: str, payload: bytes) -> None:
        """Send ``payload`` to every listener on ``topic``, without any answer; StreamError when not connected."""
        await self._link.now().publish(f"{self._prefix}.{token(topic)}", payload)

    async def listen(
        self, topic: str, take: Callable[[bytes], None], *, subscribed: Callable[[], None] = lambda: None
    ) -> None:
        """Call ``take`` with everything that is published on ``topic``, over reconnects too, until the link is closed.

        ``subscribed``: called after each time that this node subscribed: what was published before that, it missed.
        Raises ReconnectsSpentError when the link is given up.
        """
        await self._subscribed(topic, lambda message: take(message.data), subscribed)

    async def _subscribed(
        self, topic: str, take: Callable[[Msg], None], subscribed: Callable[[], None] = lambda: None
    ) -> None:
        retry = Retry(log, f"subscribing to {topic}", Backoff(first=0.02, most=5.0), logging.DEBUG)
        while not self._link.closed:
            try:
                connection = await self._link.connection()
                subscription = await connection.subscribe(f"{self._prefix}.{token(topic)}", take)
                subscribed()
                try:
                    await connection.over.wait()
                finally:
                    await connection.unsubscribe(subscription)
            except StreamError as error:
                if self._link.given_up:
                    raise
                await asyncio.sleep(retry.failed(error, time.monotonic()))

    async def _answer(
        self,
        connection: Connection,
        message: Msg,
        answer: Callable[[], Awaitable[bytes | None]],
        room: asyncio.Semaphore,
    ) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                await room.acquire()
        except TimeoutError:
            self._counters.dropped_questions += 1
            return
        try:
            found = await answer()
            if found is not None:
                await connection.publish(message.reply, found, headers=self._headers)
        except HarmonyLiteError as error:
            log.info(
                "can't answer a question on %(subject)s now: %(error)s", {"subject": message.subject, "error": error}
            )
        except Exception:
            log.exception("can't answer a question on %(subject)s", {"subject": message.subject})
        finally:
            room.release()

    def _log_once(self, about: str, what: str) -> None:
        """Log a sentence ``about`` something, once: who sends such a message sends more of them."""
        if about not in self._logged and len(self._logged) < MOST_ANSWERS:
            self._logged.add(about)
            log.warning("%s", what)


def _answerer(message: Msg) -> str:
    """Return the node that an answer says it is from, "" when it does not."""
    try:
        return ANSWERER.decode(str((message.headers or {}).get(NODE, "")).encode(errors="replace"))
    except ForeignError:
        return ""
