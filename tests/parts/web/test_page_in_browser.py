"""The live page in a real browser: whatever a node says, it is shown as text, fits, can be read, and reached by key."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from itertools import pairwise

import pytest

from harmonylite.status import NodeStatus
from harmonylite.web.endpoints import HealthEndpoint, http_servers
from harmonylite.web.server import HttpServer
from tests.parts.web.fix_browser import Browser
from tests.parts.web.fix_http import running_status

SCRIPT = "<script>document.title = 'taken'</script>"
IMAGE = "<img src=x onerror=\"document.title = 'taken'\">"
NONE = "\N{EN DASH}"
LONG = "a_very_long_name_without_any_break_" * 8

CONTRASTS = """
const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
const paint = color => {
  canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
  const light = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * light[0] + 0.7152 * light[1] + 0.0722 * light[2];
};
const found = [], texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (texts.nextNode()) {
  const e = texts.currentNode.parentElement, box = [];
  if (!texts.currentNode.textContent.trim() || !e.getClientRects().length) continue;
  for (let up = e; up; up = up.parentElement) box.unshift(getComputedStyle(up).backgroundColor);
  const behind = ["#fff", ...box].map(paint).pop(), before = paint(getComputedStyle(e).color);
  const ratio = (Math.max(behind, before) + 0.05) / (Math.min(behind, before) + 0.05);
  found.push([ratio, texts.currentNode.textContent.trim().slice(0, 40)]);
}
return found;
"""
"""How far each text stands out from what is behind it: https://www.w3.org/TR/WCAG22/#contrast-minimum"""

OVER_THE_EDGE = """
return [...document.querySelectorAll("html, body, body *:not(svg *)")]
  .filter(e => e.clientWidth && e.scrollWidth > e.clientWidth && getComputedStyle(e).display !== "inline")
  .map(e => e.tagName + "#" + e.id + " " + e.scrollWidth + " in " + e.clientWidth);
"""


def troubled_status() -> NodeStatus:
    """Return the status of a node at which much is wrong."""
    status = running_status()
    status.nats_connected = False
    status.part("nats").waiting("can't connect to nats://10.0.0.12:4222: connection refused")
    status.part("snapshots").failed("the store s3://backups/shop refuses the key: AccessDenied")
    status.part("publish").set("waiting", "no answer of JetStream", "nats")
    status.part("stream").set("stopped")
    status.part("verify")
    status.pending_rows, status.held_rows, status.counters.conflicts = 3204, 2, 12
    status.shard(0).last, status.shard(0).behind_since = 20_042, time.monotonic() - 10_830
    status.warnings = {"orders": "has no primary key"}
    status.region = {"region": "eu", "primary": "us", "reachable": False, "unreachable_since": 1_790_000_000.0}
    status.progress = ("saving 0001.snapshot", 12_000_000, 40_000_000)
    return status


def hostile_status() -> NodeStatus:
    """Return a status in which every name was chosen to break the page."""
    status = troubled_status()
    status.node_id, status.db_path = SCRIPT + LONG, f"/data/{LONG}.db"
    status.tables = (SCRIPT, IMAGE, LONG, "first name", "\u202eevil\x00", *(f"table_{i:04}" for i in range(700)))
    status.warnings = {LONG: "has no primary key", IMAGE: LONG}
    status.part("snapshots").failed("</li>" + SCRIPT + LONG)
    status.nats_server = "nats://" + LONG
    status.region["primary"] = LONG
    for shard in range(16):
        status.shard(shard).last = 10**12 + shard
    status.pending_rows = 10**12
    return status


def serving(status: NodeStatus) -> HttpServer:
    (http,) = http_servers(status, health=HealthEndpoint("127.0.0.1:0"))
    return http


async def test_a_page_shows_what_its_node_says(browser: Browser) -> None:
    def look() -> None:
        browser.show(http.url)
        assert browser.title == "! node 7 · HarmonyLite"
        assert browser.text("h1") == "node 7shop.db"
        assert browser.text("#state") == "unhealthy"
        assert [re.sub(r" \(for \d+\D+\)", "", why) for why in browser.texts("#why li")] == [
            "nats: can't connect to nats://10.0.0.12:4222: connection refusedbecause of it: publish",
            "snapshots: the store s3://backups/shop refuses the key: AccessDenied",
        ]
        assert browser.texts("dd b") == ["20,000", "3,204", "2", "12", NONE]
        assert browser.text("#oldest") == "messages, 3\xa0h 0\xa0min"
        assert browser.texts("#shards tr > *") == ["0", "42", "20,042", "20,000", "3\xa0h 0\xa0min"]
        assert browser.text("#region").startswith("Region eu; primary region us can't be reached since ")
        assert browser.text("#doing") == "saving 0001.snapshot, 12.0 of 40.0 MB"
        assert browser.run("return document.getElementById('progress').position") == 0.3
        assert browser.texts("#tables th") == ["items", "orders"]
        assert browser.texts("#warnings li") == ["orders: has no primary key"]
        assert browser.texts("#parts th") == ["capture", "fold", "nats", "publish", "snapshots", "stream", "verify"]
        assert browser.texts("#parts td:nth-child(2) span:first-child") == [
            "ok",
            "ok",
            "waiting",
            "waiting",
            "failed",
            "stopped",
            "starting",
        ]
        assert browser.complaints() == []

    async with serving(troubled_status()) as http:
        await asyncio.to_thread(look)


