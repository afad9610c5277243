"""Bytes that no node wrote, at every place where nodes read: nodes stay up, say so once, and replace what is theirs."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator

import pytest

from harmonylite.errors import ForeignError, VerifyError
from harmonylite.node import registry
from harmonylite.snapshots import lease, manifest
from tests.cluster.fix_cluster import Site, start
from tests.cluster.meddler import Meddler
from tests.cluster.processes import Node, until, until_equal
from tests.cluster.servers import NatsServer

GARBAGE = {
    "not utf-8": b'{"node":"\xff","following":true,"history":"\xfe","left":{},"node_id":"\xff"}',
    "another shape": b"[1, 2, 3]",
    "no json": b"hello\xff",
    "a number that nobody can hold": b'{"node":"x","node_id":"x","positions":{"0":9999999999999999999999}}',
    "nested": b"[" * 5000,
}
TOPICS = ("digest", "deviates", "snapshot", "standing", "beyond", "siblings", "who", "want", "alive")


@pytest.fixture
def meddler(shared_server: NatsServer) -> Iterator[Meddler]:
    found = Meddler(shared_server.port)
    yield found
    found.aclose()


def pair(site: Site) -> list[Node]:
    """Return two nodes that have a snapshot, and pass on the lease soon."""
    nodes = [site.node(name, sections={"snapshot": {"lease_ttl": 3000}}) for name in "ab"]
    start(nodes)
    written(site, nodes, 1)
    return nodes


def written(site: Site, nodes: list[Node], number: int) -> None:
    """Write a row on the first node and wait until every node has it."""
    site.application(nodes[0]).write(("INSERT INTO events VALUES (?, 'm', ?, '')", (f"m{number}", number)))
    until(lambda: all(node.value("SELECT 1 FROM events WHERE n = ?", (number,)) for node in nodes), "it came")


def prefix_of(node: Node) -> str:
    return str(node.sections["nats"]["stream_prefix"])


def pointer(meddler: Meddler, bucket: str, key: str) -> bytes:
    """Return a pointer's value as it is stored."""
    asked = json.dumps({"last_by_subj": f"$KV.{bucket}.{key}"}).encode()
    found = json.loads(meddler.request(f"$JS.API.STREAM.MSG.GET.KV_{bucket}".encode(), asked))
    return base64.b64decode(found.get("message", {}).get("data", ""))


def store(meddler: Meddler, bucket: str, key: str, value: bytes) -> None:
    """Set a pointer; the stream has it on return."""
    answer = meddler.request(f"$KV.{bucket}.{key}".encode(), value)
    assert b'"seq"' in answer, answer


def readable(read: Callable[[bytes], object], data: bytes) -> bool:
    try:
        return bool(read(data))
    except ForeignError:
        return False


def log_of(node: Node) -> str:
    return node.log.read_text(errors="replace")


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_a_bad_pointer_counts_as_absent_and_is_replaced_and_a_bad_lease_runs_out(
    site: Site, meddler: Meddler, garbage: bytes
) -> None:
    nodes = pair(site)
    bucket = f"{prefix_of(nodes[0])}-pointers"
    for key, read in (
        ("newest", manifest.CODEC.decode),
        ("lease", lease.CODEC.decode),
        (registry.KEY, registry.CODEC.decode),
    ):
        until(lambda: readable(read, pointer(meddler, bucket, key)), f"{key} is set")  # noqa: B023
        store(meddler, bucket, key, garbage)
        if key == registry.KEY:  # it is read when somebody asks
            assert nodes[0].command("node", "list")[0] == 0
        until(lambda: readable(read, pointer(meddler, bucket, key)), f"{key} is replaced")  # noqa: B023
    for node in nodes:
        assert node.alive
        lines = [line for line in log_of(node).splitlines() if "counts as absent" in line]
        assert sum("list of nodes" in line for line in lines) <= 1, "it is told once"
        assert sum("list of nodes" not in line for line in lines) <= 1, "it is told once"
    until(lambda: any("counts as absent" in log_of(node) for node in nodes), "it is told")
    newcomer = site.node("c", tables=None)
    newcomer.start()
    newcomer.ready()
    written(site, [*nodes, newcomer], 2)
    until_equal([*nodes, newcomer])


