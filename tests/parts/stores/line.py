"""A TCP line to a server on this machine that breaks, or falls silent, after so many bytes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from types import TracebackType
from typing import Self

from tests.serving import serving


class Line:
    """Passes bytes on to ``target``. ``breaks_after``/``sticks_after``: bytes of both directions until it does."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.breaks_after: int | None = None
        self.sticks_after: int | None = None
        self._carried = 0
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._serving = serving(self._serve)
        self.port = await self._serving.__aenter__()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.breaks_after = 0
        self._flowing.set()
        self._reset()
        await self._serving.__aexit__(None, None, None)

    def heal(self) -> None:
        """Be a good line again."""
        self._carried = 0
        self.breaks_after = self.sticks_after = None
        self._flowing.set()

    @property
    def broken(self) -> bool:
        """True once it has broken: connections are refused."""
        return self.breaks_after is not None and self._carried >= self.breaks_after

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pair = {writer}
        self._writers.add(writer)
        try:
            if self.broken:
                raise ConnectionResetError
            back, forth = await asyncio.open_connection("127.0.0.1", self.target)
            pair.add(forth)
            self._writers.add(forth)
            await asyncio.gather(self._bring_back(reader, forth), self._bring_back(back, writer))
        except OSError:
            for each in pair:
                reset(each)
        finally:
            for each in pair:
                each.close()
                with contextlib.suppress(OSError):
                    await each.wait_closed()
            self._writers -= pair

    async def _bring_back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            self._carried += len(data)
            if self.broken:
                self._reset()
                return
            if self.sticks_after is not None and self._carried >= self.sticks_after:
                self._flowing.clear()
            await self._flowing.wait()
            writer.write(data)
            await writer.drain()
        with contextlib.suppress(OSError, RuntimeError):
            writer.write_eof()

    def _reset(self) -> None:
        for writer in self._writers:
            reset(writer)
        self._writers.clear()


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection with a reset instead of a goodbye."""
    sock = writer.get_extra_info("socket")
    if sock is not None and not writer.transport.is_closing():
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
