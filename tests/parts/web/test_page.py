"""The live page: self-contained, allowed to run nothing but itself, fed without secrets."""

from __future__ import annotations

import re

from harmonylite.histogram import Histogram
from harmonylite.web.endpoints import HealthEndpoint, http_servers
from harmonylite.web.page import page_data, quantile
from tests.parts.web.fix_http import fetch, running_status


async def test_the_page_is_small_and_names_no_foreign_address() -> None:
    (http,) = http_servers(running_status(), health=HealthEndpoint("127.0.0.1:0"))
    async with http:
        reply = await fetch(http.port, "/")
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert len(reply.body) < 60_000
    assert re.findall(r"(?:https?:)?//[\w.-]+\.\w+", reply.text) == []
    assert "innerHTML" not in reply.text


async def test_the_page_may_run_only_what_is_in_it() -> None:
    (http,) = http_servers(running_status(), health=HealthEndpoint("127.0.0.1:0"))
    async with http:
        policy = (await fetch(http.port, "/")).headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert policy.endswith("require-trusted-types-for 'script'; trusted-types 'none'")


async def test_the_pages_data_is_the_report_without_folders_or_credentials() -> None:
    status = running_status()
    status.nats_server = "nats://user:secret@nats.example:4222"
    (http,) = http_servers(status, health=HealthEndpoint("127.0.0.1:0"))
    async with http:
        reply = await fetch(http.port, "/status.json")
    assert reply.json["db_path"] == "shop.db"
    assert reply.json["nats_server"] == "nats://nats.example:4222"
    assert "secret" not in reply.text
    assert "/data" not in reply.text
    assert reply.json.keys() >= status.report().keys()


def test_the_pages_data_says_why_a_node_is_not_ready() -> None:
    status = running_status()
    assert page_data(status)["not_ready"] == []
    status.nats_connected = False
    assert page_data(status)["not_ready"] == ["NATS is not connected"]


def test_quantiles_are_bounds_of_the_histogram() -> None:
    histogram = Histogram()
    assert quantile(histogram, 0.5) is None
    for seconds in [0.0015] * 90 + [0.2] * 10:
        histogram.observe(seconds)
    assert quantile(histogram, 0.5) == 0.002
    assert quantile(histogram, 0.99) == 0.25
    histogram.observe(100)
    assert quantile(histogram, 1.0) is None
