"""A snapshot as a file: zstd over the SQLite file, in a stream of bounded memory, with its SHA-256 known.

Invariant: what `unpack` returns has the digest that was asked for; anything else is an error and leaves no file.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from harmonylite.errors import SnapshotDamagedError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

CHUNK = 1 << 20
LEVEL = 1
"""How hard zstd tries: a snapshot is to be done soon, and the next levels make it little smaller."""


def pack(source: Path, target: Path) -> str:
    """Compress ``source`` into ``target``; return the SHA-256 of the uncompressed bytes as hexadecimal text."""
    digest = hashlib.sha256()
    with source.open("rb") as plain, zstd.open(target, "wb", level=LEVEL) as packed:
        while chunk := plain.read(CHUNK):
            digest.update(chunk)
            packed.write(chunk)
    return digest.hexdigest()


def unpack(source: Path, target: Path, digest: str) -> None:
    """Decompress ``source`` into ``target``; raises SnapshotDamagedError when it is cut off, damaged or another one."""
    found = hashlib.sha256()
    try:
        with zstd.open(source, "rb") as packed, target.open("wb") as plain:
            while chunk := packed.read(CHUNK):
                found.update(chunk)
                plain.write(chunk)
    except (zstd.ZstdError, EOFError) as error:
        target.unlink(missing_ok=True)
        raise SnapshotDamagedError(f"the snapshot {source.name} is damaged: {error}") from error
    if found.hexdigest() != digest:
        target.unlink(missing_ok=True)
        raise SnapshotDamagedError(f"the snapshot {source.name} is not the one that was saved: its digest differs")
