"""Whether a server accepts connections at an address.

Invariant: the probe sends nothing and leaves no connection open.
"""

from __future__ import annotations

import asyncio

ACCEPT_SECONDS = 1.0
"""How long a server may take to take a connection; behind some firewalls no answer ever comes."""


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
