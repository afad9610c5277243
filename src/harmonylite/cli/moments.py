"""A point in time as a user writes it: a time, a time of today or yesterday, or how long ago.

Invariant: a text has one meaning, in the machine's time zone unless it names one, and a future time is refused.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from harmonylite.errors import ConfigError

UNITS = {"w": "weeks", "d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
AGO = re.compile(r"-((?:\d{1,9}[wdhms])+)")
DAYS = {"today": 0, "yesterday": 1}

ADVICE = "write it as 2026-11-20T10:00, 2026-11-20T10:00Z, `yesterday 18:00`, 18:00 or -2h30m"


def moment(text: str, now: datetime) -> float:
    """Return the moment in seconds since the epoch. ``now``: with its time zone. Raises ConfigError."""
    try:
        found = _parsed(text.strip(), now)
        seconds = found.timestamp()
    except (ValueError, OverflowError, OSError):
        raise ConfigError(f"-at {text!r} is not a time", advice=ADVICE) from None
    if seconds > now.timestamp():
        raise ConfigError(f"-at {text!r} is in the future: {found:%Y-%m-%d %H:%M:%S %Z}", advice=ADVICE)
    return seconds


def _parsed(text: str, now: datetime) -> datetime:
    if ago := AGO.fullmatch(text):
        parts = re.findall(r"(\d+)([wdhms])", ago[1])
        return now - sum((timedelta(**{UNITS[unit]: int(count)}) for count, unit in parts), timedelta())
    day, _, clock = text.partition(" ")
    if day.lower() in DAYS or re.fullmatch(r"\d{1,2}:\d{2}(:\d{2})?", text):
        days, clock = (DAYS[day.lower()], clock) if day.lower() in DAYS else (0, text)
        date = now.date() - timedelta(days=days)
        hour, minute, second = (*map(int, (clock.strip() or "0:0").split(":")), 0)[:3]
        # the zone's offset of that day, not of today
        return datetime(date.year, date.month, date.day, hour, minute, second).astimezone()
    return datetime.fromisoformat(text).astimezone()
