"""First starts in a row: three embedded nodes that never ran start at once, each with the same empty table, and one row
is written on the first as soon as its triggers are there. All three must come to hold it.

    python -m tests.cluster.first_starts 500

Invariant: a start that fails keeps its folder and says so; the others leave nothing behind.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from tests.cluster.fix_cluster import Site
from tests.cluster.processes import Node, agree, until, until_equal

TABLE = "CREATE TABLE t(id INTEGER PRIMARY KEY, v)"
ROW = "INSERT INTO t VALUES (1, 1)"


def has_triggers(node: Node) -> bool:
    """Return whether the node logs what is written to its database."""
    return bool(node.value("SELECT count(*) FROM sqlite_schema WHERE type = 'trigger' AND name LIKE '%insert'"))


def first_start(folder: Path, *, row: str = ROW, verify: bool = False) -> float:
    """Start three nodes for the first time, write ``row`` on the first; return the seconds until all hold the same.

    Raises AssertionError when they don't.
    """
    site = Site(folder)
    try:
        nodes = site.embedded(3, replicas=3, tables=TABLE)
        begun = time.monotonic()
        for node in nodes:
            node.start()
        until(lambda: has_triggers(nodes[0]), "the first node logs what is written")
        site.application(nodes[0]).write(row)
        for node in nodes:
            node.ready()
        content = until_equal(nodes)
        taken = time.monotonic() - begun
        assert content["t"] == [(1, 1)], content
        if verify:
            agree(nodes)
    except AssertionError as error:
        logs = "\n".join(f"--- {name}\n{words}" for name, words in site.logs())
        raise AssertionError(f"{error}\n{logs}") from None
    else:
        return taken
    finally:
        site.aclose()


def campaign(count: int) -> int:
    """Start ``count`` times; print a line for each that failed, and how long the others took.

    Return how many failed, or took more than three times the median.
    """
    taken, failed = [], 0
    for number in range(1, count + 1):
        folder = Path(tempfile.mkdtemp(prefix="harmonylite-first-"))
        try:
            taken.append(first_start(folder))
        except AssertionError as error:
            failed += 1
            sys.stdout.write(f"{number}: {error}\n(kept: {folder})\n")
        else:
            shutil.rmtree(folder)
        if number % 10 == 0 or number == count:
            middle = statistics.median(taken) if taken else float("nan")
            slow = sum(each > 3 * middle for each in taken)
            sys.stdout.write(
                f"{number} starts, {failed} failed; median {middle:.1f} s, longest {max(taken, default=0):.1f} s,"
                f" {slow} over three times the median\n"
            )
            sys.stdout.flush()
    return failed + sum(each > 3 * statistics.median(taken) for each in taken)


if __name__ == "__main__":
    sys.exit(bool(campaign(int(sys.argv[1]) if len(sys.argv) > 1 else 20)))
