"""Nodes live through whatever others put on their subjects: up, equal, everything counted, nothing silent."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Iterator, Sequence
from contextlib import suppress

import msgspec
import nats
import pytest
from nats.js.errors import NotFoundError

from harmonylite.errors import VerifyError
from harmonylite.wire import KIND_ABORT, KIND_CHANGES, KIND_CHECKPOINT
from tests.cluster.fix_cluster import Site, start
from tests.cluster.processes import Node, until, until_equal

pytestmark = pytest.mark.timeout(400)

SHARDS = 2
SECTIONS = {"replication_log": {"shards": SHARDS}}
KINDS = [KIND_CHANGES, KIND_CHECKPOINT, KIND_ABORT, 7]
Sent = tuple[int, str, bytes]
"""Shard, node of the subject, payload."""


def envelope(
    node: str,
    shards: Sequence[int],
    *,
    kind: int = KIND_CHANGES,
    last: bool = True,
    body: bytes = b"\x90",
    number: int = 1,
) -> bytes:
    return msgspec.msgpack.encode([1, kind, node, "s", number, 0, False, last, shards, 0.0, {}, False, body])


def insert(key: str, note: str = "") -> str:
    return f"INSERT INTO t VALUES ('{key}', '{note}')"


def strange() -> Iterator[Sent]:
    """Yield messages that no node wrote in its own name, on the subjects of both nodes and of one that isn't there."""
    for shard, subject in itertools.product(range(SHARDS), ["one", "two", "stray"]):
        for payload in (b"", b"plain text", b"\xff\xfe", b"{}", b"\x9d\x01\x00"):
            yield shard, subject, payload
        for kind in KINDS:
            for shards in ([], [1 - shard], [shard, shard], [shard, SHARDS], [-1, shard]):
                yield shard, subject, envelope(subject, shards, kind=kind)
            if kind == KIND_ABORT:
                yield shard, subject, envelope(subject, [shard], kind=kind, body=b"no name")
            for name in {"one", "two", "stray"} - {subject}:
                yield shard, subject, envelope(name, [shard], kind=kind)


def unfinished() -> Iterator[Sent]:
    """Yield the beginnings of change sets of 250 writers, none of which continues."""
    for number in range(250):
        name = f"writer-{number}"
        yield number % SHARDS, name, envelope(name, [number % SHARDS], last=False, body=bytes(1000))


class Teller:
    """Puts messages on the subjects of a site's nodes."""

    def __init__(self, node: Node) -> None:
        self._url = node.sections["nats"]["urls"][0]
        self._prefix = node.sections["nats"]["subject_prefix"]

    def tell(self, messages: Sequence[Sent]) -> list[int]:
        """Publish ``messages`` in their order; return their sequences."""

        async def publish() -> list[int]:
            link = await nats.connect(self._url)
            found = []
            for shard, subject, payload in messages:
                stored = await link.jetstream(timeout=30).publish(f"{self._prefix}.{shard}.{subject}", payload)
                found.append(stored.seq)
            await link.close()
            return found

        return asyncio.run(publish())

    def newest(self, node: str) -> tuple[str, int]:
        """Return session and number of the newest change set of ``node``."""

        async def ask() -> tuple[str, int]:
            link = await nats.connect(self._url)
            found = [("", 0)]
            for shard in range(SHARDS):
                with suppress(NotFoundError):
                    stream, subject = f"{self._prefix}-{shard}", f"{self._prefix}.{shard}.{node}"
                    message = await link.jetstream(timeout=30).get_last_msg(stream, subject)
                    found.append(msgspec.msgpack.decode(message.data or b"")[3:5])
            await link.close()
            return max(found, key=lambda each: each[1])

        return asyncio.run(ask())


@pytest.fixture
def pair(site: Site) -> list[Node]:
    """Two nodes that are ready."""
    nodes = [
        site.node(name, sections=SECTIONS, tables="CREATE TABLE t(id TEXT PRIMARY KEY, note)")
        for name in ("one", "two")
    ]
    start(nodes)
    return nodes


