"""A user who lacks a right hears which one, at once, and nothing pretends that a message was stored."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from harmonylite.errors import ConnectError, StreamError
from harmonylite.nats.connection import LEAST_PAYLOAD, AuthError, DeniedError
from harmonylite.nats.link import NatsLink
from tests.parts.fix_nats import NatsFactory, quick


def server_with(permissions: str) -> str:
    return f"authorization {{ users: [ {{ user: me, password: hush, permissions: {{ {permissions} }} }} ] }}"


async def test_a_publish_that_is_not_allowed_fails_at_once_with_its_subject(
    new_nats: NatsFactory, caplog: pytest.LogCaptureFixture
) -> None:
    server = await new_nats(server_with("publish: { allow: ['$JS.API.INFO'] }, subscribe: { allow: ['_INBOX.>'] }"))
    async with NatsLink(replace(quick(server.url), user="me", password="hush")) as link:
        await link.now().request("$JS.API.INFO", seconds=10)
        for _ in range(2):
            with pytest.raises(DeniedError, match=r"publish on Changes\.0\.n; .*docs/nats.md"):
                await asyncio.wait_for(link.now().request("Changes.0.n", b"x", seconds=60), 20)
        await link.now().request("$JS.API.INFO", seconds=10)
        assert issubclass(DeniedError, StreamError), "so the change stays queued"
    assert caplog.text.count("does not let this node publish on changes.0.n") == 1


async def test_who_may_not_hear_answers_is_refused_at_the_start(new_nats: NatsFactory) -> None:
    server = await new_nats(server_with("publish: '>', subscribe: { allow: ['other'] }"))
    with pytest.raises(AuthError, match=r"does not let this user subscribe to _INBOX"):
        await asyncio.wait_for(NatsLink(replace(quick(server.url), user="me", password="hush")).open(), 20)


async def test_too_small_a_max_payload_is_named_with_both_numbers(new_nats: NatsFactory) -> None:
    server = await new_nats()
    await server.stop()
    server.payload = "1KB"
    await server.start()
    with pytest.raises(ConnectError, match=rf"is 1024 bytes; HarmonyLite needs {LEAST_PAYLOAD}"):
        await NatsLink(replace(quick(server.url), connect_retries=1)).open()
