"""One connection to one NATS server, from connect to loss; nats-py hides behind it.

Invariant: once `over` is set nothing is sent, nothing is buffered, and every request that waited has failed.

nats-py could reconnect by itself. It is not let to: its client ends for good on some server errors, leaves requests
waiting over a loss, buffers what is published meanwhile and keeps old certificates. A new connection is a new object.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import re
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from harmonylite.errors import ConnectError, NotAcknowledgedError, StreamError, StreamFullError
from harmonylite.nats.client import SureClient
from harmonylite.nats.credentials import connect_options
from harmonylite.nats.names import host_port, redact
from harmonylite.nats.probes import refusal
from harmonylite.nats.settings import LinkSettings

log = logging.getLogger(__name__)

OLDEST_SERVER = (2, 10)
"""Older servers accept settings that they don't know and ignore them silently."""


LEAST_PAYLOAD = 16 * 1024
"""Bytes that one message must be able to carry: headers, the envelope of a piece, and something in it."""

_DENIED = re.compile(r"permissions violation for (?P<what>publish|subscription) to \"(?P<subject>[^\"]+)\"")


class AuthError(ConnectError):
    """The server refused the credentials; retrying won't help."""


class DeniedError(StreamError):
    """The server does not permit a subject to this user; nothing was stored."""


