"""What the findings share: say what was seen, end with 0 only when it is what the finding states, run nats-server."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NoReturn

WORK = Path(os.environ["WORK"])
SERVER = WORK / "venv" / "bin" / "nats-server"
PATIENCE = 60.0

_changed: list[str] = []


def expect(what: str, seen: object, stated: object) -> None:
    """Print what was seen; remember when it isn't what the finding states."""
    same = seen == stated
    print(f"{what}: {seen}" + ("" if same else f"   <- CHANGED, stated is {stated}"), flush=True)
    if not same:
        _changed.append(what)


def finish() -> NoReturn:
    """End the script: 0 when all is as stated, else 1."""
    print(f"changed: {', '.join(_changed)}" if _changed else "as stated", flush=True)
    sys.exit(bool(_changed))


def error_of(action: Callable[[], object]) -> str:
    """Return the message of the error that ``action`` raises, "none" when it raises none."""
    try:
        action()
    except Exception as error:  # noqa: BLE001  # whatever it raises is what the finding is about
        return str(error)
    return "none"


def free_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 that nobody listens on just now."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


async def until(attempt: Callable[[], Awaitable[Any]]) -> Any:
    """Repeat ``attempt`` until it raises no error any more; return what it returns."""
    end = asyncio.get_running_loop().time() + PATIENCE
    while True:
        try:
            return await attempt()
        except Exception:
            if asyncio.get_running_loop().time() > end:
                raise
            await asyncio.sleep(0.1)


@asynccontextmanager
async def nats_server(
    name: str = "s", *, jetstream: str = "", more: str = "", port: int = 0, program: Path = SERVER
) -> AsyncIterator[Any]:
    """Run a nats-server with JetStream in a folder ``name``, give a client. ``jetstream``, ``more``: of its file."""
    import nats  # only the findings about NATS install it

    port = port or free_ports(1)[0]
    folder = WORK / name
    folder.mkdir(exist_ok=True)
    (folder / "conf").write_text(
        f'server_name: {name}\nlisten: "127.0.0.1:{port}"\n'
        f'jetstream {{\n store_dir: "{folder}"\n {jetstream}\n}}\n{more}\n'
    )
    child = subprocess.Popen([program, "-c", folder / "conf", "-l", folder / "log"])  # noqa: ASYNC220  # one at a time
    try:
        client = await until(
            lambda: nats.connect(f"nats://127.0.0.1:{port}", error_cb=_ignore, max_reconnect_attempts=1)
        )
        yield client
        await client.close()
    finally:
        child.terminate()
        child.wait()


async def answer(publish: Awaitable[Any]) -> str:
    """Return how JetStream answers: "stored", "duplicate", or the error's number."""
    import nats

    try:
        return "duplicate" if (await publish).duplicate else "stored"
    except nats.js.errors.APIError as error:
        return f"error {error.err_code}"


async def _ignore(_error: Exception) -> None:
    """Say nothing of connections that fail while a server starts."""


__all__: Sequence[str] = ["WORK", "answer", "error_of", "expect", "finish", "free_ports", "nats_server", "until"]
