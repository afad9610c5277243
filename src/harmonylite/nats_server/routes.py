"""Addresses of other servers as the command line names them, looked up where they are ``dns://``.

Invariant: an address is looked up again at each start, so that servers that moved are found.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterable, Sequence

from harmonylite.nats.names import split_address
from harmonylite.nats.probes import accepts

log = logging.getLogger(__name__)


async def expand(addresses: Iterable[str], default_port: int) -> list[str]:
    """Return ``host:port`` of each address; ``dns://host:port/`` becomes all its A and AAAA records.

    Credentials in an address stay. A name that can't be looked up now is left out with a warning: its server may come
    up later than we do.
    """
    found: dict[str, None] = {}
    for address in addresses:
        host, port = split_address(address, default_port)
        userinfo = address.rpartition("@")[0].rpartition("://")[2]
        before = f"{userinfo}@" if userinfo else ""
        hosts = await _lookup(host) if address.startswith("dns://") else [host]
        found.update((f"{before}{f'[{one}]' if ':' in one else one}:{port}", None) for one in hosts)
    return list(found)


async def _lookup(host: str) -> list[str]:
    try:
        answers = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        log.warning("can't look up %(host)s now: %(error)s", {"host": host, "error": error})
        return []
    return sorted({str(answer[4][0]) for answer in answers})


async def whereabouts(here: Sequence[str], peers: Iterable[str]) -> str:
    """Return a sentence on which servers of a cluster are ``here``, by name, and which addresses take no connection."""
    if not here:
        return ""
    places = [split_address(route, 4248) for route in await expand(peers, 4248)]
    there = await asyncio.gather(*(accepts(host, port) for host, port in places))
    absent = [f"{host}:{port}" for (host, port), found in zip(places, there, strict=True) if not found]
    return f"here: {', '.join(here)}" + (f"; not reached: {', '.join(absent)}" if absent else "")
