"""The tutorial by hand, in a real browser: write here, see it there, pull the plug, conflict, migrate.

`tests/docs/test_tutorial.py` runs the page's commands; here a person clicks in the pages of application and node.
"""

from __future__ import annotations

import os
import sys
from contextlib import closing
from pathlib import Path

import apsw
import pytest
from selenium.common.exceptions import WebDriverException

from tests.cluster.fix_cluster import Site
from tests.cluster.processes import Node, Running, until
from tests.parts.web.fix_browser import Browser
from tests.ports import free_port

pytestmark = pytest.mark.timeout(300)

APP = Path(__file__).parents[2] / "examples" / "notes" / "app.py"
TYPE = """
window.submitted = true;
const form = [...document.forms].find(f => f.elements.text.value === arguments[0]);
form.elements.text.value = arguments[1]; form.querySelector("button").click();
"""
NOTES = "return [...document.forms].map(f => f.elements.text.value).filter(Boolean).sort()"


class Place:
    """A node and the application beside it. ``url``: of the application's page."""

    def __init__(self, site: Site, name: str, url: str) -> None:
        self.node: Node = site.node(name, urls=[url], tables=None)
        self.app = site._keep(Running(f"app-{name}", self.node.folder))
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/"

    def open(self) -> None:
        """Start the application, unchanged."""
        self.app.spawn([sys.executable, str(APP), str(self.node.db), str(self.port)])


def notes(browser: Browser, place: Place) -> list[str]:
    """Load the application's page; return the notes on it, nothing while it is not up."""
    try:
        browser._driver.get(place.url)
    except WebDriverException as error:
        if "ERR_CONNECTION_REFUSED" not in str(error):
            raise
        return []
    return list(browser.run(NOTES))


def shows(browser: Browser, place: Place, text: str) -> bool:
    """Load the application's page; return whether it has a form with ``text``, "": the empty one for another note."""
    notes(browser, place)
    return bool(browser.run("return [...document.forms].some(f => f.elements.text?.value === arguments[0])", text))


def write(browser: Browser, place: Place, old: str, new: str) -> None:
    """Put ``new`` in the place of ``old`` ("": add it) as a person does, and see it."""
    until(lambda: shows(browser, place, old), f"the page shows {old!r}")
    browser.run(TYPE, old, new)
    # opening another page before the browser has this one's answer could cancel what was sent
    browser.until(lambda: not browser.run("return window.submitted ?? false"), f"{new!r} is sent")
    until(lambda: new in notes(browser, place), f"{new!r} is there")


def test_write_here_see_it_there_pull_the_plug_conflict_and_migrate(site: Site, browser: Browser) -> None:
    server = site.server()
    left, right = (Place(site, name, server.url) for name in ("left", "right"))
    left.open()
    until(left.node.db.exists, "the application has made its file")
    left.node.start()
    left.node.ready()
    write(browser, left, "", "buy milk")
    right.node.start()
    right.node.ready()
    right.open()
    until(lambda: notes(browser, right) == ["buy milk"], "the note that was there before")
    write(browser, right, "", "buy bread")
    until(lambda: notes(browser, left) == ["buy bread", "buy milk"], "what was written there")

    server.kill()
    write(browser, left, "buy milk", "buy oat milk")
    write(browser, right, "buy milk", "buy two bottles of milk")
    assert notes(browser, left) == ["buy bread", "buy oat milk"]
    assert notes(browser, right) == ["buy bread", "buy two bottles of milk"]
    server.start()
    until(lambda: notes(browser, left) == notes(browser, right), "both sides agree")
    (kept,) = set(notes(browser, left)) - {"buy bread"}

    browser.show(f"http://127.0.0.1:{left.node.port}/")
    browser.until(lambda: browser.texts("#conflictList details"), "the node's page shows the conflict")
    said = browser.text("#conflictList")
    assert "buy oat milk" in said
    assert "buy two bottles of milk" in said
    assert kept in ("buy oat milk", "buy two bottles of milk")
    if folder := os.environ.get("PAGE_SHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / "tutorial.png").write_bytes(browser.picture())

    with closing(apsw.Connection(str(left.node.db))) as migration:
        migration.set_busy_timeout(60_000)
        migration.execute("ALTER TABLE note ADD COLUMN done INTEGER DEFAULT 0; UPDATE note SET done = 1").fetchall()
    column = "SELECT count(*) FROM pragma_table_info('note') WHERE name = 'done'"
    until(lambda: right.node.value(column), "the column is there")
    until(lambda: set(right.node.rows("SELECT done FROM note")) == {(1,)}, "the column's values")
    write(browser, right, "", "buy eggs")
    until(lambda: "buy eggs" in notes(browser, left), "the applications work with the new schema")
