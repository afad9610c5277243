"""Probes of a server: whether it accepts connections, and why it refuses a TLS handshake.

Invariant: a probe reads nothing but the server's greeting, sends no credentials, and leaves no connection open.
"""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from urllib.parse import urlsplit

from harmonylite.nats.credentials import client_context
from harmonylite.nats.names import split_address
from harmonylite.nats.settings import LinkSettings

ACCEPT_SECONDS = 1.0
"""How long a server may take to accept a connection; behind some firewalls no answer ever comes."""
REFUSE_SECONDS = 2.0
"""How long the server has to send its alert."""

ALERTS = {
    "CERTIFICATE_REQUIRED": "it asks for a client certificate, and none was sent",
    "UNKNOWN_CA": "it does not trust the authority that signed this node's certificate",
    "BAD_CERTIFICATE": "it does not accept this node's certificate",
    "UNSUPPORTED_CERTIFICATE": "it does not accept this node's kind of certificate",
    "CERTIFICATE_EXPIRED": "this node's certificate has expired",
    "CERTIFICATE_REVOKED": "this node's certificate was revoked",
    "CERTIFICATE_UNKNOWN": "it does not accept this node's certificate",
    "ACCESS_DENIED": "it does not let the owner of this node's certificate in",
}
"""What the alerts of TLS about a client's certificate mean (RFC 8446, section 6.2), by the end of OpenSSL's name."""


async def accepts(host: str, port: int) -> bool:
    """Return whether a server accepts connections there within `ACCEPT_SECONDS`."""
    try:
        async with asyncio.timeout(ACCEPT_SECONDS):
            where = "127.0.0.1" if host in ("0.0.0.0", "") else host  # noqa: S104
            _, writer = await asyncio.open_connection(where, port)
            writer.close()
            await writer.wait_closed()
    except OSError:  # TimeoutError is one
        return False
    return True


async def refusal(url: str, settings: LinkSettings) -> str:
    """Return why the server at ``url`` refuses this node's certificate, "" if it doesn't, or doesn't say so.

    With TLS 1.3 a client is done before the server has checked its certificate. The refusal comes as an alert that only
    a read shows; a client that writes first meets a closed connection ("broken pipe").
    """
    with suppress(OSError, TimeoutError, asyncio.IncompleteReadError, ValueError):
        async with asyncio.timeout(REFUSE_SECONDS):
            return await _alert(url, settings)
    return ""


async def _alert(url: str, settings: LinkSettings) -> str:
    host, port = split_address(url, 4222)
    reader, writer = await asyncio.open_connection(host, port)
    try:
        if b'"tls_required":true' not in await reader.readline() and urlsplit(url).scheme != "tls":
            return ""
        await writer.start_tls(client_context(settings.tls), server_hostname=host)
        await reader.read(1)
    except ssl.SSLError as error:
        name = (error.reason or "").partition("ALERT_")[2]
        return ALERTS.get(name, "")
    finally:
        writer.close()
    return ""
