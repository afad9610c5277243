"""Ask the node beside a database, from asyncio code: the same questions as `Client`, and no thread is blocked.

Invariant: what is cancelled closes its connection; a feed buffers no more than the entry that is being read.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from os import PathLike
from pathlib import Path
from typing import Any

from harmonylite.client.blocking import GRACE, SILENT_SECONDS, Patience
from harmonylite.client.control_answers import CODEC, FeedAnswer
from harmonylite.client.control_client import ControlClient, decoded_line, refusal, with_query
from harmonylite.client.values import ConflictEntry, Entry, NodeReport, conflict_of, entry_of, report_of
from harmonylite.errors import HarmonyLiteError, NotAnsweringError, NotRunningError

HEAD_BYTES = 64 * 1024
"""Bytes of an answer's head; a node's has a few hundred."""
CHUNK = 64 * 1024


class AsyncClient:
    """As `Client`, for asyncio; the arguments, answers and errors are the same."""

    def __init__(self, db_path: str | PathLike[str], *, seconds: float = 15.0) -> None:
        self._db_path = Path(db_path).absolute()
        self._seconds = seconds

    async def status(self) -> NodeReport:
        """Return the node's state."""
        return report_of(await self._get("/v1/status", {}, self._seconds))

    async def position(self, *, seconds: float = 30.0) -> str:
        """Return a position that covers everything committed to this database before the call."""
        return str((await self._get("/v1/position", {"seconds": seconds}, seconds + GRACE))["position"])

    async def wait(self, position: str = "", *, seconds: float = 30.0, for_start: bool = True) -> str:
        """Return once this database has everything up to ``position``; "": everything that is in the streams now."""
        patience = Patience(seconds)
        while True:
            query = {"position": position or None, "seconds": patience.left}
            try:
                return str((await self._get("/v1/wait", query, patience.left + GRACE))["position"])
            except (NotRunningError, NotAnsweringError) as error:
                if not for_start:
                    raise
                pause = patience.failed(error)
            await asyncio.sleep(pause)

    async def changes(self, start: str = "now", *, table: str = "") -> AsyncGenerator[Entry, None]:
        """Yield the entries of the change feed without end; wrap it in `contextlib.aclosing` to leave it early."""
        path = "/v1/changes"
        async with self._asked(with_query(path, {"from": start, "table": table or None}), SILENT_SECONDS) as answer:
            if answer.status != 200:
                answer.control.answer(path, answer.status, await answer.body())
            async for line in answer.lines():
                data = decoded_line(path, line, FeedAnswer)
                if "error" in data:
                    raise refusal(data["error"], data.get("exit_code", 1))
                yield entry_of(data)
        raise NotAnsweringError("the node ended the feed: it stops", advice="continue from the last position")

    async def conflicts(self, *, table: str = "", limit: int = 100) -> list[ConflictEntry]:
        """Return the newest entries of the conflict journal, at most ``limit``; ``table``: of this one only."""
        data = await self._get("/v1/conflicts", {"table": table or None, "limit": limit}, self._seconds)
        return [conflict_of(each) for each in data["conflicts"]]

    async def _get(self, path: str, query: dict[str, Any], seconds: float) -> dict[str, Any]:
        async with self._asked(with_query(path, query), seconds) as answer:
            return answer.control.answer(path, answer.status, await answer.body())

    @asynccontextmanager
    async def _asked(self, target: str, seconds: float) -> AsyncIterator[_Answer]:
        control = ControlClient.find(self._db_path)
        writer: asyncio.StreamWriter | None = None
        try:
            async with asyncio.timeout(seconds):
                reader, writer = await asyncio.open_connection("127.0.0.1", control.port, limit=HEAD_BYTES)
                writer.write(control.request(target))
                head = await reader.readuntil(b"\r\n\r\n")
            yield _Answer(control, _status(head), reader, seconds)
        except TimeoutError:
            raise control.silent(f"nothing within {seconds:.0f} s") from None
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
            raise control.silent(str(error) or type(error).__name__) from None
        finally:
            if writer is not None:
                writer.close()


class _Answer:
    """An answer whose head was read. ``seconds``: the longest silence."""

    def __init__(self, control: ControlClient, status: int, reader: asyncio.StreamReader, seconds: float) -> None:
        self.control = control
        self.status = status
        self._reader = reader
        self._seconds = seconds

    async def _chunk(self) -> bytes:
        async with asyncio.timeout(self._seconds):
            return await self._reader.read(CHUNK)

    async def body(self) -> bytes:
        """Return the whole body."""
        return b"".join([chunk async for chunk in self._chunks()])

    async def _chunks(self) -> AsyncIterator[bytes]:
        size = 0
        while chunk := await self._chunk():
            size += len(chunk)
            if size > CODEC.most:
                raise HarmonyLiteError(f"the node's answer has more than {CODEC.most} bytes")
            yield chunk

    async def lines(self) -> AsyncIterator[bytes]:
        """Yield whole lines; the rest of one that was cut off is left out."""
        pieces: list[bytes] = []
        while chunk := await self._chunk():
            *whole, rest = chunk.split(b"\n")
            for line in whole:
                yield b"".join([*pieces, line])
                pieces.clear()
            pieces.append(rest)
            if sum(map(len, pieces)) > CODEC.most:
                raise HarmonyLiteError(f"a line of the node's answer has more than {CODEC.most} bytes")


def _status(head: bytes) -> int:
    """Return the code in an answer's head; raises ValueError where it is none."""
    version, _, rest = head.partition(b" ")
    if not version.startswith(b"HTTP/1."):
        raise ValueError("the answer is not HTTP")
    return int(rest[:3])
