"""Every value that SQLite can hold, for Hypothesis, and what tells two of them apart."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from harmonylite.model import RawText


def _is_text(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


INTS = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([2**53 + 1, -(2**63), 2**63 - 1, 0])
FLOATS = st.floats(allow_nan=False) | st.sampled_from([-0.0, float("inf"), float("-inf"), 5e-324])
TEXTS = st.text() | st.sampled_from(["", "\0", "a\0b", "é", "\U0010ffff"])
RAW_TEXTS = st.binary(min_size=1).filter(lambda data: not _is_text(data)).map(RawText)
VALUES: st.SearchStrategy[Any] = st.none() | INTS | FLOATS | TEXTS | RAW_TEXTS | st.binary()
"""NaN is not among them: SQLite stores NULL in its place."""
ROWS = st.lists(VALUES, min_size=1, max_size=4)


def bits(value: object) -> str:
    """Return what tells apart all that SQLite tells apart: 1 from 1.0, 0.0 from -0.0, text from blob."""
    return f"{type(value).__name__}:{value!r}"
