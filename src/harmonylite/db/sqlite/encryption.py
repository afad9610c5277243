"""Distinguish an encrypted SQLite file from a damaged one, by its bytes.

Invariant: nothing is written, and what has any plain page is never called encrypted. SQLCipher, SQLite3MC and SEE
leave bytes that are spread like random ones; pages of SQLite's never are: they have text, small numbers, room of zeros.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

HEADER = b"SQLite format 3\0"
PLAIN_START = 100
"""Bytes at a file's begin that may be plain in an encrypted one: the header."""
SMALLEST_PAGE = 512
SAMPLE = 4096
PLACES = 16
"""How many places of a file are looked at, the first page among them."""
LEAST = 480
"""Bytes below which nothing is said of a sample: the smallest page without its header has about that many."""
MOST_SPREAD = 420.0
"""What chi-squared of random bytes stays below (255 on average, standard deviation 23); that of text is thousands."""


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
