"""An external NATS: retries and their end, rolling upgrades, two clusters side by side, limits and what health says."""

from __future__ import annotations

import pytest

from harmonylite.nats_server.binary import find_server
from tests.cluster.fix_cluster import Site, start
from tests.cluster.processes import Node, agree, until, until_equal
from tests.cluster.servers import NatsServer, older_server
from tests.ports import free_port

pytestmark = pytest.mark.timeout(300)

QUICK = {"connect_retries": 3, "reconnect_wait": 0.2}

ACCOUNTS = """
accounts {{
  HL {{ jetstream {{ {limit} }}, users: [ {{ user: hl, password: secret }} ] }}
  SYS {{ users: [ {{ user: sys, password: secret }} ] }}
}}
system_account: SYS
"""

FULL = {
    "server": ("jetstream {", "jetstream { max_file_store: 300KB, "),
    "account": ("max_file: 1GB", "max_file: 300KB"),
}
"""How a configuration with room is made one without."""


def insert(name: str, n: int) -> tuple[str, list[object]]:
    return "INSERT INTO events VALUES (?, ?, ?, NULL)", [f"{name}-{n}", name, n]


def numbers(node: Node, name: str) -> list[int]:
    return [n for (n,) in node.rows("SELECT n FROM events WHERE writer = ? ORDER BY n", [name])]


def reasons(node: Node) -> list[str]:
    """Return why a node says that it is not ready; none where it is, or gives no answer."""
    status, body = node.get("/readyz")
    return list(body["reasons"]) if status == 503 else []


def test_spent_retries_end_the_node_with_their_own_exit_code_and_nothing_is_lost(site: Site) -> None:
    server = site.server()
    ending = site.node("ending", urls=["nats://127.0.0.1:1", server.url], sections={"nats": QUICK})
    patient = site.node("patient", urls=[server.url])
    start([ending, patient])
    writer = site.application(ending)
    writer.write(insert("a", 0))
    until_equal([ending, patient])
    server.kill()
    writer.write(insert("a", 1))
    assert ending.gone() == 7
    assert "maximum reconnects reached (3 in" in ending.last_words()
    writer.write(insert("a", 2))
    ending.start()
    assert ending.gone() == 6, "at the start it is another error"
    words = ending.last_words()
    for port in (1, server.port):
        assert f"NATS server not accepting connections at 127.0.0.1:{port}: connection refused" in words
    assert patient.alive, "connect_retries = 0 never gives up"
    server.start()
    ending.start()
    ending.ready()
    until_equal([ending, patient])
    assert numbers(patient, "a") == [0, 1, 2]


def test_a_rolling_upgrade_under_load_loses_nothing_and_leaves_nobody_deaf(site: Site) -> None:
    servers = site.servers(3, program=older_server())
    older = {server.version() for server in servers}
    urls = [server.url for server in servers]
    log = {"replication_log": {"replicas": 3, "max_entries": 50_000}}
    nodes = [site.node(name, urls=urls, sections=log) for name in ("a", "b")]
    start(nodes)
    writers = [site.application(node) for node in nodes]
    for writer, name in zip(writers, "ab", strict=True):
        writer.load(name, pause=0.01)
    for server in servers:
        server.stop()
        server.program = find_server()
        server.start()
        reached = [writer.committed for writer in writers]

        def heard(reached: list[int] = reached) -> bool:
            there = numbers(nodes[1], "a")[-1:] + numbers(nodes[0], "b")[-1:]
            return len(there) == 2 and all(n > r for n, r in zip(there, reached, strict=True))

        until(heard, f"both hear what was written after {server.name} was upgraded")
        until(lambda: all(node.get("/readyz")[0] == 200 for node in nodes), "both are ready again")
    newer = {server.version() for server in servers}
    assert (len(older), len(newer)) == (1, 1)
    assert [int(n) for n in older.pop().split(".")] < [int(n) for n in newer.pop().split(".")]
    committed = [writer.kill() for writer in writers]
    until_equal(nodes)
    for name, most in zip("ab", committed, strict=True):
        found = numbers(nodes[0], name)
        assert found == list(range(1, len(found) + 1))
        assert len(found) >= most
    agree(nodes)


def test_two_clusters_on_one_nats_never_hear_each_other(site: Site) -> None:
    server = site.server()
    prefixes = [{"nats": {"subject_prefix": f"{c}-log", "stream_prefix": f"{c}-changes"}} for c in ("one", "two")]
    nodes = [
        site.node(f"{cluster}{i}", urls=[server.url], sections=prefixes[cluster]) for cluster in (0, 1) for i in (0, 1)
    ]
    start(nodes)
    for cluster in (0, 1):
        site.application(nodes[2 * cluster]).write(insert(f"cluster{cluster}", 1))
    for cluster in (0, 1):
        content = until_equal(nodes[2 * cluster : 2 * cluster + 2])
        assert [writer for _, writer, _, _ in content["events"]] == [f"cluster{cluster}"]


