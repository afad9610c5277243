"""A test that leaves a connection open fails itself: not the test in which the garbage collector finds it."""

from __future__ import annotations

import asyncio
import socket

import pytest

from tests.serving import serving


def test_a_loop_that_closes_with_a_connection_open_fails() -> None:
    near, far = socket.socketpair()
    loop = asyncio.new_event_loop()
    loop.run_until_complete(loop.create_connection(asyncio.Protocol, sock=near))
    with pytest.raises(AssertionError, match="open when its event loop closed"):
        loop.close()
    assert loop.is_closed()
    assert far.recv(1) == b"", "it was closed"
    far.close()


@pytest.mark.parametrize("turns", range(12))
def test_a_server_of_a_test_leaves_no_connection_whenever_it_ends(turns: int) -> None:
    """Each turn of the loop is a place between the client's connect and the task that serves it."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async def end_early() -> None:
        with socket.socket() as client:
            async with serving(silent) as port:
                client.connect(("127.0.0.1", port))
                for _ in range(turns):
                    await asyncio.sleep(0)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(end_early())
    loop.close()
