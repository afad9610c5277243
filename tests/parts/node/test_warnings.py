"""What a node warns of is logged when it begins, and once, however often the node opens its files and joins."""

from __future__ import annotations

import asyncio
import sys
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from tests.parts.fix_nats import RealNats, eventually
from tests.parts.replication.fix_nodes import Running, write


async def test_a_warning_is_logged_once_also_by_a_node_whose_file_is_overwritten_under_it(
    nats: RealNats, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    node = Running(tmp_path, "here", nats.url, "CREATE TABLE keyless(a)")
    await node.start()
    write(node.database, "INSERT INTO item VALUES('one')")
    copy = tmp_path / "copy.db"
    with closing(apsw.Connection(str(node.database))) as application:
        application.execute("VACUUM INTO ?", (str(copy),))
    # not by this process, whose SQLite has locks on the file
    command = (
        f"import pathlib; pathlib.Path({str(node.database)!r}).write_bytes(pathlib.Path({str(copy)!r}).read_bytes())"
    )
    await (await asyncio.create_subprocess_exec(sys.executable, "-c", command)).wait()
    await eventually(lambda: "overwritten" in node.node.status_object.warnings, "the node names it")
    await node.stop()
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    for what in ("keyless", "was overwritten at"):
        assert len([each for each in said if what in each]) == 1, said