class Connection:
    """A live connection. Made by `connect`; ends by itself or by `aclose`, never comes back."""

    def __init__(self, url: str, settings: LinkSettings) -> None:
        self.address = host_port(url)
        self._cause = ""
        self._url = url
        self._settings = settings
        insist = settings.tls.wanted or urlsplit(url).scheme == "tls"
        self._client = SureClient(insist)
        self._inbox = self._client.new_inbox()
        self._count = itertools.count(1)
        self._waiting: dict[str, tuple[str, asyncio.Future[Msg]]] = {}
        self._denied: set[tuple[str, str]] = set()
        self._at_end: list[Callable[[], None]] = []
        self._end: asyncio.Task[None] | None = None

    @property
    def over(self) -> asyncio.Event:
        """Set when the connection is lost or closed."""
        return self._client.over

    @property
    def cause(self) -> str:
        """Why the connection ended, if known."""
        error = self._client.last_error
        return describe(error) if error is not None else self._cause or "closed by the server"

    @property
    def max_payload(self) -> int:
        """Bytes that the server takes in one message, headers included."""
        return self._client.max_payload

    @property
    def version(self) -> str:
        """The server's version."""
        return str(self._client._server_info.get("version", ""))

    @property
    def server_name(self) -> str:
        """The server's own name."""
        return str(self._client._server_info.get("server_name", ""))

    @property
    def domain(self) -> str:
        """The server's JetStream domain, "" when it has none."""
        return str(self._client._server_info.get("domain") or "")

    def surroundings(self) -> str:
        """Return which server this is, and which servers of its cluster it sees now."""
        cluster = self._client._server_info.get("cluster")
        if not cluster:
            return f"server {self.server_name} has no cluster"
        seen = ", ".join(sorted(self._client.announced)) or "itself"
        return f"server {self.server_name} of cluster {cluster} sees {seen}"

    @property
    def servers(self) -> int:
        """Addresses that the servers of the cluster announce to clients now, 1 where there is no cluster."""
        return max(1, len(self._client.announced)) if self._client._server_info.get("cluster") else 1

    def announced(self) -> list[str]:
        """Return ``host:port`` of the servers of the cluster that are there now, this one among them."""
        return list(self._client.announced)

    def discovered(self) -> list[str]:
        """Return ``host:port`` of servers that the cluster announced."""
        return [uri.netloc for uri in self._client.discovered_servers]

    async def open(self) -> None:
        """Connect; raises AuthError, ConnectError, ConfigError. Cancelling leaves nothing open."""
        options = connect_options(self._url, self._settings)
        # In a task of its own: nats-py swallows a cancellation that comes in the moment in which an attempt fails.
        attempt = asyncio.create_task(self._connect(options), name=f"connect to {self.address}")
        attempt.add_done_callback(lambda task: task.cancelled() or task.exception())
        opened = False
        try:
            done, _ = await asyncio.wait([attempt], timeout=self._settings.connect_seconds)
            if not done:
                raise TimeoutError(f"no answer within {self._settings.connect_seconds:g} s")
            attempt.result()
            self._check_version()
            self._check_payload()
            opened = True
        except (OSError, nats.errors.Error, TimeoutError, ValueError) as error:
            raise await self._explained(error) from None
        finally:
            attempt.cancel()
            if not opened and self._client._flush_queue is not None:
                await self._client._close(Client.CLOSED, False)
        self._end = asyncio.create_task(self._wait_end(), name=f"nats connection {self.address}")
        await self._open_inbox()

    async def _open_inbox(self) -> None:
        """Listen for answers. Raises AuthError when the server lets this user hear none, for every request would time
        out, and ConnectError when it hangs up right after its greeting, as one does that is being ended.
        """
        try:
            await self.subscribe(f"{self._inbox}.*", self._answered)
            # Twice: the client's first ping may overtake the subscription, which waits for its flusher; not the second.
            for _ in range(2):
                await self._client.flush(timeout=self._settings.connect_seconds)  # type: ignore[arg-type] # a float
        except (nats.errors.Error, OSError, StreamError) as error:
            await self.aclose()
            raise await self._explained(error) from None
        if any(what == "subscription" for what, _ in self._denied):
            await self.aclose()
            raise AuthError(
                f"NATS server at {self.address} does not let this user subscribe to _INBOX.>",
                advice="give it the rights listed in docs/nats.md",
            )

    async def _connect(self, options: dict[str, Any]) -> None:
        scheme = "tls" if urlsplit(self._url).scheme == "tls" else "nats"
        await self._client.connect(
            f"{scheme}://{self.address}",
            name=self._settings.name,
            error_cb=self._failed,
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            connect_timeout=self._settings.connect_seconds,  # type: ignore[arg-type] # seconds, may be a float
            ping_interval=self._settings.ping_seconds,  # type: ignore[arg-type] # the same
            pending_size=0,  # never buffer, never block: anyone who publishes keeps a window
            **options,
        )

    async def _explained(self, error: Exception) -> ConnectError:
        """Return our error for a failed attempt; a server that asked for a certificate is asked what it minds."""
        asked = self._client.asks_for_certificate
        why = await refusal(self._url, self._settings) if asked else ""
        if not why:
            return self._refused(error)
        return AuthError(
            f"NATS server at {self.address} refuses the TLS connection: {why}",
            advice="set tls_cert_file and tls_key_file in [nats] to a pair that the server's authority has signed",
        )

    def _refused(self, error: Exception) -> ConnectError:
        # nats-py raises NoServersError when a connection was refused; only the error callback receives the reason.
        cause = self._cause or describe(error)
        text = f"NATS server not accepting connections at {self.address}: {cause}"
        if any(word in cause.lower() for word in ("authorization", "authentication", "certificate")):
            return AuthError(text, advice="check user, password, seed, creds and TLS files")
        if isinstance(error, nats.errors.SecureConnWantedError):
            return AuthError(text, advice="TLS was asked for and the server does not offer it")
        return ConnectError(text)

    def _check_version(self) -> None:
        found = minor(self.version)
        if found and found < OLDEST_SERVER:
            raise AuthError(
                f"NATS server at {self.address} is version {self.version}",
                advice=f"HarmonyLite needs {'.'.join(map(str, OLDEST_SERVER))} or later",
            )

    def _check_payload(self) -> None:
        if self.max_payload < LEAST_PAYLOAD:
            raise ConnectError(
                f"max_payload of the NATS server at {self.address} is {self.max_payload} bytes",
                advice=f"HarmonyLite needs {LEAST_PAYLOAD} at least, 1 MB or more is better",
            )

    async def _failed(self, error: Exception) -> None:
        self._cause = describe(error)
        log.debug(
            "lost the connection to NATS at %(address)s: %(error)s", {"address": self.address, "error": self._cause}
        )
        denied = _DENIED.search(str(error))
        if denied is None:
            return
        # nats-py reports all errors in lower case, the subject included.
        what, subject = denied["what"], denied["subject"]
        if (what, subject) not in self._denied:
            self._denied.add((what, subject))
            log.warning(
                "denied: NATS at %(address)s does not let this node %(action)s on %(subject)s; see "
                "docs/nats.md for the rights that it needs",
                {"address": self.address, "action": what, "subject": subject},
            )
        for waited, future in self._waiting.values():
            if what == "publish" and waited.lower() == subject and not future.done():
                # The server drops what it does not allow; no answer would ever come.
                future.set_exception(
                    DeniedError(
                        f"NATS does not let this node publish on {waited}",
                        advice="give its user the rights listed in docs/nats.md",
                    )
                )

    async def _wait_end(self) -> None:
        await self.over.wait()
        for _, future in self._waiting.values():
            if not future.done():
                future.set_exception(
                    NotAcknowledgedError(f"connection to NATS at {self.address} was lost before the answer came")
                )
        for callback in self._at_end:
            callback()

    def at_end(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once the connection is over."""
        self._at_end.append(callback)

    def forget(self, callback: Callable[[], None]) -> None:
        """Take back `at_end`."""
        if callback in self._at_end:
            self._at_end.remove(callback)

    def _answered(self, message: Msg) -> None:
        _, future = self._waiting.pop(message.subject.rpartition(".")[2], ("", None))
        if future is not None and not future.done():
            future.set_result(message)

    def _check(self, payload: bytes, headers: Mapping[str, str] | None) -> None:
        if self.over.is_set():
            raise StreamError(f"not connected to NATS (last server {self.address}); nothing was sent")
        size = len(payload) + (12 + sum(len(k) + len(v.encode()) + 4 for k, v in headers.items()) if headers else 0)
        # The server counts headers too, and closes the connection when it is too much; so it is never sent.
        if size > self.max_payload:
            raise StreamFullError(
                f"a message of {size} bytes is above max_payload {self.max_payload} of NATS at {self.address}",
                advice="raise max_payload of the NATS servers",
            )

    async def publish(
        self, subject: str, payload: bytes, *, reply: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        """Hand a message to the connection, without any acknowledgement; raises StreamError, StreamFullError."""
        self._check(payload, headers)
        try:
            await self._client.publish(subject, payload, reply, dict(headers) if headers else None)
        except (nats.errors.Error, OSError) as error:
            raise StreamError(f"publish on {subject}: {describe(error)}; nothing was sent") from None

    async def request(
        self,
        subject: str,
        payload: bytes = b"",
        *,
        seconds: float,
        headers: Mapping[str, str] | None = None,
        again: Sequence[float] = (),
    ) -> Msg:
        """Send a request and return the answer.

        ``again``: pauses in seconds, after each of which it is sent once more while no answer has come; the first
        answer counts, whichever it is for. So an election loses no time, and a slow line no answer.

        Raises NotAcknowledgedError when none came within ``seconds`` or the connection was lost meanwhile (the
        request may have been served), StreamError when it was not sent or no client listens on ``subject``.
        """
        key = str(next(self._count))
        future: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()
        self._check(payload, headers)
        self._waiting[key] = (subject, future)
        try:
            async with asyncio.timeout(seconds):
                for pause in (*again, None):
                    await self.publish(subject, payload, reply=f"{self._inbox}.{key}", headers=headers)
                    await asyncio.wait({future}, timeout=pause)
                    if future.done():
                        break
                message = future.result()
        except TimeoutError:
            sent = f", asked {len(again) + 1} times" if again else ""
            raise NotAcknowledgedError(f"no answer on {subject} within {seconds:g} s{sent}") from None
        finally:
            self._waiting.pop(key, None)
        if message.headers and message.headers.get("Status") == "503" and not message.data:
            raise StreamError(f"no answer on {subject}: no leader, or JetStream is not enabled there")
        return message

    async def subscribe(self, subject: str, take: Callable[[Msg], None]) -> Subscription:
        """Call ``take`` with every message on ``subject``, in order, until unsubscribed or over; nothing is dropped."""

        async def call(message: Msg) -> None:
            take(message)

        if self.over.is_set():
            raise StreamError(f"not connected to NATS (last server {self.address})")
        try:
            return await self._client.subscribe(subject, cb=call, pending_msgs_limit=0, pending_bytes_limit=0)
        except (nats.errors.Error, OSError) as error:
            raise StreamError(f"subscribe to {subject}: {describe(error)}") from None

    async def unsubscribe(self, subscription: Subscription) -> None:
        """End a subscription; harmless when the connection is over."""
        if not self.over.is_set():
            try:
                await subscription.unsubscribe()
            except (nats.errors.Error, OSError) as error:
                log.debug("failed to unsubscribe: %(error)s", {"error": describe(error)})

    def new_inbox(self) -> str:
        """Return a subject that no other client listens on."""
        return self._client.new_inbox()

    async def drop(self) -> None:
        """End the connection at once, as a loss; for servers that stopped answering."""
        await self._client._close(Client.CLOSED, False)

    async def aclose(self) -> None:
        """Send what was published (for at most a second), then close."""
        if not self.over.is_set():
            try:
                await self._client.flush(timeout=1)
            except (nats.errors.Error, OSError) as error:
                log.debug("failed to flush before closing: %(error)s", {"error": describe(error)})
            await self._client.close()
        if self._end is not None:
            await self._end


def minor(version: str) -> tuple[int, ...]:
    """Return the first two numbers of a server's version, () where it has none."""
    try:
        return tuple(int(piece) for piece in version.split(".")[:2])
    except ValueError:
        return ()


def describe(error: BaseException) -> str:
    """Return a library's error as text without its name in front and without credentials."""
    text = str(error) or type(error).__name__
    if isinstance(error, ssl.SSLCertVerificationError):
        text = f"certificate verify failed: {error.verify_message}"
    elif isinstance(error, ConnectionRefusedError) or "Connect call failed" in text:
        text = "connection refused"
    elif isinstance(error, OSError) and error.errno and not isinstance(error, (ssl.SSLError, socket.gaierror)):
        text = os.strerror(error.errno).lower()
    return redact(text.removeprefix("nats: ").strip("'\""))
