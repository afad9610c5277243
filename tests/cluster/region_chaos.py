"""``python -m tests.cluster.region_chaos SEED…``: two regions of real processes; a seed cuts, kills and moves home.

Every application keeps count of the rows that only it writes. Invariant: a run ends well only if all nodes are equal,
verify, and hold of each writer's own rows exactly what it left there: nothing lost, nothing back, no value gone back.
"""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.cluster.fix_cluster import Site, make, start
from tests.cluster.processes import Node, agree, differences, equal
from tests.cluster.servers import NatsServer
from tests.ports import free_port

STEPS = 50
SECONDS = 240.0
"""How long everything may take to be well again in the end."""

TABLES = """
CREATE TABLE own(id TEXT PRIMARY KEY, writer TEXT, v INTEGER, w INTEGER);
CREATE TABLE fought(id INTEGER PRIMARY KEY, a TEXT, b TEXT);
CREATE TABLE named(id TEXT PRIMARY KEY, name TEXT UNIQUE);
INSERT INTO fought SELECT value, '', '' FROM json_each('[1,2,3,4,5]');
"""
ALIVE = 'ping_interval: "1s"\nping_max: 2\n'
NODES = ("a1", "a2", "b1", "b2", "b3")

Statement = tuple[str, list[object]]


class Writer:
    """An application; ``rows`` is what its own rows are to be, by key."""

    def __init__(self, site: Site, node: Node) -> None:
        self.name = node.name
        self.rows: dict[str, tuple[int, int]] = {}
        self._application = site.application(node)
        self._made = 0

    def write(self, rng: random.Random) -> None:
        """Commit some transactions."""
        for _ in range(rng.randint(1, 6)):
            rows = dict(self.rows)
            self._application.write(*(self._statement(rng, rows) for _ in range(rng.randint(1, 4))))
            self.rows = rows

    def _statement(self, rng: random.Random, rows: dict[str, tuple[int, int]]) -> Statement:
        kind = rng.random()
        if kind < 0.4 or not rows:
            self._made += 1
            key = f"{self.name}-{self._made}"
            rows[key] = (0, 0)
            return "INSERT INTO own VALUES (?, ?, 0, 0)", [key, self.name]
        key = rng.choice(sorted(rows))
        v, w = rows[key]
        if kind < 0.52:
            rows[key] = (v + 1, w)
            return "UPDATE own SET v = v + 1 WHERE id = ?", [key]
        if kind < 0.65:
            rows[key] = (v, w + 1)
            return "UPDATE own SET w = w + 1 WHERE id = ?", [key]
        if kind < 0.72:
            del rows[key]
            return "DELETE FROM own WHERE id = ?", [key]
        number = rng.randint(1, 5)
        if kind < 0.85:
            return f"UPDATE fought SET {rng.choice('ab')} = ? WHERE id = ?", [f"{self.name} {rng.random()}", number]
        if kind < 0.9:
            return "DELETE FROM fought WHERE id = ?", [number]
        if kind < 0.93:
            return "INSERT OR IGNORE INTO fought VALUES (?, ?, 'new')", [number, self.name]
        return "INSERT OR REPLACE INTO named VALUES (?, ?)", [f"id{number}", f"name{rng.randint(1, 5)}"]


