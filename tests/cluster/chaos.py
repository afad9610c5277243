"""``python -m tests.cluster.chaos SEED… 1..20``: kills, lost disks, old backups, lost streams and old snapshots.

Each seed gives a schedule of events on real nodes, a real nats-server and snapshots in a folder. Invariant that it must
keep: with all nodes up again they hold the same rows, verify, and hold every row that an application was told to be
committed, unless one deleted it.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol

from tests.cluster.chaos_cluster import NODES, PATIENCE, Cluster
from tests.cluster.chaos_files import Files
from tests.cluster.chaos_stores import Nats, Snapshots
from tests.cluster.fix_cluster import Site, start
from tests.cluster.processes import agree, until_equal
from tests.seeds import seeds

STEPS = 12


class Schedule(Protocol):
    """What happens to nodes. ``told``: what did."""

    told: list[str]

    def run(self, steps: int) -> None:
        """Let ``steps`` things happen, then look."""


class Processes:
    """Events of nodes."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.events = [self.kill, self.kill, self.stop, self.start, self.start, self.start, self.all_down]

    def kill(self) -> None:
        """Kill -9 a node."""
        self._cluster.kill(self._cluster.some())

    def stop(self) -> None:
        """Stop a node."""
        self._cluster.stop(self._cluster.some())

    def start(self) -> None:
        """Start a node."""
        self._cluster.start(self._cluster.some())

    def all_down(self) -> None:
        """Kill all nodes and start some, in any order."""
        for node in self._cluster.nodes:
            self._cluster.kill(node)
        for node in self._cluster.random.sample(self._cluster.nodes, self._cluster.random.randint(1, NODES)):
            node.start()


class Chaos:
    """One schedule. ``told``: what it did, for anyone who looks for the reason of a failure."""

    def __init__(self, site: Site, seed: int) -> None:
        self.told: list[str] = []
        self._cluster = Cluster(site, seed)
        parts = (Processes, Files, Nats, Snapshots)
        self._events = [event for part in parts for event in part(self._cluster).events]
        self._say(f"seed {seed}: {self._cluster.settings['replication_log']} {self._cluster.settings['verify']}")

    def _say(self, what: str) -> None:
        self.told.append(f"{time.strftime('%H:%M:%S')} after {self._cluster.ledger.number} transactions: {what}")

    def run(self, steps: int) -> None:
        """Let ``steps`` things happen, with writes in between, then bring all back and look."""
        start(self._cluster.nodes)
        for _ in range(steps):
            self._cluster.write()
            event = self._cluster.random.choice(self._events)
            self._say(event.__name__)
            event()
        self._cluster.write()
        self._end()

    def _end(self) -> None:
        self._say("the end")
        nodes = self._cluster.nodes
        self._cluster.up()
        self._cluster.ready()
        for node in nodes:
            self._cluster.published(node)
        content = until_equal(nodes, "at the end", PATIENCE)
        self._cluster.ready()
        agree(nodes)
        self._say(self._cluster.ledger.check(content))
        for node in nodes:
            text = node.log.read_text()
            assert "unexpected error" not in text, f"{node.name}: an unexpected error"
            assert "Traceback" not in text, f"{node.name}: a traceback"


def run(site: Site, seed: int, steps: int = STEPS) -> str:
    """Run one schedule; return its last words. A failure tells the seed and what was done."""
    return told(Chaos(site, seed), steps)


def told(schedule: Schedule, steps: int) -> str:
    """Run a schedule; return its last words. A failure tells what was done."""
    try:
        schedule.run(steps)
    except Exception as error:
        error.add_note("\n".join(schedule.told))
        raise
    return schedule.told[-1]


def by_hand(seed: int, schedule: Callable[[Site, int], str]) -> bool:
    """Run a schedule in a folder, which stays when it fails; return whether it held."""
    folder = Path(tempfile.mkdtemp(prefix=f"harmonylite-chaos-{seed}-"))
    site = Site(folder)
    try:
        print(f"seed {seed} holds: {schedule(site, seed)}", flush=True)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is reported with its seed
        print(
            f"seed {seed} fails, see {folder}: {type(error).__name__}: {error}", *error.__notes__, sep="\n", flush=True
        )
        return False
    finally:
        site.aclose()
    shutil.rmtree(folder)
    return True


def main() -> int:
    """Run the schedules that the command line names; return 1 when one failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.chaos", description=__doc__)
    parser.add_argument("which", nargs="+", type=seeds, help="a seed, or a range like 1..20")
    parser.add_argument("--steps", type=int, default=STEPS, help="how much happens in each")
    given = parser.parse_args()
    held = [by_hand(seed, partial(run, steps=given.steps)) for some in given.which for seed in some]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
