"""``harmonylite verify`` on real nodes: it ends with 0 only when all that are waited for answer, and agree."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from harmonylite.errors import NotFoundError, VerifyError
from tests.cluster.fix_cluster import Site, start
from tests.cluster.processes import until

pytestmark = pytest.mark.timeout(300)

INSERT = ("INSERT INTO events VALUES (?, ?, 1, '')", ("of c", "c"))


def test_a_known_node_that_does_not_answer_is_named_unless_it_is_said_to_be_gone(site: Site) -> None:
    one, two, gone = nodes = [site.node(name) for name in "abc"]
    start(nodes)
    site.application(gone).write(INSERT)
    until(lambda: one.value("SELECT 1 FROM events") == two.value("SELECT 1 FROM events") == 1, "its row is everywhere")
    assert one.command("verify")[0] == 0
    assert gone.stop() == 0

    code, said = one.command("verify", "-timeout", "3")
    assert code == VerifyError.exit_code
    assert "did not answer" in said
    assert "NOT all agree" in said

    code, said = one.command("verify", "-timeout", "30", "-without", "c")
    assert code == 0, said
    assert "all agree" in said

    code, said = one.command("verify", "-without", "d")
    assert code == NotFoundError.exit_code
    assert "no node d is known; known are a, b, c" in said


@pytest.mark.timeout(600)
@pytest.mark.parametrize("shards", [1, 4])
def test_a_node_that_is_written_to_compares_two_hundred_times_and_lives(site: Site, shards: int) -> None:
    sections = {"replication_log": {"shards": shards}}
    nodes = [site.node(name, sections=sections) for name in "abc"]
    start(nodes)
    written, _, other = nodes
    for node, pause in ((written, 0.01), (other, 0.2)):
        site.application(node).load(node.name, pause=pause)
    until(lambda: written.value("SELECT count(*) FROM counters") == 2, "both writers are seen")

    def verify(_: int) -> None:
        found = written.ask("POST", "/v1/verify", {"repair": False, "seconds": 30, "without": []})
        assert found.get("agree"), found

    with ThreadPoolExecutor(8) as several:
        list(several.map(verify, range(200)))
    for node in nodes:
        assert node.alive
        until(lambda: node.health().get("status") == "healthy", f"{node.name} is well")  # noqa: B023
