"""The steps of the demo: writes everywhere, two clashes, a killed node, the proof.

Invariant: every number shown was measured in this run.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence

from harmonylite.demo.console import DemoConsole
from harmonylite.demo.files import Written, digest_file, read
from harmonylite.demo.member import Member
from harmonylite.demo.scene import Clash, Workload
from harmonylite.demo.trio import Scene, differing, until_equal, until_seen


class Story:
    """One run over ``members``, all of them ready."""

    def __init__(self, scene: Scene, members: Sequence[Member], console: DemoConsole) -> None:
        self._scene = scene
        self._members = members
        self._console = console
        self._all_held = True
        self._works: list[Workload] = []

    async def play(self) -> bool:
        """Play all steps; return True if every claim was true. Raises HarmonyLiteError when a step fails."""
        self._console.step(
            "Everyone writes at the same time",
            "Three applications, each with its own file. None knows of HarmonyLite.",
        )
        await self._burst(1, seen_by=self._members)
        await self._two_columns()
        await self._one_column()
        await self._a_node_dies()
        await self._it_comes_back()
        return await self._proof()

    async def _two_columns(self) -> None:
        """Change different columns of one row: both changes stay."""
        clash = self._scene.two_columns()
        self._console.step(
            "One row, two writers, different columns",
            f"At {clash.row}. Neither has seen the other's change when it commits.",
        )
        self._claim(await self._fight(clash), "both changes are kept, on every node")

    async def _one_column(self) -> None:
        """Change one column of one row twice: the last in the order wins, the loser is in the journal."""
        clash = self._scene.one_column()
        self._console.step(
            "One row, two writers, the same column",
            f"At {clash.row}. Only one value can stay; the order of the stream decides, not a clock.",
        )
        changed = await self._fight(clash)
        code, output = await self._members[0].command("conflicts")
        self._console.command("harmonylite conflicts", output)
        kept = code == 0 and await self._in_journal(clash)
        self._claim(changed and kept, "the same value everywhere, and the one that lost is in the conflict journal")

    async def _in_journal(self, clash: Clash) -> bool:
        """Return whether the journal has an entry for the value that won."""
        ((value,),) = read(self._members[0].db, clash.show)
        found = await self._members[0].client.conflicts(table=clash.table)
        return any(entry.winning == value for entry in found)

    async def _a_node_dies(self) -> None:
        """Kill -9; all applications continue to write, also the dead node's."""
        *alive, victim = self._members
        self._console.step(
            f"{victim.name} is killed",
            "Its application does not notice, and writes on. If the stream's leader died with it, the others elect a"
            " new one first, which takes seconds; no application waits for that.",
        )
        self._console.command(f"kill -9 {victim.pid}")
        await victim.kill()
        await self._burst(2, seen_by=alive)
        behind = differing([digest_file(member.db, self._scene.touched) for member in (alive[0], victim)])
        self._console.fact(
            victim.name,
            f"its file differs in {', '.join(behind) or 'nothing'}: it missed what the others wrote, and they its own",
        )

    async def _it_comes_back(self) -> None:
        """Start it again; it receives what it missed, and publishes what its application wrote."""
        victim = self._members[-1]
        self._console.step(f"{victim.name} comes back")
        started = time.monotonic()
        await victim.run()
        with self._console.waiting(f"{victim.name} is catching up"):
            self._console.fact(victim.name, f"ready after {duration(await victim.ready())}")
            seen = await until_equal(self._members, self._scene.touched)
        self._console.claim(True, f"all three files are equal {duration(seen - started)} after its start")
        self._claim_all_is_there()

    async def _proof(self) -> bool:
        """Compare in two independent ways: `harmonylite verify`, and digests by plain SQL."""
        self._console.step(
            "The proof", "Once by HarmonyLite, at one position of the stream; once by plain SQL over the three files."
        )
        code, output = await self._members[0].command("verify")
        self._console.command("harmonylite verify", output)
        await until_equal(self._members, ())
        digests = [digest_file(member.db) for member in self._members]
        unequal = differing(digests)
        rows = [
            (name, str(found.rows), *(digest[name].digest[:12] for digest in digests))
            for name, found in digests[0].items()
            if name not in unequal
        ]
        self._console.table(("table", "rows", *(member.name for member in self._members)), rows)
        self._claim(not unequal, f"plain SQL: {', '.join(unequal) or 'no table'} differs between the files")
        if self._scene.question is not None:
            words, sql = self._scene.question
            answers = [read(member.db, sql) for member in self._members]
            self._claim(all(answer == answers[0] for answer in answers), f"{words}: {len(answers[0])} on each node")
        if self._claim(code == 0, f"verify ended with exit code {code}") and self._all_held:
            self._console.claim(True, "three files, one database")
        return self._all_held

    async def _burst(self, number: int, *, seen_by: Sequence[Member]) -> None:
        """Let all three sites write; print when the writes of ``seen_by`` are in each of their files."""
        self._works = [self._scene.burst(member.number, number) for member in self._members]
        lefts = [self._works[member.number - 1].left for member in seen_by]
        expected = [[(count,)] for _, count in lefts]
        watching = until_seen(seen_by, [sql for sql, _ in lefts], lambda answers: all(a == expected for a in answers))
        writing = [m.application.write(w.transactions) for m, w in zip(self._members, self._works, strict=True)]
        with self._console.waiting("three applications write"):
            seen, done = await asyncio.gather(watching, asyncio.gather(*writing))
        for member, work, written in zip(self._members, self._works, done, strict=True):
            self._console.fact(member.name, f"{work.label} ({_amount(written)})")
        await self._say_when(seen_by, seen, done)
        if len(seen_by) == len(self._members):
            self._claim_all_is_there()

    def _claim_all_is_there(self) -> None:
        """Check each file for what each site wrote in the last burst: equal files may have lost the same."""
        wrong = [
            f"{member.name}: {found} for {work.left[1]} of {work.label}"
            for member in self._members
            for work in self._works
            if (found := read(member.db, work.left[0])[0][0]) != work.left[1]
        ]
        self._claim(
            not wrong, "; ".join(wrong) or "and everything that the three applications wrote is in each of them"
        )

    async def _say_when(self, members: Sequence[Member], seen: float, done: Sequence[Written]) -> None:
        """Print after which time all writes were seen, once the files are equal."""
        await until_equal(members, self._scene.touched)
        who = "all three files" if len(members) == len(self._members) else f"{len(members)} files"
        after = duration(seen - max(written.done for written in done))
        self._console.claim(True, f"{who} are equal, {after} after the last commit")

    async def _fight(self, clash: Clash) -> bool:
        """Let two applications change one row in transactions that overlap, then commit both.

        A node can't merge into a file while its application holds the write lock, so neither sees the other's change.
        True if afterwards every changed column has a new value, the same on all nodes.
        """
        one, two = self._members[0], self._members[1]
        (before,) = read(one.db, clash.show)

        def settled(rows: Sequence[tuple[object, ...]]) -> bool:
            same = all(row == rows[0] for row in rows)
            return same and all(old != new for old, new in zip(before, rows[0], strict=True))

        async with contextlib.AsyncExitStack() as stack:
            commits = []
            for member, statement in ((one, clash.one), (two, clash.two)):
                commits.append(await stack.enter_async_context(member.application.holding(statement)))
                self._console.fact(member.name, statement[0])
            watching = until_seen(self._members, [clash.show], lambda answers: settled([a[0][0] for a in answers]))
            seen, done = await asyncio.gather(watching, asyncio.gather(*(commit() for commit in commits)))
        await self._say_when(self._members, seen, done)
        rows = [read(member.db, clash.show)[0] for member in self._members]
        for member, row in zip(self._members, rows, strict=True):
            self._console.fact(member.name, f"now holds {', '.join(map(repr, row))}")
        return settled(rows)

    def _claim(self, holds: bool, what: str) -> bool:
        """Print whether ``what`` is true; the story succeeds only if every claim is."""
        self._console.claim(holds, what)
        self._all_held = self._all_held and holds
        return holds


def duration(seconds: float) -> str:
    """Return a time for people; 0 if a commit was seen before its writer returned."""
    return f"{max(0.0, seconds) * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _amount(written: Written) -> str:
    commits = "1 commit" if written.commits == 1 else f"{written.commits} commits"
    return f"{written.rows} rows in {commits}, {duration(written.seconds)}"
