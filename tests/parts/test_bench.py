"""The benchmark tells the truth: its children count and time rightly, and a missed budget is a failure."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from bench.machine import child, make_file, result, write
from bench.report import Budget, Row, last_values, save, show
from bench.soak import GREW, GROWTH, STREAM_ENTRIES, grown, judged

ROWS = [
    Row("kept", 0.8, "", Budget("at least", 0.75, 0.85)),
    Row("latency", 16.0, "ms", Budget("at most", 15), "slow [today]", {"latency_ms": [1.0, 2.0, 16.0]}),
    Row("cost", 1.0, "x", Budget("at most", 1.5), "", {"rows": [10.0, 100.0], "microseconds": [5.0, 5.0]}),
]


def test_a_budget_is_a_limit_in_one_direction() -> None:
    assert Budget("at least", 0.75).met(0.75)
    assert not Budget("at least", 0.75).met(0.74)
    assert Budget("at most", 3).met(3)
    assert not Budget("at most", 3).met(3.01)


def test_the_table_shows_every_row_with_its_verdict() -> None:
    sink = io.StringIO()
    show(ROWS, Console(file=sink, width=160))
    text = sink.getvalue()
    assert text.count("pass") == 2
    assert text.count("FAIL") == 1
    assert "slow [today]" in text


def test_results_are_saved_as_json_and_as_a_plot(tmp_path: Path) -> None:
    save(ROWS, {"cores": 2}, tmp_path / "results")
    saved = json.loads((tmp_path / "results" / "results.json").read_text())
    assert [row["ok"] for row in saved["rows"]] == [True, False, True]
    assert (tmp_path / "results" / "results.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_shows_what_each_row_was_the_last_time(tmp_path: Path) -> None:
    assert last_values(tmp_path) == {}
    save(ROWS, {"cores": 2}, tmp_path)
    save([Row("latency", 20.0, "ms", None)], {"cores": 2}, tmp_path)
    last = last_values(tmp_path)
    assert last == {"kept": 0.8, "latency": 20.0, "cost": 1.0}
    sink = io.StringIO()
    show([Row("latency", 15.0, "ms", None), Row("new", 1.0, "", None)], Console(file=sink, width=160), last)
    assert "20 (-25 %)" in sink.getvalue()


def test_a_series_that_grows_is_told_from_one_that_does_not() -> None:
    flat = [{"memory_mb": 60.0 + n % 3} for n in range(100)]
    assert grown(flat, "memory_mb") == pytest.approx(1, abs=0.05)
    assert judged(flat, "memory_mb", GROWTH["memory_mb"]) != GREW
    assert grown([{"memory_mb": 60.0 + n} for n in range(100)], "memory_mb") > GROWTH["memory_mb"]


def test_a_steady_application_keeps_so_many_rows(tmp_path: Path) -> None:
    for seconds in (1.0, 30.0):  # the longer time is for a machine that stood still in the shorter one
        file = make_file(tmp_path / f"{seconds}.db")
        done = result(child("mix", file, count=7, first=10**9, seconds=seconds))
        if done["commits"] > 21:
            break
    seen = result(child("watch", file, count=7, seconds=0.5))["seen"]
    assert done["commits"] > 21
    assert 7 <= seen[-1][0] <= 8


def test_a_writer_and_an_onlooker_agree_on_what_happened_when(tmp_path: Path) -> None:
    file = make_file(tmp_path / "t.db")
    onlooker = child("watch", file, count=30, pause=0.0001)
    written = write(file, count=30, per_commit=10, pause=0.01)
    seen = result(onlooker)["seen"]
    assert {count for count, _ in seen} <= {0, 10, 20, 30}, "never a part of a transaction"
    assert seen[-1][0] == 30
    assert len(written["commits"]) == 3
    for count, when in seen[1:]:
        # A commit is visible before its writer's COMMIT returns, how long before is the scheduler's affair; the one
        # before it had returned when it began.
        assert count == 10 or when >= written["commits"][count // 10 - 2]


def test_an_onlooker_gives_up_in_time(tmp_path: Path) -> None:
    assert result(child("watch", make_file(tmp_path / "t.db"), count=1, seconds=0.2))["seen"][-1][0] == 0


def test_a_child_that_fails_is_an_error(tmp_path: Path) -> None:
    file = make_file(tmp_path / "t.db")
    write(file, count=1)
    with pytest.raises(RuntimeError, match="ended with"):
        write(file, count=1)


def test_updates_change_every_row_once_a_round_and_deletes_leave_none(tmp_path: Path) -> None:
    file = make_file(tmp_path / "t.db")
    write(file, count=30)
    onlooker = child("watch", file, count=30, progress="update")
    write(file, statement="update", count=30, per_commit=30)
    assert result(onlooker)["seen"][-1][0] == 30
    write(file, statement="update", count=5, among=1, values=1000)
    assert result(child("watch", file, count=1004, progress="value"))["seen"][-1][0] == 1004
    write(file, statement="delete", count=30, per_commit=10)
    assert result(child("watch", file, count=0, progress="delete"))["seen"] == [[0, pytest.approx(0, abs=1e9)]]


def test_a_row_that_is_not_there_to_be_written_is_an_error(tmp_path: Path) -> None:
    file = make_file(tmp_path / "t.db")
    write(file, count=2)
    with pytest.raises(RuntimeError, match="ended with"):
        write(file, statement="delete", count=3)


@pytest.mark.parametrize(("published", "grew"), [(0.5, False), (1.0, True)])
def test_a_stream_may_grow_until_it_holds_what_it_keeps(published: float, grew: bool) -> None:
    growing = [{"stream_mb": 1.0 + n, "published": published * STREAM_ENTRIES} for n in range(100)]
    assert (judged(growing, "stream_mb", GROWTH["stream_mb"]) == GREW) is grew
