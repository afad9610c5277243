"""``python -m bench.fleet``: many nodes on one external NATS cluster of three; what each one costs.

Invariant: the run ends with an error unless every node holds every row in the end.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from bench.child import connect
from bench.machine import START_SECONDS, Node, describe, ended
from harmonylite.nats_server.binary import find_server

HERE = Path(__file__).parent
TABLE = "CREATE TABLE item (id TEXT PRIMARY KEY, body TEXT)"
BODY = "x" * 80
SERVER = """\
server_name: s{number}
listen: "127.0.0.1:{port}"
http: "127.0.0.1:{http}"
jetstream {{ store_dir: {folder}, sync_interval: always }}
cluster {{ name: fleet, listen: "127.0.0.1:{route}", routes: [{routes}] }}
"""


@dataclass(frozen=True, slots=True)
class Used:
    """Processor seconds and megabytes: of each node, and of the three servers together."""

    nodes: list[float]
    servers: float
    megabytes: float
    server_megabytes: float


def main() -> int:
    """Run what the command line asks for; print and save a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.fleet", description="measure the cost per node of a fleet")
    parser.add_argument("--nodes", default="5,20", help="sizes of the fleet, with commas")
    parser.add_argument("--rate", type=float, default=2.0, help="one-row commits a second on each node")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long it is idle, and how long it writes")
    parser.add_argument("--data", type=Path, default=HERE / "data", help="folder in which the files are made")
    parser.add_argument("--output", type=Path, default=HERE / "results", help="folder for the JSON")
    options = parser.parse_args()
    data = options.data / "harmonylite-fleet"
    rows = []
    for size in map(int, options.nodes.split(",")):
        shutil.rmtree(data, ignore_errors=True)
        data.mkdir(parents=True)
        rows.append(measure(data, size, options.rate, options.seconds))
        print(json.dumps(rows[-1]))
    options.output.mkdir(parents=True, exist_ok=True)
    target = options.output / "fleet.json"
    target.write_text(json.dumps({"machine": describe(data), "rows": rows}, indent=2) + "\n")
    shutil.rmtree(data)
    print(f"written: {target}")
    return 0


def measure(folder: Path, size: int, rate: float, seconds: float) -> dict[str, float]:
    """Run a fleet of ``size`` nodes; return what it costs, idle and under load, and how long it takes to be equal."""
    with servers(folder) as (ports, processes), ExitStack() as stack:
        started = time.monotonic()
        nodes = [stack.enter_context(running(folder, number, ports)) for number in range(1, size + 1)]
        for node in nodes:
            until_ready(node)
        ready = time.monotonic() - started
        idle = over(nodes, processes, lambda: time.sleep(seconds))
        written: list[int] = []
        begun = time.monotonic()
        load = over(nodes, processes, lambda: written.append(write_everywhere(nodes, rate, seconds)))
        took = time.monotonic() - begun
        converged = until_equal(nodes, written[0])
    return {
        "nodes": size,
        "ready_seconds": round(ready, 1),
        "idle_percent_of_a_core_per_node": round(100 * mean(idle.nodes) / seconds, 2),
        "megabytes_per_node": round(load.megabytes, 1),
        "commits": written[0],
        "commits_per_second": round(written[0] / took, 1),
        "load_percent_of_a_core_per_node": round(100 * mean(load.nodes) / took, 2),
        "servers_idle_percent_of_a_core": round(100 * idle.servers / seconds, 2),
        "servers_load_percent_of_a_core": round(100 * load.servers / took, 2),
        "servers_megabytes": round(load.server_megabytes, 1),
        "seconds_until_equal": round(converged, 2),
    }


@contextmanager
def servers(folder: Path) -> Iterator[tuple[list[int], list[subprocess.Popen[bytes]]]]:
    """Run three nats-servers in one cluster; gives client ports and processes."""
    found = free_ports(9)
    ports, routes, https = found[:3], found[3:6], found[6:]
    text = ", ".join(f'"nats://127.0.0.1:{route}"' for route in routes)
    with ExitStack() as stack:
        processes = []
        for number in range(3):
            config = folder / f"s{number}.conf"
            store = json.dumps(str(folder / f"s{number}"))
            config.write_text(
                SERVER.format(
                    number=number,
                    port=ports[number],
                    http=https[number],
                    folder=store,
                    route=routes[number],
                    routes=text,
                )
            )
            log = stack.enter_context((folder / f"s{number}.log").open("wb"))
            process = subprocess.Popen([str(find_server()), "-c", str(config)], stderr=log)
            processes.append(process)
            stack.enter_context(ended(process))
        yield ports, processes


