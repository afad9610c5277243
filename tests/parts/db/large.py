"""Carry one huge change set through a node, each side in a process of its own; print what it took.

``python -m tests.parts.db.large write FOLDER ROWS BYTES`` commits rows of that many bytes, captures them and takes them
back, and leaves the messages behind; ``… read FOLDER ROWS`` applies those. Both print seconds and the peak of resident
memory as JSON.
"""

from __future__ import annotations

import json
import resource
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import apsw

from harmonylite.changes.reassembler import Reassembler
from harmonylite.db.replica import Replica
from harmonylite.db.replica_options import ReplicaOptions
from harmonylite.model import StreamMessage

MESSAGE_BYTES = 900_000
LENGTH = struct.Struct("<I")


def opened(folder: Path, node: str) -> tuple[Replica, apsw.Connection]:
    """Return a replica of a file of its own, and the application's connection."""
    home = folder / node
    home.mkdir()
    app = apsw.Connection(str(home / "app.db"))
    app.pragma("journal_mode", "wal")
    app.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, n INT)")
    replica = Replica(ReplicaOptions(home / "app.db", home / "mirror", node, "s"))
    replica.open()
    replica.join_first()
    return replica, app


def spooled(most: int) -> IO[bytes]:
    """Return the place where a node stages what is larger than memory should hold."""
    return TemporaryFile()


def megabytes() -> float:
    """Return the peak of this program's resident memory, in MB.

    Linux counts the parent's memory at the fork into ``ru_maxrss``; ``VmHWM`` begins anew with the program.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_000_000
    (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 1000


def write(folder: Path, rows: int, size: int) -> Replica:
    """Insert ``rows`` of ``size`` bytes at once, capture them, take them back; keep the messages in a file."""
    replica, app = opened(folder, "a")
    app.execute(
        "WITH RECURSIVE c(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM c WHERE i < ?1)"
        " INSERT INTO t SELECT i, iif(?2 < 100, 'name of row ' || i, hex(randomblob(?2 / 2))), i * 7 FROM c",
        (rows, size),
    )
    out = replica.capture(1, message_bytes=MESSAGE_BYTES)
    assert out is not None
    with (folder / "messages").open("wb") as kept:
        for payload in out.payloads(0):
            kept.write(LENGTH.pack(len(payload)) + payload)
    out.close()
    apply(replica, folder, rows)
    return replica


def messages(folder: Path) -> Iterator[bytes]:
    """Yield what was published."""
    with (folder / "messages").open("rb") as kept:
        while head := kept.read(LENGTH.size):
            yield kept.read(LENGTH.unpack(head)[0])


def apply(replica: Replica, folder: Path, rows: int) -> None:
    """Stage all messages and apply them."""
    reassembler = Reassembler(replica.positions(), spool=spooled)
    for seq, payload in enumerate(messages(folder), 1):
        reassembler.add(StreamMessage(0, seq, "t.0.a", payload))
    batch = reassembler.take(own=(replica.options.node, replica.options.session))
    assert batch is not None
    assert replica.apply(batch).rows == rows
    batch.close()


def main(side: str, folder: Path, rows: int, size: int) -> dict[str, float | str]:
    """Do one side; return what it took."""
    started = time.monotonic()
    if side == "write":
        replica = write(folder, rows, size)
    else:
        replica, _ = opened(folder, "b")
        apply(replica, folder, rows)
    for schema in ("main", "mirror"):
        found = replica.connection.execute(f"SELECT count(*), sum(n) FROM {schema}.t").fetchall()
        assert found == [(rows, 7 * rows * (rows + 1) // 2)]
    digest = replica.digests()["t"]
    replica.close()
    return {"digest": digest, "seconds": round(time.monotonic() - started, 1), "MB": megabytes()}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int((*sys.argv, "16")[4]))))
