"""The page of a cluster in a real browser: who is here, what was overruled, and what a person may do about it.

Screenshots go into the folder that PAGE_SHOTS names.
"""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path
from typing import Any

from harmonylite.web.page_guard import PageGuard
from tests.parts.web.fix_browser import Browser
from tests.parts.web.fix_page import SCRIPT, TOKEN, Answers, cluster_status, serving_page
from tests.parts.web.test_page_in_browser import CONTRASTS, OVER_THE_EDGE

POINT = """
const svg = document.querySelector("#lagPlot svg"), r = svg.getBoundingClientRect();
const where = { clientX: r.left + 52 + (r.width - 60) * 400 / 720, clientY: r.top + 20 };
svg.dispatchEvent(new PointerEvent("pointermove", where));
"""

TWICE = """
const button = document.querySelector(arguments[0]);
button.click(); const asks = button.textContent; button.click();
return asks;
"""
"""Press twice, with no pause in which the page would forget the first time."""


def shoot(browser: Browser, name: str) -> None:
    """Keep a picture of the page where somebody wants to look at it."""
    if folder := os.environ.get("PAGE_SHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / f"{name}.png").write_bytes(browser.picture())


def whole(browser: Browser, url: str, **how: Any) -> None:
    """Open the page and wait until everything on it has arrived."""
    browser.show(url, **how)
    browser.until(lambda: browser.texts("#conflictList details"), "the conflicts are shown")
    browser.until(lambda: "1,902,400" in browser.text("#tables"), "the rows of the tables are shown")
    browser.until(lambda: browser.texts("#conflictPlot .bar"), "the last hour is drawn")


async def test_the_page_shows_who_is_here_who_lags_and_who_is_gone_since_when(browser: Browser) -> None:
    def look() -> None:
        whole(browser, http.url)
        names = [name.partition(":")[0] for name in browser.texts("#picture title")]
        assert names == ["vienna-1", "vienna-2", "vienna-3", "graz-1", "graz-2", "graz-3", "linz-1"]
        said = dict(zip(browser.texts("#nodes th"), browser.texts("#nodes td:nth-child(2)"), strict=True))
        assert said["vienna-1"] == "this node"
        assert said["vienna-2"] == said["graz-3"] == "up"
        assert said["vienna-3"] == "74.0\xa0s behind"
        assert said["graz-1"].startswith("gone since ")
        assert said["graz-2"].startswith("stopped ")
        assert said["linz-1"].startswith("gone since ")
        assert browser.text("#clusterNote") == "4 of 7 nodes here · 1 behind · 1 silent"
        schemas = dict(zip(browser.texts("#nodes th"), browser.texts("#nodes td:nth-child(6)"), strict=True))
        assert (schemas["vienna-2"], schemas["graz-3"]) == ("same", "differs")
        # Another node's page is a link where that is an address of the web, and of use to who looks.
        assert browser.run("return [...document.querySelectorAll('#nodes a, #picture a')].map(e => e.href ?? '')") == []
        # What lasts has a colour, not what is much: 12 rows that were just written have none.
        assert browser.run("return document.getElementById('pending').className") == ""
        assert browser.texts("#tables tr:nth-child(2) > *") == ["order_lines", "≈ 1,902,400", "12", "0"]
        assert browser.texts("#snapshots tr:first-child > *")[1:] == ["vienna-2", "21.3 MB", "96.4 MB"]
        assert browser.text("#verified") == "all nodes agree, 1\xa0h ago"
        folded = "return [...document.querySelectorAll('details.card')].filter(e => e.open).map(e => e.id)"
        assert browser.run(folded) == [], "what is well is folded"
        assert browser.complaints() == []

    async with serving_page(cluster_status(), Answers()) as http:
        await asyncio.to_thread(look)


async def test_a_link_leads_to_the_page_of_a_node_elsewhere_and_to_no_script(browser: Browser) -> None:
    status = cluster_status()
    status.peers["vienna-2"].health.page = "http://db-2.example:8090/"
    begins, ill = status.peers["graz-3"].health, status.peers["vienna-3"].health
    begins.healthy, begins.starting, ill.healthy = False, True, False

    def look() -> None:
        whole(browser, http.url)
        links = "return [...document.querySelectorAll('#nodes a, #picture a')].map(e => e.getAttribute('href'))"
        browser.until(lambda: browser.run(links) == ["http://db-2.example:8090/"] * 2, "the node's page is linked")
        said = dict(zip(browser.texts("#nodes th"), browser.texts("#nodes td:nth-child(2)"), strict=True))
        assert (said["graz-3"], said["vienna-3"]) == ("starting", "unhealthy"), "what begins is not ill"

    async with serving_page(status, Answers()) as http:
        await asyncio.to_thread(look)


async def test_everything_of_a_cluster_fits_and_stands_out_by_day_and_by_night_on_a_desk_and_on_a_phone(
    browser: Browser,
) -> None:
    def look(dark: bool, width: int) -> None:
        whole(browser, http.url, width=width, dark=dark)
        browser.run("document.querySelectorAll('details').forEach(e => e.open = true)")
        browser.until(lambda: browser.texts("#changes li"), "a change is shown")
        browser.until(lambda: browser.texts("#log li"), "a line of the log is shown")
        assert browser.run(OVER_THE_EDGE) == []
        low = [(round(ratio, 2), text) for ratio, text in browser.run(CONTRASTS) if ratio < 4.5]
        assert low == []
        heard = browser.named()
        assert [role for role, name in heard if role in ("table", "columnheader", "image", "button") and not name] == []
        shoot(browser, f"{'dark' if dark else 'light'}-{'phone' if width < 600 else 'desk'}")
        assert browser.title == "node vienna-1 · HarmonyLite", "nothing in a value ran"
        assert browser.complaints() == []

    async with serving_page(cluster_status(), Answers()) as http:
        for dark in (False, True):
            for width in (1280, 360):
                await asyncio.to_thread(look, dark, width)


async def test_a_conflict_opens_to_both_values_and_is_found_by_what_is_in_it(browser: Browser) -> None:
    answers = Answers()

    def look() -> None:
        whole(browser, http.url)
        assert len(browser.texts(".conflict")) == 4
        browser.run("document.querySelector('.conflict').open = true")
        assert browser.texts(".conflict:first-child .side code") == ["shipped", "cancelled by the customer"]
        assert browser.texts(".conflict:first-child h3") == [
            "Stays, from node vienna-2 (text)",
            "Overruled, from node graz-3 (text)",
        ]
        assert "Row orders id=o-1" in browser.text(".conflict:first-child .about")
        assert browser.texts(".conflict:nth-child(3) code")[-1] == SCRIPT
        assert browser.texts(".conflict:nth-child(4) .side code") == ["9223372036854775807", "-0.0"]
        # Nothing can be done here: this node has no token.
        assert (
            browser.run("return [...document.querySelectorAll('button')].filter(e => e.checkVisibility()).length") == 0
        )
        browser.run(
            "const box = document.getElementById('search'); box.value = 'phone'; box.dispatchEvent(new Event('input'))"
        )
        browser.until(lambda: browser.texts(".conflict .what b") == ["customers.phone"], "the conflict is found")
        assert answers.search == "phone"
        assert browser.text("#conflictNote") == "1 entry found"
        browser.run("document.getElementById('search').value = ''")
        browser.until(lambda: len(browser.texts(".conflict")) == 4, "all are listed again")
        assert browser.run("return document.querySelector('.conflict').open"), "what was opened stays open"

    async with serving_page(cluster_status(), answers) as http:
        await asyncio.to_thread(look)


async def test_with_the_token_conflicts_are_settled_and_snapshots_saved_and_without_it_nothing_is(
    browser: Browser,
) -> None:
    answers = Answers()

    def click(css: str) -> None:
        browser.run("document.querySelector(arguments[0]).click()", css)

    def unlock(token: str) -> None:
        browser.until(lambda: browser.run("return document.getElementById('login').checkVisibility()"), "it asks")
        browser.run("document.getElementById('token').value = arguments[0]", token)
        click("#login button")

    def look() -> None:
        browser.show(http.url)
        assert browser.text("#state") == "healthy", "this machine reads without the token"
        assert not browser.run("return document.getElementById('save').checkVisibility()")
        unlock("wrong" * 5)
        browser.until(lambda: browser.text("#said") == "the token is not right", "the wrong token is refused")
        unlock(TOKEN)
        browser.until(lambda: browser.run("return document.getElementById('save').checkVisibility()"), "it may act")
        whole_page = "return document.querySelector('.conflict .about button')?.checkVisibility()"
        browser.run("document.querySelector('.conflict').open = true")
        browser.until(lambda: browser.run(whole_page), "a conflict can be settled")
        assert browser.run(TWICE, ".conflict .about button") == "Press again to do it", "it is asked for twice"
        browser.until(lambda: answers.done == ["id-1"], "the value is put back")
        click("#save")
        browser.until(lambda: answers.done == ["id-1", "snapshot"], "a snapshot is saved")
        click("#verify")
        browser.until(lambda: answers.done == ["id-1", "snapshot", "verify"], "the nodes are compared")
        shoot(browser, "unlocked")
        click("#lock")
        browser.until(lambda: not browser.run("return document.getElementById('save').checkVisibility()"), "it locks")
        assert browser.complaints() == []

    async with serving_page(cluster_status(), answers, guard=PageGuard(TOKEN)) as http:
        await asyncio.to_thread(look)


async def test_a_plot_tells_what_was_where_one_points_and_has_axes(browser: Browser) -> None:
    def look() -> None:
        whole(browser, http.url)
        assert browser.texts("#lagPlot text")[:3] == ["0\xa0s", "25.0\xa0s", "50.0\xa0s"]
        assert len(browser.texts("#lagPlot text")) >= 6, "there are times below"
        browser.run(POINT)
        assert re.fullmatch(r"oldest message (29|30)\.\d\xa0s", browser.text("#lagPlot figcaption span"))
        assert browser.text("#hourNote").startswith("at ")

    async with serving_page(cluster_status(), Answers()) as http:
        await asyncio.to_thread(look)
