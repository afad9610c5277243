"""Seeds as a command line names them."""

from __future__ import annotations


def seeds(text: str) -> range:
    """Return the seeds that ``17`` or ``1..1000`` means."""
    first, dots, last = text.partition("..")
    return range(int(first), int(last if dots else first) + 1)
