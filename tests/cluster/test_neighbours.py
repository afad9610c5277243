"""An application that reads and then writes in one transaction, as most libraries do, beside a node of a cluster."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from tests.cluster.fix_cluster import Site
from tests.cluster.processes import Node, until_equal
from tests.parts.db import fix_neighbours

pytestmark = pytest.mark.timeout(300)

COUNT = 200
TABLES = "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b); INSERT INTO t VALUES (1, 'x', 0), (2, 'y', 0);"


def failures(node: Node, milliseconds: int) -> subprocess.Popen[str]:
    """Start `COUNT` transactions of CPython's library, which think between reading and writing; return the process."""
    arguments = [sys.executable, fix_neighbours.__file__, str(node.db), str(COUNT), str(milliseconds)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("milliseconds", [5, 30])
@pytest.mark.parametrize(("incoming", "most"), [(False, 0), (True, COUNT // 5)], ids=["alone", "incoming commits"])
def test_transactions_that_read_and_then_write(site: Site, milliseconds: int, incoming: bool, most: int) -> None:
    nodes = [site.node(name, tables=TABLES) for name in ("one", "two")]
    for node in nodes:
        node.start()
        node.ready()
    writer = site.application(nodes[1])
    with failures(nodes[0], milliseconds) as application:
        number = 0
        while application.poll() is None:
            if incoming:
                number += 1
                writer.write(("UPDATE t SET b = ? WHERE id = 2", [number]))
            time.sleep(0.05)
        assert application.stdout is not None
        failed = int(application.stdout.read().split()[-1])
    assert failed <= most
    until_equal(nodes)
