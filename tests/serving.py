"""A TCP server of a test's own that leaves no connection behind."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(serve: Serve, port: int = 0) -> AsyncIterator[int]:
    """Serve each connection to 127.0.0.1; yields the port. At the end what is still connected is aborted.

    Not by ``asyncio.Server``: its ``close`` leaves a connection that is being accepted to the garbage collector, which
    finds it during another test (CPython 3.11 to 3.14: ``Server._attach`` refuses it, and nobody closes its socket).
    """
    connections: dict[asyncio.Task[None], socket.socket] = {}
    listener = socket.create_server(("127.0.0.1", port), backlog=128)
    listener.setblocking(False)
    loop = asyncio.get_running_loop()

    def accept() -> None:
        with suppress(BlockingIOError, ConnectionAbortedError):
            connection, _ = listener.accept()
            connection.setblocking(False)
            connections[asyncio.create_task(_serve_one(serve, connection))] = connection

    loop.add_reader(listener, accept)
    try:
        yield int(listener.getsockname()[1])
    finally:
        loop.remove_reader(listener)
        listener.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        # The transports' own last turn, for those that were aborted.
        await asyncio.sleep(0)
        for connection in connections.values():
            connection.close()


async def _serve_one(serve: Serve, connection: socket.socket) -> None:
    reader, writer = await asyncio.open_connection(sock=connection)
    try:
        await serve(reader, writer)
    except asyncio.CancelledError:
        writer.transport.abort()
        raise
    finally:
        writer.close()
