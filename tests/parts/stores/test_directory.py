"""A snapshot in a directory is as private as the directory: the node's user's, and at most its group's."""

from __future__ import annotations

import os
from itertools import product
from pathlib import Path

import pytest

from harmonylite.stores.directory import DirectoryStore


@pytest.mark.parametrize(("folder_mode", "mask"), list(product([0o700, 0o750, 0o770, 0o755, 0o777], [0, 0o022, 0o077])))
async def test_who_may_read_what_is_stored_and_fetched(tmp_path: Path, folder_mode: int, mask: int) -> None:
    (tmp_path / "source").write_bytes(b"rows")
    folder = tmp_path / "store"
    folder.mkdir()
    folder.chmod(folder_mode)
    store = DirectoryStore(folder, owner="a")
    before = os.umask(mask)
    try:
        await store.put("snapshot-1", tmp_path / "source")
        await store.get("snapshot-1", tmp_path / "fetched")
    finally:
        os.umask(before)
    assert (folder / "snapshot-1").stat().st_mode & 0o777 == 0o600 | (folder_mode & 0o040 & ~mask)
    assert (tmp_path / "fetched").stat().st_mode & 0o777 == 0o600
