"""Unfinished change sets of many writers wait on the disk: memory stays flat, files few."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO

from harmonylite.changes.fragments import OPEN_KEPT
from harmonylite.changes.reassembler import Reassembler
from harmonylite.model import ChangeSetId, Position, StreamMessage
from tests.rules.changes.fix_streams import envelope

WRITERS, EACH, PIECE = 250, 20, 50_000


def test_250_writers_of_a_megabyte_each_take_no_more_than_a_few(tmp_path: Path) -> None:
    def spool(most: int) -> IO[bytes]:
        return SpooledTemporaryFile(max_size=most, dir=str(tmp_path))

    reassembler, body = Reassembler({0: Position(0)}, spool=spool), bytes(PIECE)
    files = len(list(Path("/proc/self/fd").iterdir()))
    tracemalloc.start()
    try:
        for index in range(EACH):
            for number in range(WRITERS):
                name = ChangeSetId(f"writer-{number}", "s", 1)
                payload = envelope(name, index, last=False, more=True, shards=[0], body=body)
                seq = index * WRITERS + number + 1
                reassembler.add(StreamMessage(0, seq, f"p.0.{name.node}", payload))
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(reassembler.begun(0)) == OPEN_KEPT
    assert {count for _, count in reassembler.begun(0)} == {EACH}
    assert held < peak < 30_000_000, "of 64 MB that are under way, and 250 MB that came"
    assert len(list(Path("/proc/self/fd").iterdir())) <= files + OPEN_KEPT
    reassembler.close()