@pytest.mark.parametrize("named", [True, False], ids=["named", "nameless"])
def test_a_bad_answer_is_one_line_in_verify_and_status(site: Site, meddler: Meddler, named: bool) -> None:
    nodes = pair(site)
    prefix = str(nodes[0].sections["nats"]["subject_prefix"])
    turns = iter(range(10**9))
    headers = b"NATS/1.0\r\nHarmonylite-Node: stranger\r\n\r\n" if named else b""
    several = [GARBAGE["not utf-8"], GARBAGE["another shape"], GARBAGE["nested"]]
    meddler.answer(f"{prefix}.peers.*".encode(), lambda _: (headers, several[next(turns) % len(several)]))
    who = "stranger" if named else "?"
    code, said = nodes[0].command("verify", "-timeout", "20")
    assert code == VerifyError.exit_code, said
    assert [line for line in said.splitlines() if "answered what this version can't read" in line and who in line], said

    def told() -> bool:
        """Each node has less than a second for its answer."""
        code, said = nodes[0].command("status", "-cluster")
        assert code == 0, said
        return any("answered what this version can't read" in line and who in line for line in said.splitlines())

    until(told, "the stranger's answer is a line of the status")
    assert nodes[0].status("unread_answers") >= 2
    written(site, nodes, 2)
    assert all(node.alive for node in nodes)


def test_a_bad_answer_is_one_line_of_what_recovery_waits_for_and_the_cluster_begins_anew(
    site: Site, meddler: Meddler, shared_server: NatsServer
) -> None:
    nodes = pair(site)
    prefix = str(nodes[0].sections["nats"]["subject_prefix"])
    headers = b"NATS/1.0\r\nHarmonylite-Node: stranger\r\n\r\n"
    meddler.answer(f"{prefix}.peers.standing".encode(), lambda _: (headers, GARBAGE["not utf-8"]))
    other = Meddler(shared_server.port)
    deleted = other.request(f"$JS.API.STREAM.DELETE.{prefix_of(nodes[0])}-0".encode(), b"")
    other.aclose()
    assert b'"success":true' in deleted
    told = "node stranger answered what this version can't read"
    until(lambda: any(node.waits(told) or told in log_of(node) for node in nodes), "it is named")
    written(site, nodes, 2)
    until_equal(nodes)
    assert all(node.alive for node in nodes)


def test_questions_that_no_node_asks_are_counted_and_hold_nobody_up(site: Site, meddler: Meddler) -> None:
    nodes = pair(site)
    prefix = str(nodes[0].sections["nats"]["subject_prefix"])
    for topic in TOPICS:
        for garbage in GARBAGE.values():
            for _ in range(60):
                meddler.publish(f"{prefix}.peers.{topic}".encode(), garbage, reply=b"_INBOX.nobody")
    for number in range(2000):  # well formed, of checkpoints that nobody made: each is waited for
        name = f"nobody/{number}".encode()
        question = b"\x92" + b"\xd9" + bytes([len(name)]) + name + b"\xcb\x40\xac\x20\x00\x00\x00\x00\x00"
        meddler.publish(f"{prefix}.peers.digest".encode(), question, reply=b"_INBOX.nobody")
    meddler.flush()
    until(lambda: all(node.status("unread_questions") >= 100 for node in nodes), "they are counted")
    until(lambda: all(node.status("dropped_questions") >= 1000 for node in nodes), "not all are kept")
    written(site, nodes, 2)
    assert nodes[0].command("status", "-cluster")[0] == 0
    assert all(node.alive for node in nodes)


def test_messages_whose_subject_or_headers_are_not_utf8_make_nobody_deaf(site: Site, meddler: Meddler) -> None:
    nodes = pair(site)
    prefix = str(nodes[0].sections["nats"]["subject_prefix"]).encode()
    for number, (subject, headers) in enumerate(
        [
            (prefix + b".0.\xff", None),
            (prefix + b".0.stranger", b"NATS/1.0 \xff\xff\xff\r\n\r\n"),
            (prefix + b".0.stranger", b"NATS/1.0 503 \xff\r\n\r\n"),
            (prefix + b".0.stranger", b"NATS/1.0\r\n\xff\xfe: \xff\r\n\r\n"),
            (prefix + b".peers.who", b"NATS/1.0 \xff\r\n\r\n"),
        ],
        start=2,
    ):
        meddler.publish(subject, b"\xff", headers=headers)
        meddler.flush()
        written(site, nodes, number)
    assert all(node.alive and node.status("reconnects") == 0 for node in nodes)