@pytest.mark.parametrize("limit", ["server", "account"])
def test_a_full_store_is_told_and_changes_queue_until_there_is_room(site: Site, limit: str) -> None:
    roomy, tight = FULL[limit]
    server = site.server(more=ACCOUNTS.format(limit="max_file: 1GB") if limit == "account" else "")
    config = server.folder / f"{server.name}.conf"
    before = config.read_text()
    assert roomy in before
    known = {"nats": {"user_name": "hl", "user_password": "secret"}} if limit == "account" else {}
    nodes = [site.node(name, urls=[server.url], sections=known) for name in ("a", "b")]
    start(nodes)
    server.stop()
    config.write_text(before.replace(roomy, tight))
    server.start()
    for node in nodes:
        node.ready()
    writer = site.application(nodes[0])
    written = iter(range(100_000))

    def refused() -> bool:
        n = next(written)
        writer.write(("INSERT INTO events VALUES (?, 'a', ?, hex(randomblob(30000)))", [f"a{n}", n]))
        return nodes[0].waits("the stream is full; changes queue")

    until(refused, "health names the limit")
    server_words = ("insufficient", "resources", "exceeded")
    until(lambda: any(map(nodes[0].waits, server_words)), "in the server's words, too")
    until(lambda: nodes[0].get("/readyz")[0] == 503, "it is not ready")
    until(lambda: nodes[0].health()["pending_rows"] > 0, "what is queued is counted")
    server.stop()
    config.write_text(before)
    server.start()
    until_equal(nodes)
    assert numbers(nodes[1], "a") == list(range(next(written)))
    for node in nodes:
        node.ready()


def test_a_stream_with_other_settings_is_reported_and_changed_only_when_asked(site: Site) -> None:
    server = site.server()
    node = site.node("a", urls=[server.url], sections={"replication_log": {"max_entries": 5000}})
    for update in (False, False, True):
        node.start()
        node.ready()
        told = node.health()["warnings"].get("streams", "")
        asked_for = node.sections["replication_log"]["max_entries"]
        if asked_for == 6000 and not update:
            assert "has max_msgs = 5000, configured is 6000; it is left as it is" in told
        else:
            assert told == ""
        node.stop()
        node.sections["replication_log"] = {"max_entries": 6000, "update_existing": asked_for == 6000}


def test_a_small_max_payload_only_makes_more_messages_and_a_tiny_one_is_told(site: Site) -> None:
    server = site.server(more="max_payload: 20KB")
    nodes = [site.node(name, urls=[server.url]) for name in ("a", "b")]
    start(nodes)
    writer = site.application(nodes[0])
    writer.write("INSERT INTO events VALUES ('large', 'a', 1, hex(randomblob(150000)))")
    assert len(until_equal(nodes)["events"]) == 1
    nodes[0].sent()
    assert nodes[0].status("published_messages") > 5
    server.stop()
    config = server.folder / f"{server.name}.conf"
    config.write_text(config.read_text().replace("20KB", "1KB"))
    server.start()
    until(lambda: nodes[0].waits("max_payload of the NATS server"), "health names the limit")
    writer.write(insert("a", 2))
    server.stop()
    config.write_text(config.read_text().replace("1KB", "1MB"))
    server.start()
    until_equal(nodes)
    assert numbers(nodes[1], "a") == [1, 2]


def test_an_accounts_limit_is_told_while_it_lasts_and_readiness_waits_for_it(site: Site) -> None:
    server = site.server(more=ACCOUNTS.format(limit="max_file: 1GB, max_streams: 1"))
    node = site.node("a", urls=[server.url], sections={"nats": {"user_name": "hl", "user_password": "secret"}})
    node.start()
    until(lambda: any("maximum number of streams" in reason for reason in reasons(node)), "readyz names the limit")
    config = server.folder / f"{server.name}.conf"
    config.write_text(config.read_text().replace("max_streams: 1", "max_streams: 10"))
    server.stop()
    server.start()
    node.ready()


def test_while_jetstream_has_no_quorum_the_start_says_so_and_for_how_long(site: Site) -> None:
    ports = [free_port() for _ in range(3)]
    servers = [NatsServer(f"s{i}", site.folder / f"s{i}", cluster=port, routes=ports) for i, port in enumerate(ports)]
    site.running += servers
    servers[0].start()
    node = site.node("a", urls=[servers[0].url], sections={"replication_log": {"replicas": 3}})
    node.start()
    until(lambda: node.waits("streams not ready, waiting"), "health says what is waited for")
    sees = "server s0 of cluster test sees itself"
    until(lambda: any(sees in reason for reason in reasons(node)), "and what the server sees")
    until(lambda: any(" s)" in reason for reason in reasons(node)), "and for how long")

    def told() -> str:
        """It is logged again after a minute."""
        text = node.log.read_text()
        return text if "streams: streams not ready, waiting: " in text else ""

    assert until(told, "it is in the log").count("streams not ready, waiting") == 1
    for server in servers[1:]:
        server.start()
    node.ready()


def test_two_of_three_external_servers_name_the_third_and_say_that_three_are_needed(site: Site) -> None:
    ports = [free_port() for _ in range(3)]
    servers = [NatsServer(f"s{i}", site.folder / f"s{i}", cluster=port, routes=ports) for i, port in enumerate(ports)]
    site.running += servers
    for server in servers[:2]:
        server.start()
    node = site.node("a", urls=[s.url for s in servers], sections={"replication_log": {"replicas": 3}})
    node.start()
    until(lambda: node.waits("3 servers are needed (replicas = 3)"), "it says that three are needed")
    until(lambda: node.waits(f"not reached: 127.0.0.1:{servers[2].port}"), "and which is missing")
    servers[2].start()
    node.ready()
