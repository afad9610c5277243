"""Several databases in one process: each replicates for itself, and what fails in one is no other one's trouble."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from harmonylite.config import load_all
from harmonylite.node.databases import Databases
from tests.parts.fix_nats import RealNats, eventually
from tests.parts.replication.fix_nodes import Running, items, write
from tests.parts.web.fix_browser import Browser
from tests.parts.web.fix_http import fetch
from tests.parts.web.test_cluster_page import shoot
from tests.parts.web.test_page_in_browser import CONTRASTS, OVER_THE_EDGE

HTTP = '[health_check]\nenable = true\nbind = "127.0.0.1:0"\n[prometheus]\nenable = true\nbind = "127.0.0.1:0"\n'


class Process:
    """One process with the databases ``names``, each with one empty table."""

    def __init__(self, folder: Path, node: str, url: str, *names: str, more: str = "") -> None:
        self.folder = folder / node
        self.folder.mkdir()
        entries = ""
        for name in names:
            write(self.file(name), "PRAGMA journal_mode = wal", "CREATE TABLE item(id TEXT PRIMARY KEY)")
            entries += f'[[database]]\nname = "{name}"\ndb_path = {json.dumps(str(self.file(name)))}\n'
        self.config = folder / f"{node}.toml"
        self.config.write_text(f'node_id = "{node}"\n[nats]\nurls = ["{url}"]\n{more}{entries}')
        self.runs = Databases(load_all(self.config))
        self.task: asyncio.Task[None] | None = None

    def file(self, name: str) -> Path:
        return self.folder / f"{name}.db"

    def status(self, name: str) -> Any:
        return self.runs.site.statuses[name]

    async def start(self, *wait_for: str) -> None:
        self.task = asyncio.create_task(self.runs.run())
        await eventually(lambda: all(self.status(name).caught_up for name in wait_for or self.names()), "the start")

    def names(self) -> Sequence[str]:
        return list(self.runs.site.statuses)

    async def stop(self) -> None:
        if self.task is not None:
            self.runs.stop()
            await self.task


@asynccontextmanager
async def running(*processes: Process) -> AsyncIterator[None]:
    try:
        for process in processes:
            await process.start()
        yield
    finally:
        for process in processes:
            await process.stop()


async def test_each_database_has_streams_of_its_own(nats: RealNats, tmp_path: Path) -> None:
    one, two = (Process(tmp_path, node, nats.url, "shop", "logs") for node in ("one", "two"))
    async with running(one, two):
        write(one.file("shop"), "INSERT INTO item VALUES('sold')")
        write(two.file("logs"), "INSERT INTO item VALUES('seen')")
        await eventually(lambda: items(two.file("shop")) == ["sold"], "the row of the one")
        await eventually(lambda: items(one.file("logs")) == ["seen"], "the row of the other")
        assert (items(one.file("shop")), items(two.file("logs"))) == (["sold"], ["seen"])
        assert {one.status(name).node_id for name in one.names()} == {"one"}
        await eventually(lambda: "two" in one.status("shop").peers, "the peer")


async def test_a_database_of_its_own_joins_one_among_several(nats: RealNats, tmp_path: Path) -> None:
    """A cluster of nodes with one database each goes over to several, one process at a time."""
    keep = 'nats = {stream_prefix = "harmonylite-changes", subject_prefix = "harmonylite-change-log"}\n'
    alone, several = Running(tmp_path, "alone", nats.url), Process(tmp_path, "several", nats.url, "shop")
    several.config.write_text(several.config.read_text() + keep)
    several.runs = Databases(load_all(several.config))
    await alone.start()
    async with running(several):
        write(alone.database, "INSERT INTO item VALUES('old')")
        await eventually(lambda: items(several.file("shop")) == ["old"], "the row")
    await alone.stop()


async def test_a_database_that_fails_stops_no_other_one_and_comes_back(nats: RealNats, tmp_path: Path) -> None:
    one, two = (Process(tmp_path, node, nats.url, "shop", "logs", more=HTTP) for node in ("one", "two"))
    whole = one.file("logs").read_bytes()
    one.file("logs").unlink()
    one.file("logs").mkdir()  # no database can be there
    await one.start("shop")
    async with running(two):
        await eventually(lambda: "node" in one.status("logs").parts and one.status("logs").part("node").stuck, "it")
        write(two.file("shop"), "INSERT INTO item VALUES('sold')")
        await eventually(lambda: items(one.file("shop")) == ["sold"], "the row of the sound one")
        await eventually(lambda: bool(one.status("shop").healthy), "its health")
        await eventually(lambda: one.runs.status_object.cdc_installed, "systemd: it waits for no file that can't open")
        one.file("logs").rmdir()
        one.file("logs").write_bytes(whole)
        await eventually(lambda: bool(one.status("logs").caught_up), "its return")
        write(two.file("logs"), "INSERT INTO item VALUES('seen')")
        await eventually(lambda: items(one.file("logs")) == ["seen"], "its row")
        await one.stop()


async def test_health_pages_and_metrics_name_each_database(nats: RealNats, tmp_path: Path) -> None:
    process = Process(tmp_path, "one", nats.url, "shop", "logs", more=HTTP)
    async with running(process):
        await eventually(lambda: all(each.ready for each in process.runs.site.statuses.values()), "both")
        health, metrics = (server.port for server in process.runs.servers)
        whole = await fetch(health, "/health")
        assert whole.code == 200
        assert sorted(whole.json["databases"]) == ["logs", "shop"]
        assert (await fetch(health, "/readyz")).code == 200
        assert (await fetch(health, "/")).headers["location"] == "database/shop/"
        for name in ("shop", "logs"):
            assert (await fetch(health, f"/database/{name}/readyz")).code == 200
            page = (await fetch(health, f"/database/{name}/status.json")).json
            assert (page["database"], page["db_path"]) == (name, f"{name}.db")
            assert [each["name"] for each in page["databases"]] == ["shop", "logs"]
            details = (await fetch(health, f"/database/{name}/details.json")).json
            assert [table["name"] for table in details["tables"]] == ["item"]
        said = (await fetch(metrics, "/metrics")).body.decode()
        for name in ("shop", "logs"):
            assert f'harmonylite_healthy{{database="{name}",node_id="one"}} 1.0' in said
        assert said.count("# TYPE harmonylite_healthy gauge") == 1
        process.status("logs").part("merge").failed("no")
        assert (await fetch(health, "/health")).code == 503
        assert (await fetch(health, "/database/shop/health")).code == 200
        assert (await fetch(health, "/readyz")).json["reasons"] == ["logs: merge: no"]


async def test_one_server_and_one_connection_serve_all(tmp_path: Path) -> None:
    process = Process(tmp_path, "one", "nats://127.0.0.1:1", "shop", "logs")
    process.config.write_text(process.config.read_text().replace('urls = ["nats://127.0.0.1:1"]', ""))
    process.runs = Databases(load_all(process.config))
    async with running(process):
        line = process.runs._line
        assert line is not None
        await eventually(lambda: process.status("shop").server.get("connections") == 1.0, "the figures")
        assert process.status("logs").server is process.status("shop").server
        assert (process.folder / "nats" / "one").is_dir()
        line.status.part("nats").waiting("why")
        assert [status.waits for status in process.runs.site.statuses.values()] == [["nats: why"]] * 2
        line.status.part("nats").ok()


async def test_the_end_of_the_way_to_nats_ends_the_process(nats: RealNats, tmp_path: Path) -> None:
    from harmonylite.errors import HarmonyLiteError

    more = "connect_retries = 1\nreconnect_wait = 0.01\n"
    process = Process(tmp_path, "one", nats.url, "shop", "logs", more=more)
    await process.start()
    await nats.stop()
    assert process.task is not None
    with pytest.raises(HarmonyLiteError, match="maximum reconnects reached"):
        await process.task


async def test_the_page_of_each_database_has_a_tab(nats: RealNats, tmp_path: Path, browser: Browser) -> None:
    names = ("shop", "logs", "tenant-with-a-long-name-4711")
    process = Process(tmp_path, "vienna", nats.url, *names, more=HTTP)

    def look(url: str) -> None:
        for width, dark in ((1280, False), (360, True)):
            browser.show(url, width=width, dark=dark)
            browser.until(lambda: len(browser.texts("#databases a")) == 3, "the tabs")
            shoot(browser, f"databases-{width}")
            assert tuple(browser.texts("#databases a")) == names
            assert browser.texts("#databases a[aria-current=page]") == ["shop"]
            wide = [line for line in browser.run(OVER_THE_EDGE) if "#databases" not in line]  # which scrolls
            assert wide == []
            assert min(ratio for ratio, _ in browser.run(CONTRASTS)) >= 4.5
        browser.run("document.querySelector('#databases a:nth-child(2)').click()")
        browser.until(lambda: browser.text("#file") == "logs, logs.db", "the other database's page")
        assert browser.complaints() == []

    async with running(process):
        await eventually(lambda: process.status("logs").ready, "the start")
        await asyncio.to_thread(look, f"{process.runs.servers[0].url}/")
