"""The live page: self-contained, allowed to run nothing but itself, fed without secrets, right in a real browser."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from harmonylite.status import Histogram
from harmonylite.web.page import page_data, quantile
from harmonylite.web.sites import HealthSite, http_servers
from tests.parts.web.fix_http import fetch, running_status

if TYPE_CHECKING:
    from pathlib import Path

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


async def test_the_page_is_small_and_names_no_foreign_address() -> None:
    (http,) = http_servers(running_status(), health=HealthSite("127.0.0.1:0"))
    async with http:
        reply = await fetch(http.port, "/")
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert len(reply.body) < 16_000
    assert re.findall(r"(?:https?:)?//[\w.-]+\.\w+", reply.text) == []
    assert "innerHTML" not in reply.text


async def test_the_page_may_run_only_what_is_in_it() -> None:
    (http,) = http_servers(running_status(), health=HealthSite("127.0.0.1:0"))
    async with http:
        policy = (await fetch(http.port, "/")).headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy


async def test_the_pages_data_is_the_report_without_folders_or_credentials() -> None:
    status = running_status()
    status.nats_server = "nats://user:secret@nats.example:4222"
    (http,) = http_servers(status, health=HealthSite("127.0.0.1:0"))
    async with http:
        reply = await fetch(http.port, "/status.json")
    assert reply.json["db_path"] == "shop.db"
    assert reply.json["nats_server"] == "nats://nats.example:4222"
    assert "secret" not in reply.text
    assert "/data" not in reply.text
    assert reply.json.keys() >= status.report().keys()


def test_the_pages_data_says_why_a_node_is_not_ready() -> None:
    status = running_status()
    assert page_data(status)["not_ready"] == []
    status.nats_connected = False
    assert page_data(status)["not_ready"] == ["NATS is not connected"]


def test_quantiles_are_bounds_of_the_histogram() -> None:
    histogram = Histogram()
    assert quantile(histogram, 0.5) is None
    for seconds in [0.0015] * 90 + [0.2] * 10:
        histogram.observe(seconds)
    assert quantile(histogram, 0.5) == 0.002
    assert quantile(histogram, 0.99) == 0.25
    histogram.observe(100)
    assert quantile(histogram, 1.0) is None


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no chromium here")
async def test_a_browser_shows_names_as_text_and_reports_no_error(tmp_path: Path) -> None:
    status = running_status()
    status.tables = ("<img src=x onerror=alert(1)>", "orders")
    status.part("fold").waiting("<b>locked</b>")
    (http,) = http_servers(status, health=HealthSite("127.0.0.1:0"))
    async with http:
        done = await asyncio.to_thread(
            subprocess.run,
            [
                str(BROWSER),
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                f"--user-data-dir={tmp_path}",
                "--virtual-time-budget=3000",
                "--enable-logging=stderr",
                "--dump-dom",
                f"http://127.0.0.1:{http.port}/",
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    assert "CONSOLE" not in done.stderr
    assert "<span>&lt;img src=x onerror=alert(1)&gt;</span><span>orders</span>" in done.stdout
    assert "<li>fold: &lt;b&gt;locked&lt;/b&gt;</li>" in done.stdout
    assert re.search(r'id="state"[^>]*>waiting<', done.stdout)