@contextmanager
def running(folder: Path, number: int, ports: Sequence[int]) -> Iterator[Node]:
    """Run a node on a database of its own, with three replicas of the stream; it need not be ready yet."""
    home = folder / f"n{number}"
    home.mkdir()
    node = Node(number, home / "app.db", ports[number % 3], replicas=3, http=free_ports(1)[0])
    connection = connect(str(node.db))
    connection.execute(TABLE)
    connection.close()
    config = home / "config.toml"
    config.write_text(node.config())
    with (home / "node.log").open("ab") as log:
        node.process = subprocess.Popen(
            [sys.executable, "-m", "harmonylite", "-config", str(config)], stdout=log, stderr=log
        )
        with ended(node.process):
            yield node


def free_ports(count: int) -> list[int]:
    """Return ports that nobody uses, outside the range from which the system gives connections theirs."""
    found: set[int] = set()
    while len(found) < count:
        port = random.randrange(12_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.add(port)
    return list(found)


def until_ready(node: Node) -> None:
    """Wait until the node is ready."""
    deadline = time.monotonic() + 3 * START_SECONDS
    assert node.process
    while node.ask("/readyz")[0] != 200:
        if node.process.poll() is not None:
            raise RuntimeError(f"node {node.number} ended; see its log beside {node.db}")
        if time.monotonic() > deadline:
            raise RuntimeError(f"node {node.number} is not ready: {node.ask('/readyz')}")
        time.sleep(0.1)


def over(nodes: Sequence[Node], processes: Sequence[subprocess.Popen[bytes]], work: Callable[[], object]) -> Used:
    """Return what was used while ``work`` ran."""
    before, cost = [node.cpu_seconds() for node in nodes], sum(map(cpu, processes))
    work()
    after = [node.cpu_seconds() for node in nodes]
    return Used(
        [b - a for a, b in zip(before, after, strict=True)],
        sum(map(cpu, processes)) - cost,
        mean(node.memory_mb() for node in nodes),
        sum(map(memory, processes)),
    )


def cpu(process: subprocess.Popen[bytes]) -> float:
    """Return a process's processor seconds."""
    return as_node(process).cpu_seconds()


def memory(process: subprocess.Popen[bytes]) -> float:
    """Return a process's resident megabytes."""
    return as_node(process).memory_mb()


def as_node(process: subprocess.Popen[bytes]) -> Node:
    """Return a `Node` that reads the figures of another process."""
    return Node(0, Path(), 0, http=0, process=process)


def write_everywhere(nodes: Sequence[Node], rate: float, seconds: float) -> int:
    """Let an application on every node commit single rows; return how many there are in all."""

    def write(node: Node) -> None:
        connection = connect(str(node.db))
        for n in range(int(rate * seconds)):
            due = started + n / rate
            time.sleep(max(0.0, due - time.monotonic()))
            connection.execute("INSERT INTO item VALUES (?, ?)", (f"{node.number}-{n}", BODY))
        connection.close()

    started = time.monotonic()
    threads = [threading.Thread(target=write, args=(node,)) for node in nodes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(nodes) * int(rate * seconds)


def until_equal(nodes: Sequence[Node], rows: int) -> float:
    """Wait until every node holds all rows; return how long that took, in seconds."""
    started = time.monotonic()
    left = list(nodes)
    while left:
        if time.monotonic() > started + 3 * START_SECONDS:
            raise RuntimeError(f"{len(left)} nodes don't hold all {rows} rows")
        connection = connect(str(left[0].db))
        count = connection.execute("SELECT count(*) FROM item").fetchone()[0]
        connection.close()
        if count == rows:
            left.pop(0)
        else:
            time.sleep(0.02)
    return time.monotonic() - started


if __name__ == "__main__":
    sys.exit(main())