def test_hundreds_of_strange_messages_between_honest_ones_change_nothing_and_are_counted(
    site: Site, pair: list[Node]
) -> None:
    one = pair[0]
    writers, teller = [site.application(node) for node in pair], Teller(one)
    messages = [*strange(), *unfinished()]
    random.Random(7).shuffle(messages)
    for start_at in range(0, len(messages), 50):
        for name, writer in zip(("one", "two"), writers, strict=True):
            writer.write(*(insert(f"{name}-{start_at}-{i}", "x" * 100) for i in range(5)))
        teller.tell(messages[start_at : start_at + 50])
    for node in pair:  # at once: for a minute, then they are given up on
        until(lambda: node.health()["unfinished_change_sets"] == 2 * 64, "what is unfinished is counted")  # noqa: B023
    for name, writer in zip(("one", "two"), writers, strict=True):
        writer.write(insert(f"{name}-after"))
    rows = until_equal(pair, "all honest rows are everywhere")
    assert all(node.alive for node in pair)
    assert len(next(iter(rows.values()))) == 2 * (5 * -(-len(messages) // 50) + 1)
    count = len(list(strange()))
    for node in pair:
        until(lambda: node.health()["foreign_messages"] == count, "all are counted")  # noqa: B023
        until(lambda: not node.health()["pending_rows"] and node.health()["ready"], "nothing waits")  # noqa: B023
        node.logged("which no node wrote in its own name")
    code, said = one.command("verify")
    assert code == 0, said


def test_many_change_sets_that_miss_a_shard_are_given_up_on_together_and_shown_meanwhile(
    site: Site, pair: list[Node]
) -> None:
    count = 30
    Teller(pair[0]).tell([(0, "stray", envelope("stray", [0, 1], number=number)) for number in range(count)])
    for node in pair:
        site.application(node).write(*(insert(f"{node.name}-{i}") for i in range(20)))
    counted, shown = dict.fromkeys(pair, 0), set[Node]()

    def seen() -> bool:
        """Take in what both nodes say now: it is over ten seconds later."""
        for node in pair:
            health = node.health()
            counted[node] = max(counted[node], health["unfinished_change_sets"])
            said = "waits for the rest of change set stray"
            shown.update(node for why in health["waits"] if said in why and "on shard 1" in why)
        return min(counted.values()) >= 20 and len(shown) == 2

    until(seen, "they are counted, and what the nodes wait for is said")
    until_equal(pair, "far sooner than one after the other")
    assert pair[0].value("SELECT count(*) FROM t") == 40
    for node in pair:
        until(lambda: node.health()["unfinished_change_sets"] == 0 and node.health()["ready"], "all is well")  # noqa: B023


def void_in_advance(site: Site, pair: list[Node], count: int) -> None:
    """Give up on the next ``count`` change sets of node one, in the name of another."""
    one, teller = pair[0], Teller(pair[0])
    site.application(one).write(insert("first"))
    until_equal(pair, "both have the first row")
    session, number = teller.newest("one")
    victims = [msgspec.msgpack.encode(["one", session, number + more]) for more in range(1, count + 1)]
    aborts = [
        (shard, "stray", envelope("stray", [shard], kind=KIND_ABORT, body=victim))
        for victim in victims
        for shard in range(SHARDS)
    ]
    ends = dict(zip((shard for shard, _, _ in aborts), teller.tell(aborts), strict=True))
    until(lambda: all(s["position"] >= ends[s["shard"]] for s in one.health()["shards"]), "they are read")


def test_while_rows_stay_pending_on_one_node_no_node_says_that_all_agree(site: Site, pair: list[Node]) -> None:
    void_in_advance(site, pair, 250)
    site.application(pair[0]).write(insert("second"))
    until(lambda: pair[0].waits("did not land"), "the writer says so in health")
    pair[0].logged("did not land")
    for node in pair:
        code, said = node.command("verify", "-timeout", "6")
        assert code == VerifyError.exit_code, said
        assert "pending" in said


def test_a_change_set_that_others_voided_before_it_came_is_noticed_by_its_writer_and_sent_again(
    site: Site, pair: list[Node]
) -> None:
    one, two = pair
    void_in_advance(site, pair, 5)
    site.application(one).write(insert("second"))
    until_equal(pair, "both have the second row")
    assert two.value("SELECT count(*) FROM t") == 2
    assert one.status("passed_over_change_sets") >= 1
    until(lambda: one.health()["ready"], "and nothing waits")


@pytest.mark.parametrize("kind", ["version", "kind"])
def test_what_a_newer_program_wrote_pauses_visibly_until_it_is_left_out(
    site: Site, pair: list[Node], kind: str
) -> None:
    one = pair[0]
    payload = envelope("stray", [1], kind=9) if kind == "kind" else msgspec.msgpack.encode([2, 0, "stray", "more"])
    (seq,) = Teller(one).tell([(1, "stray", payload)])
    for node in pair:
        said = f"message {seq} of shard 1 can't be applied"
        (why,) = until(lambda: [why for why in node.health()["waits"] if said in why], "it says where it pauses")  # noqa: B023
        assert "update this node" in why
        assert node.get("/health")[0] == 503
        site.application(node).write(insert(f"{node.name}-row"))
    for node in pair:
        assert node.waits(f"harmonylite skip 1 {seq}")
        code, said = node.command("skip", "1", str(seq), "-yes")
        assert code == 0, said
    until_equal(pair, "both continue without a restart")
    for node in pair:
        until(lambda: node.health()["ready"], "and nothing waits")  # noqa: B023
