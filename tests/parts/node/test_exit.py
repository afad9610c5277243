"""How a node's process ends: one clear line for every error, tracebacks on demand, and an exit code that says why."""

from __future__ import annotations

import logging

import pytest

from harmonylite.errors import FencedError, ReconnectsSpentError, leaves
from harmonylite.node.exit import ended_by


def group_of(*errors: Exception) -> ExceptionGroup[Exception]:
    """Return the errors as a node's task groups hand them up, each raised where it came from."""
    raised: list[Exception] = []
    for error in errors:
        try:
            raise error
        except type(error) as caught:
            raised.append(caught)
    return ExceptionGroup("tasks", [ExceptionGroup("inner tasks", raised)])


def test_an_error_of_ours_inside_groups_is_one_line_and_keeps_its_exit_code(caplog: pytest.LogCaptureFixture) -> None:
    assert ended_by(group_of(FencedError("another process publishes as n1", advice="rename it"))) == 8
    (record,) = caplog.records
    assert record.getMessage() == "another process publishes as n1; rename it"
    assert record.exc_info is None


def test_an_unforeseen_error_is_one_line_that_says_what_and_where(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert ended_by(group_of(ZeroDivisionError("by zero"))) == 1
    (record,) = caplog.records
    assert "ZeroDivisionError: by zero (test_exit.py, line" in record.getMessage()
    assert "-verbose" in record.getMessage()
    assert record.exc_info is None


def test_with_verbose_an_unforeseen_error_shows_its_own_traceback(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    assert ended_by(group_of(ZeroDivisionError("by zero"))) == 1
    assert "raise error" in caplog.text
    assert "Traceback" in caplog.text
    assert "-verbose" not in caplog.text


def test_an_unforeseen_error_beside_one_of_ours_decides_and_both_are_told(caplog: pytest.LogCaptureFixture) -> None:
    group = group_of(ReconnectsSpentError("maximum reconnects reached"), RuntimeError("odd"))
    assert ended_by(group) == 1
    assert [record.levelname for record in caplog.records] == ["ERROR", "CRITICAL"]


def test_single_errors_are_found_in_any_depth_and_order() -> None:
    one, two = ValueError("1"), KeyError("2")
    assert leaves(ExceptionGroup("a", [ExceptionGroup("b", [one]), two])) == [one, two]
    assert leaves(one) == [one]
