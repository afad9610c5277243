"""Ports for servers that have to know theirs before they start.

Invariant: no two processes of a machine take from the same ports, workers of one run or of two, and the system gives
none of these away by itself: a port that it chooses for somebody may be somebody else's connection a moment later.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from itertools import cycle

BLOCKS, EACH = 20, 1_000
"""Blocks of ports from 12,000 on, below those that the system gives away by itself; one is for one process."""


def ports() -> Iterator[int]:
    """Yield the ports of this process's block, in any order, again and again."""
    first = 12_000 + EACH * block()
    yield from cycle(random.Random().sample(range(first, first + EACH), EACH))


def block() -> int:
    """Return the number of a block that no other process has; the name of a socket that stays open keeps it.

    Where all are taken, any block.
    """
    for number in random.Random().sample(range(BLOCKS), BLOCKS):
        name = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            name.bind(f"\0harmonylite-tests-ports-{number}")
        except OSError:
            name.close()
        else:
            name.detach()
            return number
    return random.Random().randrange(BLOCKS)


PORTS = ports()


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on, and that was not given out a while ago."""
    for port in PORTS:
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no port is left")


def free_ports(count: int) -> list[int]:
    """Return several such ports, all different."""
    return [free_port() for _ in range(count)]
