"""systemd hears that a node has begun, how it does and that it ends; nobody else hears anything."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from harmonylite.status import NodeStatus
from harmonylite.systemd import supervised


class Systemd:
    """A socket as systemd gives one, and what came to it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind("\0" + path[1:] if path.startswith("@") else path)
        self.sock.setblocking(False)
        self.told: list[dict[str, str]] = []

    def environment(self, **more: str) -> dict[str, str]:
        return {"NOTIFY_SOCKET": self.path, **more}

    async def hears(self, name: str, value: str = "1") -> dict[str, str]:
        """Return the first message from now on that says so."""
        while True:
            text = await asyncio.get_running_loop().sock_recv(self.sock, 4096)
            self.told.append(dict(line.split("=", 1) for line in text.decode().splitlines()))
            if self.told[-1].get(name) == value:
                return self.told[-1]


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the status be looked at often."""
    monkeypatch.setattr("harmonylite.systemd.EVERY", 0.01)


@pytest.fixture(params=["file", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Systemd]:
    """systemd's end, under a path or a name of its own."""
    path = f"@harmonylite-test-{os.getpid()}-{tmp_path.name}" if request.param == "abstract" else str(tmp_path / "n")
    place = Systemd(path)
    yield place
    place.sock.close()


async def test_it_hears_of_the_beginning_once_no_commit_is_missed_any_more(systemd: Systemd) -> None:
    status = NodeStatus()
    async with supervised(status, systemd.environment()):
        first = await systemd.hears("STATUS", "starting")
        assert "READY" not in first
        assert int(first["EXTEND_TIMEOUT_USEC"]) > 1_000_000, "a large database takes its time to come"
        status.part("nats").waiting("no server answers")
        status.cdc_installed = True
        began = await systemd.hears("READY")
        assert began["STATUS"] == "nats: no server answers", "an outage of NATS is no reason to hold up the application"
        status.part("nats").ok()
        status.caught_up, status.pending_rows = True, 3
        assert "READY" not in await systemd.hears("STATUS", "caught up, 3 rows pending")
        status.stopping = True
        assert (await systemd.hears("STOPPING"))["STATUS"] == "ending"


async def test_it_hears_of_the_beginning_at_once(systemd: Systemd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harmonylite.systemd.EVERY", 600.0)
    status = NodeStatus()
    async with supervised(status, systemd.environment()):
        await systemd.hears("STATUS", "starting")
        status.cdc_installed = True
        assert "STOPPING" not in await systemd.hears("READY")


async def test_a_database_that_came_back_is_not_offered_before_it_has_caught_up(systemd: Systemd) -> None:
    status = NodeStatus(cdc_installed=True, comes_back=True)
    async with supervised(status, systemd.environment()):
        assert "READY" not in await systemd.hears("STATUS", "starting")
        status.part("nats").waiting("no server answers")
        assert "READY" not in await systemd.hears("STATUS", "nats: no server answers")
        status.part("nats").ok()
        status.caught_up = True
        assert "STATUS" in await systemd.hears("READY")


async def test_what_it_has_no_room_for_is_sent_again(systemd: Systemd) -> None:
    status = NodeStatus()
    async with supervised(status, systemd.environment()):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.setblocking(False)
            other.connect(systemd.sock.getsockname())
            with suppress(BlockingIOError):
                while True:
                    other.send(b"STATUS=another's")
        status.cdc_installed = True
        await asyncio.sleep(0.2)  # not a wait: so often that it is tried while there is no room
        assert "STATUS" in await systemd.hears("READY")


async def test_it_hears_of_an_end_that_nobody_asked_for(systemd: Systemd) -> None:
    with pytest.raises(ZeroDivisionError):
        async with supervised(NodeStatus(), systemd.environment()):
            raise ZeroDivisionError
    await systemd.hears("STOPPING")


async def test_the_watchdog_hears_signs_of_life_in_time(systemd: Systemd) -> None:
    asked = systemd.environment(WATCHDOG_USEC="300000", WATCHDOG_PID=str(os.getpid()))
    async with supervised(NodeStatus(), asked):
        for _ in range(3):
            await systemd.hears("WATCHDOG")


async def test_a_watchdog_of_another_process_hears_nothing(systemd: Systemd) -> None:
    status = NodeStatus()
    async with supervised(status, systemd.environment(WATCHDOG_USEC="1000", WATCHDOG_PID="1")):
        status.cdc_installed = True
        await systemd.hears("READY")
    await systemd.hears("STOPPING")
    assert not [told for told in systemd.told if "WATCHDOG" in told]


async def test_a_socket_that_is_gone_does_no_harm(tmp_path: Path) -> None:
    async with supervised(NodeStatus(), {"NOTIFY_SOCKET": str(tmp_path / "gone")}):
        await asyncio.sleep(0)


async def test_nothing_runs_where_nobody_asks() -> None:
    before = asyncio.all_tasks()
    async with supervised(NodeStatus(), {}):
        assert asyncio.all_tasks() == before
