"""Where a fetched object is written to: a file beside its target, which replaces the target once it is whole.

Invariant: the target is the whole object, on disk, or what it was before; nothing is left behind otherwise.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """Give the file to write to; it becomes ``target`` unless the block raises. Raises OSError."""
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        yield part
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def to_disk(file: BinaryIO) -> None:
    """Have everything that was written to ``file`` on the disk; raises OSError."""
    file.flush()
    os.fsync(file.fileno())
