"""The sender waits between change sets while an application writes a lot, and not at all after a lone write."""

from __future__ import annotations

from harmonylite.replication.sending import GATHER, pause_after


def test_a_lone_write_is_followed_at_once() -> None:
    assert pause_after(rows=1, logged=0) == 0, "a new row, which its rowid tells"
    assert pause_after(rows=1, logged=1) == 0


def test_many_writes_to_one_row_gather_as_writes_to_many_rows_do() -> None:
    assert pause_after(rows=1, logged=100) == pause_after(rows=100, logged=100) > 0


def test_the_pause_is_bounded() -> None:
    assert pause_after(rows=1_000_000, logged=0) == pause_after(rows=1, logged=1_000_000) == GATHER
