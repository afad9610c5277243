"""A TCP proxy whose line can be cut: ``python proxy.py PORT TARGET_PORT``, both on 127.0.0.1.

Each line of input is an order, answered with one line once it holds: ``pass``; ``hole`` (everything is swallowed,
nobody is told, as when a cable is pulled); ``deaf`` (what goes to the target gets there, its answers don't come
back); ``reset`` (all connections are reset, new ones too); ``slow MS`` (as ``pass``, and every piece arrives so many
milliseconds later).
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
import time
from contextlib import suppress

MOST_PIECES = 100
"""So many pieces may be on their way in one direction."""


class Proxy:
    """Passes bytes on, or not."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.open = asyncio.Event()
        self.open.set()
        self.answering = asyncio.Event()
        self.answering.set()
        self.resetting = False
        self.delay = 0.0
        self.writers: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection."""
        if self.resetting:
            reset(writer)
            return
        self.writers.add(writer)
        try:
            await self.open.wait()
            target_reader, target_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            reset(writer)
            return
        self.writers.add(target_writer)
        there = self.carry(reader, target_writer, self.open)
        try:
            await asyncio.gather(there, self.carry(target_reader, writer, self.answering))
        finally:
            target_writer.close()
            self.writers -= {writer, target_writer}

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, passing: asyncio.Event) -> None:
        """Carry one direction of a connection until it ends, while it is ``passing``."""
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(MOST_PIECES)
        taking = asyncio.create_task(self.take(reader, pieces))
        with suppress(OSError):
            while (piece := await pieces.get())[1]:
                await passing.wait()
                await asyncio.sleep(piece[0] - time.monotonic())
                writer.write(piece[1])
                await writer.drain()
        taking.cancel()
        writer.close()

    async def take(self, reader: asyncio.StreamReader, pieces: asyncio.Queue[tuple[float, bytes]]) -> None:
        """Date what comes in: a slow line delays each piece, but the next one is on its way meanwhile."""
        with suppress(OSError):
            while data := await reader.read(65536):
                await pieces.put((time.monotonic() + self.delay, data))
        await pieces.put((time.monotonic(), b""))

    def order(self, word: str) -> None:
        """Enter another state."""
        self.resetting = word == "reset"
        self.delay = float(word.removeprefix("slow ")) / 1000 if word.startswith("slow ") else 0.0
        if word in ("hole", "deaf"):
            self.answering.clear()
        if word == "hole":
            self.open.clear()
            return
        for writer in list(self.writers) if word == "reset" else []:
            reset(writer)
        self.open.set()
        if word != "deaf":
            self.answering.set()


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection with a reset instead of a goodbye."""
    sock = writer.get_extra_info("socket")
    if sock is not None and not writer.transport.is_closing():
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def main(port: int, target: int) -> None:
    """Serve until the input ends."""
    proxy = Proxy(target)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", port)
    print("listening", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        proxy.order(line.strip())
        print(line.strip(), flush=True)
    server.close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
