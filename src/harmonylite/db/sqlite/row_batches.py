"""Read many rows in steps: large enough to be quick, small enough for memory whatever a row holds.

Invariant: every row comes once, in order.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from harmonylite.model import RawText

STEP_BYTES = 4_000_000
"""A step is of about so many bytes, estimated by its first row."""


def step(found: Iterator[tuple[Any, ...]], most: int) -> list[tuple[Any, ...]]:
    """Return the next ``most`` rows, fewer where the first one is large; none at the end."""
    first = next(found, None)
    if first is None:
        return []
    large = sum(_length(value) for value in first)
    return [first, *islice(found, min(most - 1, STEP_BYTES // (large + 1)))]


def _length(value: object) -> int:
    if isinstance(value, str | bytes):
        return len(value)
    return len(value.data) if isinstance(value, RawText) else 0