class Chaos:
    """One run in ``folder``."""

    def __init__(self, site: Site, folder: Path, seed: int) -> None:
        self.rng = random.Random(seed)
        self._began = time.monotonic()
        leaf = free_port()
        self.line = site.proxy(leaf)
        links = {
            "a": f'listen: "127.0.0.1:{leaf}", no_advertise: true',
            "b": f'reconnect: "1s", remotes: [ {{ urls: ["nats-leaf://127.0.0.1:{self.line.port}"] }} ]',
        }
        self.servers = {}
        for region, link in links.items():
            more = f"{ALIVE}leafnodes {{ {link} }}"
            server = self.servers[region] = NatsServer(f"nats-{region}", folder / f"nats-{region}", more=more)
            config = server.folder / f"{server.name}.conf"
            config.write_text(config.read_text().replace("jetstream { ", f"jetstream {{ domain: {region}, "))
            site.running.append(server)
            server.start()
        self.nodes = {name: self._node(site, folder, name) for name in NODES}
        start(list(self.nodes.values()))
        self.writers = [Writer(site, node) for node in self.nodes.values()]

    def _node(self, site: Site, folder: Path, name: str) -> Node:
        nats = {"region": name[0], "primary_region": "a", "failover_after": 0.5}
        sections: dict[str, dict[str, Any]] = {
            "nats": nats,
            "replication_log": {"shards": 2},
            "logging": {"verbose": True},
        }
        node = Node(name, folder / name, urls=[self.servers[name[0]].url], sections=sections)
        make(node.db, TABLES)
        site.running.insert(0, node)
        return node

    def say(self, text: str) -> None:
        """Print what is done."""
        print(f"{time.monotonic() - self._began:7.1f} {text}", flush=True)

    def step(self) -> None:
        """Write, then hurt something or let it heal."""
        for writer in self.rng.sample(self.writers, self.rng.randint(1, 4)):
            writer.write(self.rng)
        what = self.rng.choices(
            [self._cut, self._heal, self._node_ends, self._server_ends, self._move], [4, 3, 5, 2, 2]
        )
        what[0]()
        time.sleep(self.rng.choice([0, 0.3, 1, 2, 4, 7]))

    def _cut(self) -> None:
        word = self.rng.choice(["hole", "deaf", "reset", "slow 60"])
        self.say(f"line {word}")
        self.line.order(word)

    def _heal(self) -> None:
        self.say("line pass")
        self.line.order("pass")

    def _node_ends(self) -> None:
        node = self.rng.choice(list(self.nodes.values()))
        if not node.alive:
            self.say(f"start {node.name}")
            node.start()
        elif self.rng.random() < 0.6:
            self.say(f"kill {node.name}")
            node.kill()
        else:
            self.say(f"stop {node.name}")
            assert node.stop(60) == 0

    def _server_ends(self) -> None:
        server = self.rng.choice(list(self.servers.values()))
        self.say(f"{'kill' if server.alive else 'start'} {server.name}")
        if server.alive:
            server.kill()
        else:
            server.start()

    def _move(self) -> None:
        alive = [node for node in self.nodes.values() if node.alive]
        if alive:
            node = self.rng.choice(alive)
            self.say(f"promote the region of {node.name}: {node.command('region', 'promote')}")

    def end(self) -> None:
        """Heal everything, wait until all is well, and compare."""
        self._heal()
        processes: list[NatsServer | Node] = [*self.servers.values(), *self.nodes.values()]
        for process in processes:
            if not process.alive:
                process.start()
        nodes = list(self.nodes.values())
        deadline = time.monotonic() + SECONDS
        while not (all(map(well, nodes)) and equal(nodes)):
            assert time.monotonic() < deadline, f"not well: {[n.get('/readyz') for n in nodes]}\n{differences(nodes)}"
            if any(
                node.waits("another region is being promoted") for node in nodes
            ):  # a move was cut off in the middle
                self._move()
            time.sleep(1)
        agree(nodes)
        found = {row[0]: row[2:] for row in nodes[0].rows("SELECT * FROM own")}
        wanted = {key: row for writer in self.writers for key, row in writer.rows.items()}
        wrong = {
            key: (wanted.get(key), found.get(key))
            for key in wanted.keys() | found.keys()
            if wanted.get(key) != found.get(key)
        }
        assert not wrong, f"own rows that are not as their writer left them, wanted and found: {wrong}"
        self.say(f"well: {len(found)} rows")


def well(node: Node) -> bool:
    """Return whether a node is ready and has published everything."""
    return node.get("/readyz")[0] == 200 and node.health().get("pending_rows") == 0


def run(seed: int) -> None:
    """Run one seed; its folder stays when that fails."""
    folder = Path(tempfile.mkdtemp(prefix=f"harmonylite-regions-{seed}-"))
    print(f"seed {seed}, {folder}", flush=True)
    site = Site(folder)
    try:
        chaos = Chaos(site, folder, seed)
        for _ in range(STEPS):
            chaos.step()
        chaos.end()
    finally:
        site.aclose()
    shutil.rmtree(folder)


if __name__ == "__main__":
    for given in sys.argv[1:]:
        run(int(given))
