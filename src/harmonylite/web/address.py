"""Where a server listens: `host:port` text into a bound socket.

Invariant: every failure names the configuration key that the text came from, and no name is looked up on the loop.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from dataclasses import dataclass

from harmonylite.errors import ConfigError, HarmonyLiteError

BACKLOG = 128
"""Connections that the kernel keeps waiting for accept."""


LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""Names under which this machine reaches itself."""


@dataclass(frozen=True, slots=True)
class Address:
    """``host``: name or address without brackets, "" for every interface. ``port``: 0 lets the system choose."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str, *, key: str) -> Address:
    """Read ``host:port``, ``[ipv6]:port`` or ``:port`` (every interface).

    :raises ConfigError: the text has another form; the message names ``key``.
    """
    host, colon, port = text.strip().rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ConfigError(f"{key} = {text!r} is ambiguous", advice='write an IPv6 address as "[::1]:8090"')
    number = int(port) if port.isascii() and port.isdecimal() else -1
    if not colon or not 0 <= number <= 65535:
        raise ConfigError(
            f"{key} = {text!r} is not host:port with a port of 0 to 65535", advice='write for example "127.0.0.1:8090"'
        )
    return Address(host, number)


def is_loopback(host: str) -> bool:
    """Return whether ``host``, a numeric address, reaches this machine only."""
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def bind_address(address: Address, *, key: str) -> socket.socket:
    """Return a listening, non-blocking socket. Blocks while a name is looked up: call it in a thread.

    A name is bound at one of its addresses, IPv4 first, so that port 0 means one port.

    :raises ConfigError: no such name, an address of another machine, or a port that needs more rights.
    :raises HarmonyLiteError: another process listens there.
    """
    try:
        sock = _listen(address)
    except OSError as error:
        raise _explained(error, address, key) from error
    sock.setblocking(False)
    return sock


def _listen(address: Address) -> socket.socket:
    if not address.host:
        both = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both else socket.AF_INET
        return socket.create_server(("", address.port), family=family, dualstack_ipv6=both, backlog=BACKLOG)
    # A text would be put through the codec for names of any language first, tables and all: 1 MB of memory.
    host = address.host.encode() if address.host.isascii() else address.host
    found = socket.getaddrinfo(host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, where = sorted(found, key=lambda entry: entry[0] != socket.AF_INET)[0]
    return socket.create_server((str(where[0]), address.port), family=family, backlog=BACKLOG)


def _explained(error: OSError, address: Address, key: str) -> HarmonyLiteError:
    what = f"{key}: can't listen on {address}"
    if error.errno == errno.EADDRINUSE:
        return HarmonyLiteError(f"{what}: another process listens there", advice=f"stop it or change {key}")
    if isinstance(error, PermissionError):
        return ConfigError(f"{what}: not allowed", advice="a port below 1024 needs more rights; take a higher one")
    if isinstance(error, socket.gaierror):
        return ConfigError(f"{what}: no address is known for this name ({error.strerror})")
    return ConfigError(f"{what}: {error.strerror}", advice="use an address of this machine")
