"""The live page of a real node, left open in a real browser: it follows whatever happens to the node."""

from __future__ import annotations

import signal

import pytest

from tests.cluster.fix_cluster import Site, start
from tests.cluster.processes import until, until_equal
from tests.parts.web.fix_browser import Browser

pytestmark = pytest.mark.timeout(300)

HOSTILE = "<script>document.title = 'taken'</script>"
TABLES = f"""
CREATE TABLE fought(id INTEGER PRIMARY KEY, value TEXT);
INSERT INTO fought VALUES (1, 'at first');
CREATE TABLE "{HOSTILE}"(id INTEGER PRIMARY KEY, value TEXT);
"""


def test_an_open_page_follows_its_node_through_writes_an_outage_a_conflict_and_a_restart(
    site: Site, browser: Browser
) -> None:
    server = site.server()
    nodes = [site.node(name, urls=[server.url], tables=TABLES) for name in ("a", "b")]
    start(nodes)
    near, far = nodes
    writers = [site.application(node) for node in nodes]

    def shows(text: str, css: str, what: str) -> None:
        browser.until(lambda: browser.text(css) == text, what)

    browser.show(f"http://127.0.0.1:{near.port}/")
    browser.run("window.same = true")
    shows("healthy", "#state", "the page calls the node healthy")
    browser.until(lambda: browser.title == "node a · HarmonyLite", "so does the tab")
    assert browser.text("#file") == "app.db"
    assert browser.texts("#tables th") == [HOSTILE, "fought"]
    browser.until(lambda: browser.texts("#why li") == [], "nothing is wrong")

    # Rows of another node: counted, drawn and timed.
    position = int(browser.text("#shards td:nth-child(2)").replace(",", ""))
    for n in range(20):
        writers[1].write((f'INSERT INTO "{HOSTILE}" VALUES (?, ?)', [n, HOSTILE]))
    browser.until(
        lambda: int(browser.text("#shards td:nth-child(2)").replace(",", "")) > position, "the position has moved"
    )
    browser.until(lambda: browser.text("#p50").startswith("≤"), "the way from commit to applied is timed")
    drawn = "return [...document.querySelectorAll('#rowsPlot .in')].some(e => /L/.test(e.getAttribute('d') ?? ''))"
    browser.until(lambda: browser.run(drawn), "the rate of rows is drawn")

    # NATS goes away: the page says so, and counts what waits here.
    server.stop()
    shows("unhealthy", "#state", "the page calls the node unhealthy")
    browser.until(lambda: browser.title == "! node a · HarmonyLite", "so does the tab")
    shows("NATS not connected", "#nats", "what is away is said")
    browser.until(
        lambda: [why.partition(": ")[0] for why in browser.texts("#why li")] == ["nats"], "one cause is told once"
    )
    for node, writer in zip(nodes, writers, strict=True):
        writer.write(("UPDATE fought SET value = ? WHERE id = 1", [node.name]))
    writers[0].write(("INSERT INTO fought VALUES (2, 'here')", []))
    shows("2", "#pending", "the page counts the rows that wait")

    # NATS is back: both wrote one row, one of the two is overruled, and the page of its node tells.
    server.start()
    shows("healthy", "#state", "the page calls the node healthy again")
    shows("0", "#pending", "nothing waits any more")
    until_equal(nodes)
    loser = until(lambda: [node for node in nodes if node.status("conflicts")], "somebody was overruled")[0]
    if loser is far:
        browser.show(f"http://127.0.0.1:{far.port}/")
        browser.run("window.same = true")
    shows("1", "#conflicts", "the page counts the conflict")
    browser.until(lambda: len(browser.texts(".conflict")) == 1, "the conflict is listed")
    assert browser.texts(".conflict .side code") in ([["a", "b"], ["b", "a"]])

    # The node itself goes away, first frozen, then ended; the page says so, and recovers without being loaded again.
    loser.signal(signal.SIGSTOP)
    shows("no answer", "#state", "the page says that the frozen node does not answer")
    silent = "the node does not answer (not within 5 s)"
    browser.until(lambda: browser.text("#why li").startswith(silent), "it says in which way it does not")
    loser.signal(signal.SIGCONT)
    shows("healthy", "#state", "the page shows the node that continues")
    assert loser.stop() == 0
    shows("no answer", "#state", "the page says that the ended node does not answer")
    gone = "the node does not answer (no connection)"
    browser.until(lambda: browser.text("#why li").startswith(gone), "it says that nobody takes connections")
    browser.until(lambda: browser.title == f"! node {loser.name} · HarmonyLite", "so does the tab")
    loser.start()
    shows("healthy", "#state", "the page shows the node that was started again")
    shows("0", "#conflicts", "its counters start again")
    assert browser.run("return window.same"), "the page was not loaded again"
    assert browser.complaints() == []
