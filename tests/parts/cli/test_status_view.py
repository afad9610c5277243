"""The terminal's view of a node and of a cluster: complete, plain, and safe to print."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from harmonylite.cli.status_view import duration, render, render_cluster
from tests.parts.web.fix_http import running_status

if TYPE_CHECKING:
    from rich.console import RenderableType


def printed(what: RenderableType, width: int = 120) -> str:
    console = Console(width=width, force_terminal=True, color_system="truecolor", legacy_windows=False)
    with console.capture() as capture:
        console.print(what)
    return capture.get()


def plain(what: RenderableType, width: int = 120) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(what)
    return capture.get()


def test_a_healthy_node_shows_its_state_and_numbers() -> None:
    status = running_status()
    status.pending_rows, status.counters.conflicts = 1234, 2
    text = plain(render(status.report()))
    assert "7  healthy  /data/shop.db" in text
    assert "1,234" in text
    assert "capture" in text
    assert "nats://127.0.0.1:4222" in text


def test_an_ill_node_shows_why() -> None:
    status = running_status()
    status.nats_connected = False
    status.part("fold").waiting("no connection to NATS since 12:00")
    text = plain(render(status.report()))
    assert "unhealthy" in text
    assert "NATS is not connected" in text
    assert text.count("no connection to NATS since 12:00") == 2


@pytest.mark.parametrize("evil", ["\x1b]0;owned\x07", "\x1b[2J", "a\nb", "\u202e"])
def test_no_escape_sequence_from_a_report_reaches_the_terminal(evil: str) -> None:
    status = running_status()
    status.node_id = status.db_path = status.version = status.nats_server = evil
    status.part(evil).waiting(evil)
    status.warnings[evil] = evil
    for what in (render(status.report()), render_cluster([status.report()])):
        assert evil not in printed(what)
        assert evil not in plain(what)


def test_markup_in_a_report_is_shown_and_not_obeyed() -> None:
    status = running_status()
    status.part("fold").waiting("[bold]table [/nope] is gone")
    assert "[bold]table [/nope] is gone" in plain(render(status.report()))
    assert "[bold]table [/nope] is gone" in plain(render_cluster([status.report()]))


def test_a_cluster_is_one_line_a_node_with_reasons_below() -> None:
    here, there = running_status(), running_status()
    there.node_id, there.caught_up, there.shard(0).last = "8", False, 1042
    there.part("fold").waiting("the database is locked")
    text = plain(render_cluster([here.report(), there.report(), {"node_id": "9", "status": "unknown"}]))
    lines = [line.split() for line in text.splitlines()]
    assert lines[1][:4] == ["7", "healthy", "0", "0.0"]
    assert lines[2][:4] == ["8", "catching", "up", "1,000"]
    assert lines[3][:3] == ["9", "unknown", "-"]
    assert "8  fold: the database is locked" in text


@pytest.mark.parametrize("report", [{}, {"status": "healthy"}, {"shards": [{}], "parts": {"fold": {}}}])
def test_a_report_with_gaps_is_shown_as_far_as_it_goes(report: dict[str, object]) -> None:
    assert plain(render(report)).strip()
    assert plain(render_cluster([report])).strip()


def test_a_narrow_terminal_loses_no_reason() -> None:
    status = running_status()
    status.part("fold").waiting("table orders has no column note here")
    assert "note" in plain(render(status.report()), width=40)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59, "59 s"), (61, "1 min"), (12_000, "3 h 20 min"), (187_200, "2 d 4 h")]
)
def test_durations_read_like_speech(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize("held", [0, 12])
def test_a_cluster_fits_a_screen_of_80_columns(held: int) -> None:
    reports = []
    for number in range(12):
        status = running_status()
        status.node_id, status.version, status.caught_up = f"production-{number:05}", "10.12.3", number % 2 == 0
        status.shard(0).last, status.pending_rows, status.counters.conflicts = 9_999_942, 123_456, 1_234
        status.held_rows = held if number == 3 else 0
        reports.append(status.report())
    reports.append({"node_id": "gone", "status": "unknown"})
    lines = plain(render_cluster(reports), width=80).splitlines()
    assert len(lines) == 14, "a line for each node"
    assert max(map(len, (line.rstrip() for line in lines))) <= 80
    assert ("held" in lines[0]) is bool(held)
    assert all(line.split()[0] == report["node_id"] for line, report in zip(lines[1:], reports, strict=True))