async def test_names_that_are_markup_are_shown_as_text_and_nothing_in_them_runs(browser: Browser) -> None:
    def look() -> None:
        browser.show(http.url)
        assert browser.title.startswith("! node <script>")
        assert browser.text("#node") == SCRIPT + LONG
        assert browser.texts("#tables th")[:5] == [SCRIPT, IMAGE, LONG, "first name", "\ufffdevil\ufffd"]
        assert any(text.startswith("snapshots: </li><script>") for text in browser.texts("#why li"))
        assert browser.texts("#warnings li")[0].startswith(IMAGE)
        assert browser.run("return document.querySelectorAll('img').length + document.scripts.length") == 1
        assert browser.complaints() == []
        # And were the page itself to forget it, the browser would still run nothing.
        browser.run("try { document.body.insertAdjacentHTML('beforeend', arguments[0]) } catch { return }", IMAGE)
        assert browser.title.startswith("! node <script>")
        assert browser.run("return document.querySelectorAll('img').length") == 0

    async with serving(hostile_status()) as http:
        await asyncio.to_thread(look)


@pytest.mark.parametrize("make", [running_status, troubled_status, hostile_status])
async def test_everything_fits_and_stands_out_by_day_and_by_night_on_a_desk_and_on_a_phone(
    browser: Browser, make: Callable[[], NodeStatus]
) -> None:
    def look(dark: bool, width: int) -> None:
        browser.show(http.url, width=width, dark=dark)
        assert browser.run(OVER_THE_EDGE) == []
        contrasts = browser.run(CONTRASTS)
        assert len(contrasts) > 30
        assert [(round(ratio, 2), text) for ratio, text in contrasts if ratio < 4.5] == []

    async with serving(make()) as http:
        for dark in (False, True):
            for width in (1280, 360):
                await asyncio.to_thread(look, dark, width)


async def test_a_screen_reader_hears_names_and_a_new_state_once(browser: Browser) -> None:
    def look() -> None:
        browser.show(http.url)
        heard = browser.named()
        assert [role for role, name in heard if role in ("table", "columnheader", "progressbar") and not name] == []
        assert [name for role, name in heard if role == "list"] == ["Reasons", "Warnings"]
        assert [name for role, name in heard if role == "heading"] == [
            "node 7 shop.db",
            "Under way",
            "Cluster",
            "Tables (2)",
            "Warnings",
            "Parts",
            "Shards",
        ]
        levels = browser.run("return [...document.querySelectorAll('h1,h2,h3')].map(e => +e.tagName[1])")
        assert levels[0] == 1
        assert all(after - before <= 1 for before, after in pairwise(levels))
        # What is told aloud changes with the state only, not with every second that a wait lasts.
        watch = "window.said = 0; new MutationObserver(() => window.said++).observe(document.getElementById('state'), "
        browser.run(watch + "{ childList: true, characterData: true, subtree: true })")
        seconds = browser.text("#uptime")
        browser.until(lambda: browser.text("#uptime") != seconds, "the page is drawn again")
        assert browser.run("return window.said") == 0

    async with serving(troubled_status()) as http:
        await asyncio.to_thread(look)


async def test_a_list_of_hundreds_is_reached_by_key_and_stays_where_it_was_scrolled_to(browser: Browser) -> None:
    def look() -> None:
        browser.show(http.url)
        browser.press("Tab")
        browser.until(lambda: browser.run("return document.activeElement.id") == "tableBox", "it is reached")
        assert browser.run("return document.activeElement.tabIndex") == 0, "other browsers focus no list by themselves"
        browser.run("document.getElementById('tableBox').scrollTop = 500")
        browser.run("getSelection().selectAllChildren(document.querySelector('#tables tr:nth-child(60) th'))")
        seconds = browser.text("#uptime")
        browser.until(lambda: browser.text("#uptime") != seconds, "the page is drawn again")
        assert browser.run("return document.getElementById('tableBox').scrollTop") == 500
        assert browser.run("return document.activeElement.id") == "tableBox"
        assert browser.run("return String(getSelection())") == "table_0054"

    async with serving(hostile_status()) as http:
        await asyncio.to_thread(look)


async def test_a_node_of_another_version_brings_its_own_page(browser: Browser) -> None:
    status = running_status()

    def look() -> None:
        browser.show(http.url)
        browser.run("window.old = true")
        status.version = "2.0.0"
        browser.until(lambda: browser.text("#version") == "HarmonyLite 2.0.0", "the page shows the new version")
        browser.until(lambda: browser.run("return window.old ?? null") is None, "it was loaded again")
        assert browser.complaints() == []

    async with serving(status) as http:
        await asyncio.to_thread(look)
