"""What happens in the demo, step by step: writes everywhere, two clashes, a killed node, the proof.

Invariant: every number that is told was measured in this run.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Sequence
from contextlib import closing

from harmonylite.db.sqlite.connection import mapped, open_file
from harmonylite.demo.application import Written
from harmonylite.demo.console import DemoConsole
from harmonylite.demo.member import Member
from harmonylite.demo.scene import Clash, Scene, Workload
from harmonylite.demo.table_digest import digest_file
from harmonylite.demo.trio import Rows, differing, until_equal, until_seen


class Story:
    """One run over ``members``, all of them ready."""

    def __init__(self, scene: Scene, members: Sequence[Member], teller: DemoConsole) -> None:
        self._scene = scene
        self._members = members
        self._teller = teller
        self._all_held = True
        self._works: list[Workload] = []

    async def play(self) -> bool:
        """Tell it all; return True when every file ended equal. Raises HarmonyLiteError when a step can't be done."""
        await self.everyone_writes()
        await self.two_columns()
        await self.one_column()
        await self.a_node_dies()
        await self.it_comes_back()
        return await self.proof()

    async def everyone_writes(self) -> None:
        """All three sites at once, each in its own process."""
        self._teller.step(
            "Everybody writes, at the same time",
            "Three applications, each with its own file. None knows of HarmonyLite.",
        )
        await self._burst(1, seen_by=self._members)

    async def two_columns(self) -> None:
        """Different columns of one row: both stay."""
        clash = self._scene.two_columns()
        self._teller.step(
            "One row, two writers, different columns",
            f"At {clash.row}. Neither has seen the other's change when it commits.",
        )
        self._claim(await self._fight(clash), "both changes are kept, on every node")

    async def one_column(self) -> None:
        """The same column of one row: the last in the order wins everywhere, the other is in the journal."""
        clash = self._scene.one_column()
        self._teller.step(
            "One row, two writers, the same column",
            f"At {clash.row}. Only one value can stay; the order of the stream decides, not a clock.",
        )
        changed = await self._fight(clash)
        code, output = await self._members[0].command("conflicts")
        self._teller.command("harmonylite conflicts", output)
        kept = code == 0 and await self._in_journal(clash)
        self._claim(changed and kept, "the same value everywhere, and the one that lost is in the conflict journal")

    async def _in_journal(self, clash: Clash) -> bool:
        """Tell whether the journal has an entry for the value that the fought-over column holds now."""
        _, output = await self._members[0].command("conflicts", "-json", "-table", clash.table)
        ((value,),) = read(self._members[0], clash.show)
        with contextlib.suppress(ValueError, KeyError):
            return any(entry["winning"] == value for entry in json.loads(output)["conflicts"])
        return False

    async def a_node_dies(self) -> None:
        """Kill -9; everyone continues writing, at the dead node's file too."""
        *alive, victim = self._members
        self._teller.step(
            f"{victim.name} is killed",
            "Its application does not notice, and writes on. If the stream's leader died with it, the others elect a"
            " new one first, which takes seconds; no application waits for that.",
        )
        self._teller.command(f"kill -9 {victim.pid}")
        await victim.kill()
        await self._burst(2, seen_by=alive)
        behind = differing(
            [await asyncio.to_thread(digest_file, m.db, self._scene.touched) for m in (alive[0], victim)]
        )
        self._teller.fact(
            victim.name,
            f"its file differs in {', '.join(behind) or 'nothing'}: it missed what the others wrote, and they its own",
        )

    async def it_comes_back(self) -> None:
        """Start it again; what it missed comes in, what its application wrote goes out."""
        victim = self._members[-1]
        self._teller.step(f"{victim.name} comes back")
        started = time.monotonic()
        await victim.start()
        with self._teller.waiting(f"{victim.name} is catching up"):
            ready = await victim.ready()
            self._teller.fact(victim.name, f"ready after {duration(ready)}")
            seen = await until_equal(self._members, self._scene.touched)
        self._teller.good(f"all three files are equal {duration(seen - started)} after its start")
        self._claim_all_is_there()

    async def proof(self) -> bool:
        """Two independent ways: `harmonylite verify`, and digests by plain SQL."""
        self._teller.step(
            "The proof", "Once by HarmonyLite, at one position of the stream; once by plain SQL over the three files."
        )
        code, output = await self._members[0].command("verify")
        self._teller.command("harmonylite verify", output)
        await until_equal(self._members, ())
        digests = [await asyncio.to_thread(digest_file, member.db) for member in self._members]
        unequal = differing(digests)
        self._teller.table(
            ("table", "rows", *(member.name for member in self._members)),
            [
                (name, str(digests[0][name].rows), *(digest[name].digest[:12] for digest in digests))
                for name in digests[0]
                if name not in unequal
            ],
        )
        self._claim(not unequal, f"plain SQL: {', '.join(unequal) or 'no table'} differs between the files")
        self._ask_all()
        if self._claim(code == 0, f"verify ended with exit code {code}") and self._all_held:
            self._teller.good("three files, one database")
        return self._all_held

    def _ask_all(self) -> None:
        """Ask every copy the scene's question; they must agree."""
        question = self._scene.question()
        if question is not None:
            words, sql = question
            answers = [read(member, sql) for member in self._members]
            self._claim(all(answer == answers[0] for answer in answers), f"{words}: {len(answers[0])} on each node")

    async def _burst(self, number: int, *, seen_by: Sequence[Member]) -> None:
        """Let all three sites write; tell when what the sites of ``seen_by`` wrote is in each of their files."""
        self._works = [self._scene.burst(member.number, number) for member in self._members]
        lefts = [self._works[member.number - 1].left for member in seen_by]
        expected = [[(count,)] for _, count in lefts]
        watching = until_seen(seen_by, [sql for sql, _ in lefts], lambda answers: all(a == expected for a in answers))
        writing = [m.application.write(w.transactions) for m, w in zip(self._members, self._works, strict=True)]
        with self._teller.waiting("three applications write"):
            seen, done = await asyncio.gather(watching, asyncio.gather(*writing))
        for member, work, written in zip(self._members, self._works, done, strict=True):
            self._teller.fact(member.name, f"{work.label} ({_amount(written)})")
        await self._tell_when(seen_by, seen - max(written.done for written in done))
        if len(seen_by) == len(self._members):
            self._claim_all_is_there()

    def _claim_all_is_there(self) -> None:
        """Files may be equal because all lost the same: look for what each site wrote in the last burst."""
        wrong = [
            f"{member.name}: {found} for {work.left[1]} of {work.label}"
            for member in self._members
            for work in self._works
            if (found := read(member, work.left[0])[0][0]) != work.left[1]
        ]
        self._claim(
            not wrong, "; ".join(wrong) or "and everything that the three applications wrote is in each of them"
        )

    async def _tell_when(self, members: Sequence[Member], seconds: float) -> None:
        """Say after which time all was seen everywhere, once the files are really equal."""
        await until_equal(members, self._scene.touched)
        who = "all three files" if len(members) == len(self._members) else f"{len(members)} files"
        self._teller.good(f"{who} are equal, {duration(seconds)} after the last commit")

    async def _fight(self, clash: Clash) -> bool:
        """Let two applications hold their transactions open over the same row, then commit both.

        A node can't merge into a file while its application holds the write lock, so neither sees the other's change.
        True when afterwards every column that was fought over has a new value, the same on all nodes.
        """
        one, two = self._members[0], self._members[1]
        (before,) = read(one, clash.show)

        def settled(answers: list[list[Rows]]) -> bool:
            rows = [answer[0][0] for answer in answers]
            same = all(row == rows[0] for row in rows)
            return same and all(old != new for old, new in zip(before, rows[0], strict=True))

        async with contextlib.AsyncExitStack() as stack:
            commits = [
                await stack.enter_async_context(member.application.holding(statement))
                for member, statement in ((one, clash.one), (two, clash.two))
            ]
            self._teller.fact(one.name, clash.one[0])
            self._teller.fact(two.name, clash.two[0])
            watching = until_seen(self._members, [clash.show], settled)
            seen, done = await asyncio.gather(watching, asyncio.gather(*(commit() for commit in commits)))
        await self._tell_when(self._members, seen - max(written.done for written in done))
        rows = [read(member, clash.show)[0] for member in self._members]
        for member, row in zip(self._members, rows, strict=True):
            self._teller.fact(member.name, f"now holds {', '.join(map(repr, row))}")
        return all(row == rows[0] for row in rows) and all(old != new for old, new in zip(before, rows[0], strict=True))

    def _claim(self, holds: bool, what: str) -> bool:
        """Say that ``what`` holds, or that it does not; the story ends well only if every claim held."""
        (self._teller.good if holds else self._teller.bad)(what)
        self._all_held = self._all_held and holds
        return holds


def read(member: Member, sql: str) -> Rows:
    """Return the rows that ``sql`` finds in the member's file."""
    with closing(open_file(member.db, read_only=True)) as connection, mapped(f"read {member.db}"):
        return [tuple(row) for row in connection.execute(sql)]


def duration(seconds: float) -> str:
    """Return a time for people. One can see a commit before its writer knows that it is done: then it is 0."""
    return f"{max(0.0, seconds) * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _amount(written: Written) -> str:
    commits = "1 commit" if written.commits == 1 else f"{written.commits} commits"
    return f"{written.rows} rows in {commits}, {duration(written.seconds)}"
