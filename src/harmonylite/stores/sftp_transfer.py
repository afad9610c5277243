"""Transfer a file over SFTP, with many requests in flight.

Invariant: when a transfer ends, however it ends, none of its requests waits any more. The library's own ``put`` and
``get`` don't ensure that: when a connection breaks they leave requests whose errors no task collects.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, BinaryIO, TypeVar

from asyncssh import SFTPClientFile

T = TypeVar("T")

BLOCK = 32 * 1024
"""Bytes of one request; every server takes as many (draft-ietf-secsh-filexfer-02, section 3)."""

AT_ONCE = 64
"""Requests that wait for an answer at once, so that a distant server doesn't mean a slow one."""

CHUNK = 1024 * 1024
"""Bytes that go to or come from this machine's disk in one step, in a thread."""

Beat = Callable[[int], None]
"""Called with the bytes carried so far."""


class SftpRequests:
    """Requests in flight, answered in the order in which they were made."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Task[Any]] = deque()

    async def __aenter__(self) -> SftpRequests:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._waiting:
            task.cancel()
        await asyncio.gather(*self._waiting, return_exceptions=True)

    def __len__(self) -> int:
        return len(self._waiting)

    def make(self, request: Coroutine[Any, Any, Any]) -> None:
        """Send ``request``."""
        self._waiting.append(asyncio.create_task(request))

    async def oldest(self) -> Any:
        """Return the answer to the oldest one; raises its error."""
        answer = await self._waiting[0]
        self._waiting.popleft()
        return answer


async def send_file(source: BinaryIO, remote: SFTPClientFile, heartbeat: Beat) -> int:
    """Write all of ``source`` to ``remote``; return the number of bytes. Raises OSError, asyncssh.Error."""
    sent = done = 0
    async with SftpRequests() as requests:
        while data := await asyncio.to_thread(source.read, CHUNK):
            for start in range(0, len(data), BLOCK):
                block = data[start : start + BLOCK]
                requests.make(remote.write(block, sent))
                sent += len(block)
                if len(requests) >= AT_ONCE:
                    done += await requests.oldest()
            heartbeat(done)
        while requests:
            done += await requests.oldest()
    heartbeat(done)
    return done


async def receive_file(remote: SFTPClientFile, target: BinaryIO, total: int, heartbeat: Beat) -> int:
    """Write the first ``total`` bytes of ``remote`` to ``target``; return how many there were."""
    asked = done = 0
    held = bytearray()
    async with SftpRequests() as requests:
        while asked < total or requests:
            while asked < total and len(requests) < AT_ONCE:
                size = min(BLOCK, total - asked)
                requests.make(_block(remote, asked, size))
                asked += size
            data = await requests.oldest()
            held += data
            done += len(data)
            if len(held) >= CHUNK or not requests:
                await asyncio.to_thread(target.write, held)
                held = bytearray()
                heartbeat(done)
    return done


async def _block(remote: SFTPClientFile, start: int, size: int) -> bytes:
    """Return ``size`` bytes, fewer at the file's end only: a server may answer with less than it was asked for."""
    found = b""
    while len(found) < size:
        data = await remote.read(size - len(found), start + len(found))
        if not data:
            break
        found += bytes(data)  # type: ignore[arg-type]
    return found
