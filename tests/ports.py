"""Ports for servers that have to know theirs before they start.

Invariant: no two workers of a run take from the same ports, and the system gives none of these away by itself: a port
that it chooses for somebody may be somebody else's connection a moment later.
"""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Iterator
from itertools import cycle


def ports() -> Iterator[int]:
    """Yield ports below the range that the system gives away by itself, in any order, again after 2,500."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 8
    return cycle(random.Random().sample(range(12_000 + 2_500 * worker, 14_500 + 2_500 * worker), 2_500))


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
