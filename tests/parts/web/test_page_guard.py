"""Who may see and do what on the page: values stay on this machine, and nothing is done without the token."""

from __future__ import annotations

import json

import pytest

from harmonylite.config.checks import PAGE_PATHS
from harmonylite.web.page_guard import FORWARDED, PageGuard
from tests.parts.web.fix_http import Reply, fetch
from tests.parts.web.fix_page import TOKEN, Answers, cluster_status, serving_page

STATE = ("/status.json", "/hour.json")
VALUES = ("/details.json", "/conflicts.json", "/log.json")
ACTS = ("/actions/snapshot", "/actions/verify", "/actions/put-back")
RIGHT = {"Authorization": f"Bearer {TOKEN}"}
PROXIED = [{"Host": "shop.example"}, {"Host": "localhost.example:1"}, *({name: "192.0.2.1"} for name in FORWARDED)]


async def ask(
    guard: PageGuard, path: str, headers: dict[str, str] | None = None, answers: Answers | None = None
) -> Reply:
    """Return the answer to one request, a POST where the path does something."""
    body = json.dumps({"conflict": "id-1"} if path.endswith("put-back") else {}) if path in ACTS else None
    async with serving_page(
        cluster_status(), answers or Answers(), guard=guard, hosts=("shop.example", "localhost.example")
    ) as http:
        return await fetch(http.port, path, method="POST" if body else "GET", headers=headers, body=body)


def test_every_path_of_the_page_has_its_need_here() -> None:
    assert {"/", "/changes.ndjson", *STATE, *VALUES, *ACTS} == set(PAGE_PATHS)


@pytest.mark.parametrize("path", [*STATE, *VALUES])
async def test_this_machine_reads_without_a_token(path: str) -> None:
    for guard in (PageGuard(), PageGuard(TOKEN)):
        assert (await ask(guard, path)).code == 200


@pytest.mark.parametrize("headers", PROXIED, ids=str)
async def test_values_go_elsewhere_with_the_token_only(headers: dict[str, str]) -> None:
    for path in VALUES:
        refused = await ask(PageGuard(), path, headers)
        assert (refused.code, refused.json["login"]) == (403, False)
        assert "set [page] token" in refused.json["error"]
        asked = await ask(PageGuard(TOKEN), path, headers)
        assert (asked.code, asked.json["login"]) == (401, True)
        assert (await ask(PageGuard(TOKEN), path, headers | RIGHT)).code == 200


async def test_the_state_goes_elsewhere_as_health_does_until_there_is_a_token() -> None:
    for path in STATE:
        assert (await ask(PageGuard(), path, PROXIED[0])).code == 200
        assert (await ask(PageGuard(TOKEN), path, PROXIED[0])).code == 401


@pytest.mark.parametrize("path", [*STATE, *VALUES])
async def test_a_node_that_is_not_open_shows_nothing_without_the_token_here_either(path: str) -> None:
    guard = PageGuard(TOKEN, open=False)
    assert (await ask(guard, path)).code == 401
    assert (await ask(guard, path, RIGHT)).code == 200


@pytest.mark.parametrize("path", ACTS)
async def test_nothing_is_done_without_the_token_or_for_another_site(path: str) -> None:
    answers = Answers()
    for guard, headers, code in (
        (PageGuard(), {}, 403),
        (PageGuard(), RIGHT, 403),
        (PageGuard(TOKEN), {}, 401),
        (PageGuard(TOKEN), {"Authorization": "Bearer " + "x" * 32}, 401),
        (PageGuard(TOKEN), {"Authorization": "Bearer "}, 401),
        (PageGuard(TOKEN), RIGHT | {"Origin": "http://evil.example"}, 403),
        (PageGuard(TOKEN), RIGHT | {"Origin": "null"}, 403),
        (PageGuard(TOKEN), RIGHT | {"Sec-Fetch-Site": "cross-site"}, 403),
        (PageGuard(TOKEN), RIGHT | {"Sec-Fetch-Site": "same-site"}, 403),
    ):
        assert (await ask(guard, path, headers, answers)).code == code
    assert answers.done == []
    assert (await ask(PageGuard(TOKEN), path, RIGHT, answers)).code == 200
    assert len(answers.done) == 1


async def test_nothing_is_done_by_a_request_that_only_reads() -> None:
    answers = Answers()
    async with serving_page(cluster_status(), answers, guard=PageGuard(TOKEN)) as http:
        for path in ACTS:
            assert (await fetch(http.port, path, headers=RIGHT)).code == 405
    assert answers.done == []


@pytest.mark.parametrize("query", ["limit=0", "limit=201", "limit=x", "limit=1e9"])
async def test_arguments_that_are_none_are_refused_by_name(query: str) -> None:
    reply = await ask(PageGuard(), f"/conflicts.json?{query}")
    assert reply.code == 400
