"""nats-py's client, made to end at once, to insist on TLS, and to read on whatever a message's headers and subject are.

Invariant: `over` is set as soon as nothing comes in any more, whatever the reason.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

log = logging.getLogger(__name__)


class SureClient(Client):
    """nats-py's client, which reports its end at once, and insists on TLS if TLS was configured."""

    def __init__(self, insist_on_tls: bool) -> None:
        super().__init__()
        self.over = asyncio.Event()
        self.announced: list[str] = []
        self.asks_for_certificate = False
        self._insist_on_tls = insist_on_tls

    async def _close(self, status: int, do_cbs: bool = True) -> None:
        self.over.set()
        # What no peer takes any more must not be waited for: a frozen peer would keep nats-py here without end.
        self._pending, self._pending_data_size = [], 0
        for name in ("_io_writer", "_bare_io_writer"):
            writer = getattr(self._transport, name, None)
            if writer is not None:
                writer.transport.abort()
        # Nor is its end waited for: after a failed TLS handshake asyncio never reports it.
        self._transport = None
        await super()._close(status, do_cbs)

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        # Called before CONNECT is sent: credentials must not go out in the clear because someone on the network
        # stripped TLS.
        if initial_connection and self._insist_on_tls and not info.get("tls_required"):
            raise nats.errors.SecureConnWantedError
        self.asks_for_certificate = bool(info.get("tls_verify"))
        self.announced = info.get("connect_urls") or []
        await super()._process_info(info, initial_connection)

    async def _process_headers(self, headers: Any) -> dict[str, str] | None:
        # The publisher of a message chooses its headers. nats-py ends its reading over those that it can't parse.
        try:
            return await super()._process_headers(headers)
        except (ValueError, IndexError) as error:
            log.debug("can't read the headers of a message: %(error)s", {"error": error})
            return None

    def _build_message(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: Any) -> Msg:
        # A peer that sends is alive: where the line is slow, its answer to a ping waits behind what it sent before.
        self._pings_outstanding = 0
        # The same for subjects, which NATS takes for bytes: one that is not UTF-8 has no owner.
        subject, reply = (text.decode(errors="replace").encode() for text in (subject, reply))
        message: Msg = super()._build_message(sid, subject, reply, data, headers)
        return message

    async def _read_loop(self) -> None:
        await super()._read_loop()
        # It also ends, with a line of its own log, over whatever it can't parse; the node would not notice for minutes.
        if not self.is_closed:
            await self._process_op_err(nats.errors.ProtocolError("what the server sent can't be read"))

    async def _process_pong(self) -> None:
        # No caller waits for this one any more. nats-py would set its result all the same, and end its reading over
        # that.
        if self._pongs and self._pongs[0].done():
            self._pongs[0] = asyncio.get_running_loop().create_future()
        await super()._process_pong()
