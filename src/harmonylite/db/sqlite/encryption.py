"""Distinguish an encrypted SQLite file from a damaged one, by its bytes.

Invariant: it writes nothing, and never calls a file with a plain page encrypted. The bytes that SQLCipher, SQLite3MC
and SEE write are distributed like random ones; SQLite's pages never are: they have text, small numbers and zeros.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

HEADER = b"SQLite format 3\0"
PLAIN_START = 100
"""Bytes at the start of an encrypted file that may be plain: the header."""
SMALLEST_PAGE = 512
SAMPLE = 4096
PLACES = 16
"""How many places of a file are sampled, including the first page."""
LEAST = 480
"""A smaller sample decides nothing, in bytes: the smallest page without its header has about that many."""
MOST_SPREAD = 420.0
"""The upper bound of chi-squared for random bytes (mean 255, standard deviation 23); text has thousands."""


def is_encrypted(path: Path) -> bool:
    """Return whether the file ``path``, which SQLite doesn't read, looks encrypted (or compressed) as a whole."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            first = file.read(SAMPLE)
            samples = [first[PLAIN_START:SMALLEST_PAGE], first[PLAIN_START:]]
            for place in sorted({size * number // PLACES // SAMPLE * SAMPLE for number in range(1, PLACES)} - {0}):
                file.seek(place)
                samples.append(file.read(SAMPLE))
    except OSError:
        return False
    return len(samples[0]) >= LEAST - PLAIN_START and all(
        _is_random(each) for each in samples if len(each) >= LEAST // 2
    )


def _is_random(sample: bytes) -> bool:
    expected = len(sample) / 256
    counts = Counter(sample)
    return sum((counts[byte] - expected) ** 2 for byte in range(256)) / expected < MOST_SPREAD
