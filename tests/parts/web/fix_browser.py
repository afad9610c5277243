"""A real chromium without a window, to look at the page with; one for all tests of a worker.

Invariant: no page stays open after its test, and nothing is fetched: driver and browser are the system's packages
`chromium` and `chromium-driver`, where the machine has them (`tests/needs.py`).
"""

from __future__ import annotations

import base64
import os
import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

from tests.needs import CHROMIUM

SECONDS = 60.0


class Browser:
    """What the tests do with a browser. Blocks: call it in a thread where the page's server is in this process."""

    def __init__(self, driver: Chrome) -> None:
        self._driver = driver

    def show(self, url: str, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Open ``url`` in a window of ``width`` by ``height`` and wait until the page has heard of its node."""
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self._driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
        self._driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self._driver.get(url)
        self.until(lambda: self.text("#version") != "", "the page shows what the node says")

    def run(self, script: str, *arguments: Any) -> Any:
        """Run ``script`` in the page; return what it returns."""
        return self._driver.execute_script(script, *arguments)

    def text(self, css: str) -> str:
        """Return the text of the first element found."""
        return str(self.run("return document.querySelector(arguments[0])?.textContent ?? ''", css))

    def texts(self, css: str) -> list[str]:
        """Return the text of every element found."""
        return list(self.run("return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)", css))

    @property
    def title(self) -> str:
        """The title of the tab."""
        return self._driver.title

    def press(self, key: str) -> None:
        """Press a key, as on a keyboard."""
        for kind in ("keyDown", "keyUp"):
            self._driver.execute_cdp_cmd("Input.dispatchKeyEvent", {"type": kind, "key": key, "code": key})

    def named(self) -> list[tuple[str, str]]:
        """Return role and name of everything that a screen reader is told of, in order."""
        tree = self._driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
        told = [node for node in tree if not node["ignored"]]
        return [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in told]

    def complaints(self) -> list[str]:
        """Return what the console was told since the last time, but for answers that did not come."""
        lines = self._driver.get_log("browser")  # type: ignore[no-untyped-call]  # as selenium has it
        return [line["message"] for line in lines if line["source"] != "network"]

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait until ``condition`` holds."""
        deadline = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < deadline, (
                f"not within {SECONDS:.0f} s: {what}; the page says {self.texts('#state, #why li, #doing')}, "
                f"the console {self.complaints()}"
            )
            time.sleep(0.05)

    def picture(self) -> bytes:
        """Return the whole page as PNG."""
        found = self._driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
        return base64.b64decode(found["data"])

    def leave(self) -> None:
        """Close the page, and forget what it kept."""
        self.run("try { sessionStorage.clear() } catch {}")
        self._driver.get("about:blank")
        self.complaints()


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """The browser, started."""
    found, driver = shutil.which("chromium"), shutil.which("chromedriver")
    CHROMIUM.skip()
    assert found
    assert driver
    options = ChromeOptions()
    options.binary_location = found
    # Containers often give no user namespaces and a small /dev/shm; only pages of this machine are opened.
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "disable-quic"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # What it leaves of its files goes with the tests' folder.
    places = {**os.environ, "TMPDIR": str(tmp_path_factory.mktemp("chromium"))}
    running = Chrome(options=options, service=Service(driver, env=places))
    try:
        yield Browser(running)
    finally:
        running.quit()


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    """The browser, for one test."""
    yield chromium
    chromium.leave()
