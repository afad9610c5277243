"""A change set of any size takes a bounded amount of memory on its way through a node."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import apsw
import pytest

from tests.parts.db.fix_replicas import Group

ROOT = Path(__file__).parents[4]


def side(name: str, folder: Path, rows: int, size: int) -> dict[str, Any]:
    """Run one side of `tests.parts.db.large` in a process of its own."""
    command = [sys.executable, "-m", "tests.parts.db.large", name, str(folder), str(rows), str(size)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "src")))}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=env, timeout=500)
    assert done.returncode == 0, done.stderr
    took: dict[str, Any] = json.loads(done.stdout)
    return took


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("rows", "size", "most"), [(400_000, 16, 150), (24, 8_000_000, 200)], ids=["many", "large"])
def test_a_huge_change_set_is_captured_staged_and_applied_in_bounded_memory(
    tmp_path: Path, rows: int, size: int, most: int
) -> None:
    """``most``: MB of resident memory, however many rows there are; 5,000,000 stay below it, too."""
    wrote, read = (side(name, tmp_path, rows, size) for name in ("write", "read"))
    assert wrote["digest"] == read["digest"]
    assert (tmp_path / "messages").stat().st_size > 1_000_000
    assert max(wrote["MB"], read["MB"]) < most, (wrote, read)


def test_one_row_that_is_larger_than_a_message_travels_in_several(group: Group) -> None:
    a, b = group.several(2, "CREATE TABLE t(id INTEGER PRIMARY KEY, body BLOB)")
    body = os.urandom(3_000_000)
    a.run("INSERT INTO t VALUES (1, ?)", (body,))
    a.capture()
    assert a.flight is not None
    assert len(a.flight.parts[0]) > 3
    assert max(len(payload) for payload in a.flight.payloads(0)) < 1_000_000
    a.publish()
    assert group.equal("t") == [(1, body)]
    b.run("UPDATE t SET body = ? WHERE id = 1", (body[::-1],))
    assert group.equal("t") == [(1, body[::-1])]


def test_a_change_set_larger_than_a_value_may_be_is_applied(group: Group) -> None:
    """SQLite's limit for one value is 1,000,000,000 bytes; a transaction of many blobs may well be larger."""
    a, b = group.several(2, "CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB)")
    for member in (a, b):
        member.replica.connection.limit(apsw.SQLITE_LIMIT_LENGTH, 2_000_000)
    a.run("INSERT INTO t SELECT column1, randomblob(1000000) FROM (VALUES (1), (2), (3))")
    found = group.equal("t")
    assert [key for key, _ in found] == [1, 2, 3]
    b.run("UPDATE t SET v = x'00'")
    assert group.equal("t") == [(1, b"\0"), (2, b"\0"), (3, b"\0")]
