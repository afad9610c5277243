"""Objects as files: names that every file system, URL and bucket accepts unchanged, and files that are written whole.

Invariant: `file_name` and `object_name` are each other's inverse, two objects never have one file name, and no file
name begins with a dot: such files are unfinished uploads. The target of a download is the whole object, on disk, or
what it was before; nothing is left behind otherwise.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, unquote_to_bytes


def file_name(name: str) -> str:
    """Return the file name of object ``name``: letters, digits, ``_.-~`` stay, other bytes become ``=XX``."""
    # "=" is a safe escape where "%" would be decoded once more on the way through a URL.
    quoted = quote(name.encode("utf-8", "surrogateescape"), safe="").replace("%", "=")
    return f"=2E{quoted[1:]}" if quoted.startswith(".") else quoted


def object_name(found: str) -> str | None:
    """Return the object that the file ``found`` holds, None if it isn't ours."""
    name = unquote_to_bytes(found.replace("=", "%")).decode("utf-8", "surrogateescape")
    return name if name and file_name(name) == found else None


def object_names(found: list[str]) -> list[str]:
    """Return the objects among the files ``found``, sorted."""
    return sorted(name for each in found if (name := object_name(each)) is not None)


def upload_name(owner: str) -> str:
    """Return a new name for an unfinished upload of ``owner``."""
    return f"{_uploads(owner)}{secrets.token_hex(6)}.part"


def abandoned(owner: str, found: list[str]) -> list[str]:
    """Return the uploads among the files ``found`` that ``owner`` began and did not finish."""
    upload = re.compile(rf"{re.escape(_uploads(owner))}[0-9a-f]{{12}}\.part")
    return [name for name in found if upload.fullmatch(name)]


def _uploads(owner: str) -> str:
    return f".harmonylite.{file_name(owner)}."


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
