"""What all tiers share: fixtures are found in every `fix_*.py`, Hypothesis gets its profiles."""

from __future__ import annotations

import asyncio
import os
from asyncio import selector_events
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests import scratch
from tests.needs import left_out
from tests.order import dealt

scratch.choose(os.environ)

HERE = Path(__file__).parent

pytest_plugins = sorted(
    ".".join(("tests", *path.relative_to(HERE).with_suffix("").parts)) for path in HERE.rglob("fix_*.py")
)

# CI repeats itself exactly, so that red means the change and not the day; on a desk every run looks elsewhere.
settings.register_profile("desk", deadline=None, print_blob=True)
settings.register_profile("ci", deadline=None, print_blob=True, derandomize=True, max_examples=200)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "desk"))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let each worker begin with its share of the slow tests, once the order is random."""
    slow = [item for item in items if item.get_closest_marker("slow")]
    others = [item for item in items if not item.get_closest_marker("slow")]
    items[:] = dealt(slow, others, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say in one line which tests were left out, and what would let them run."""
    skipped = [report.longrepr for report in terminalreporter.stats.get("skipped", [])]
    line = left_out(found[2].removeprefix("Skipped: ") for found in skipped if isinstance(found, tuple))
    if line:
        terminalreporter.write_line(line, yellow=True)


@pytest.fixture(scope="session", autouse=True)
def closed_loops() -> Iterator[None]:
    """Let no event loop of a test end with a connection open.

    The garbage collector would close it during some later test, and that one would fail. ``_transports`` is a private
    name of asyncio's, the same from Python 3.11 to 3.14: the loop's transports by descriptor.
    """
    close = selector_events.BaseSelectorEventLoop.close

    def checked(loop: selector_events.BaseSelectorEventLoop) -> None:
        transports = list(getattr(loop, "_transports", {}).values())
        if transports and not loop.is_closed():
            loop.run_until_complete(_ended(transports))
        left = [transport for transport in transports if transport.get_extra_info("socket").fileno() != -1]
        for transport in left:
            transport.abort()
        if left:
            loop.run_until_complete(_ended(left))
        close(loop)
        assert not left, f"open when its event loop closed: {left}"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selector_events.BaseSelectorEventLoop, "close", checked)
        yield


async def _ended(transports: list[asyncio.Transport]) -> None:
    """Give transports that are closing the turns of the loop that they need for it."""
    for _ in range(5):
        if any(transport.is_closing() for transport in transports):
            await asyncio.sleep(0)


@pytest.fixture(scope="session", autouse=True)
def state_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give what is kept for this user, such as the secret of a cluster, a place of its own, in child processes too."""
    home = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(home))
        yield home
