"""A moment as a person writes it has one meaning, and is never to come."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmonylite.cli.moments import moment
from harmonylite.errors import ConfigError

NOW = datetime(2026, 11, 27, 15, 30, 20, tzinfo=UTC).astimezone()


def local(*parts: int) -> float:
    return datetime(*parts).astimezone().timestamp()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("-2h", NOW.timestamp() - 7200),
        ("-1w2d", NOW.timestamp() - 9 * 86400),
        ("-1h30m10s", NOW.timestamp() - 5410),
        ("yesterday 18:00", local(2026, 11, NOW.day - 1, 18)),
        ("Yesterday", local(2026, 11, NOW.day - 1)),
        ("today 0:05", local(2026, 11, NOW.day, 0, 5)),
        ("today", local(2026, 11, NOW.day)),
        ("0:00:01", local(2026, 11, NOW.day, 0, 0, 1)),
        ("2026-11-20T10:00", local(2026, 11, 20, 10)),
        ("2026-11-20 10:00", local(2026, 11, 20, 10)),
        ("2026-11-20T10:00Z", datetime(2026, 11, 20, 10, tzinfo=UTC).timestamp()),
        ("2026-11-20", local(2026, 11, 20)),
    ],
)
def test_a_moment_is_read_as_it_is_meant(text: str, meant: float) -> None:
    assert moment(text, NOW) == meant


@pytest.mark.parametrize("text", ["2027-01-01", "today 23:59:59+1", "2026-11-27T15:30:21Z", "-0x"])
def test_what_is_to_come_or_no_time_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match="write it as"):
        moment(text, NOW)


def test_the_future_is_called_so() -> None:
    ahead = (NOW + timedelta(hours=1)).isoformat()
    with pytest.raises(ConfigError, match="in the future"):
        moment(ahead, NOW)


@given(st.text("-0123456789wdhms: TZyestrdayo+", max_size=20))
def test_any_text_is_a_moment_that_was_or_refused(text: str) -> None:
    try:
        found = moment(text, NOW)
    except ConfigError as error:
        assert repr(text) in str(error)  # noqa: PT017  # a text that is a moment is none to refuse
    else:
        assert found <= NOW.timestamp()
