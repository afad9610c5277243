"""In which order tests are given to the workers of a run: each begins with its share of the slow ones.

Invariant: a run has the same tests, and the others stay in the order that they had. A slow test that begins last is
what all other workers wait for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def dealt(slow: Sequence[T], others: Sequence[T], workers: int) -> list[T]:
    """Return all of both, for ``workers`` that get equal pieces of the list, as pytest-xdist's worksteal cuts it."""
    found, left, total = list[T](), list(others), len(slow) + len(others)
    for worker in range(workers):
        first = slow[worker::workers]
        more = max(0, (total - len(found)) // (workers - worker) - len(first))
        found += [*first, *left[:more]]
        del left[:more]
    return found + left
