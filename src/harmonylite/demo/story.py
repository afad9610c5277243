"""What happens in the demo, step by step: writes everywhere, two clashes, a killed node, the proof.

Invariant: every number that is told was measured in this run.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence

from harmonylite.db.connection import mapped, open_file
from harmonylite.demo.application import Written
from harmonylite.demo.digest import digest_file
from harmonylite.demo.member import Member
from harmonylite.demo.scene import Clash, Scene
from harmonylite.demo.teller import Teller
from harmonylite.demo.trio import differing, until_equal


class Story:
    """One run over ``members``, all of them ready."""

    def __init__(self, scene: Scene, members: Sequence[Member], teller: Teller) -> None:
        self._scene = scene
        self._members = members
        self._teller = teller

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
        last = await self._burst(self._members, 1)
        await self._equal(self._members, last)

    async def two_columns(self) -> None:
        """Different columns of one row: both stay."""
        clash = self._scene.two_columns()
        self._teller.step(
            "One row, two writers, different columns",
            f"At {clash.row}. Neither has seen the other's change when it commits.",
        )
        await self._fight(clash)
        self._teller.good("both changes are kept, on every node")

    async def one_column(self) -> None:
        """The same column of one row: the last in the order wins everywhere, the other is in the journal."""
        clash = self._scene.one_column()
        self._teller.step(
            "One row, two writers, the same column",
            f"At {clash.row}. Only one value can stay; the order of the stream decides, not a clock.",
        )
        await self._fight(clash)
        code, output = await self._members[0].command("conflicts")
        self._teller.command("harmonylite conflicts", output)
        if code == 0:
            self._teller.good("the same value everywhere, and the other one is not lost without a trace")
        else:
            self._teller.bad(f"conflicts ended with {code}")

    async def a_node_dies(self) -> None:
        """Kill -9; everyone goes on writing, at the dead node's file too."""
        *alive, victim = self._members
        self._teller.step(
            f"{victim.name} is killed", "Its application does not notice: it goes on writing to its own file."
        )
        self._teller.command(f"kill -9 {victim.pid}")
        await victim.kill()
        last = await self._burst(self._members, 2)
        await self._equal(alive, last)
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
            self._teller.fact(victim.name, f"ready after {ready:.1f} s")
            seen = await until_equal(self._members, self._scene.touched)
        self._teller.good(
            f"all three are equal {seen - started:.1f} s after its start: nothing written anywhere is missing"
        )

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
        same_answer = self._ask_all()
        if unequal or code or not same_answer:
            self._teller.bad(f"verify ended with {code}; tables that differ: {', '.join(unequal) or 'none'}")
            return False
        self._teller.good("verify says equal, and so does plain SQL: three files, one database")
        return True

    def _ask_all(self) -> bool:
        """Ask every copy the scene's question; tell whether they agree."""
        question = self._scene.question()
        if question is None:
            return True
        words, sql = question
        answers = [read(member, sql) for member in self._members]
        same = all(answer == answers[0] for answer in answers)
        (self._teller.good if same else self._teller.bad)(
            f"{words}: {len(answers[0])} products, {'the same' if same else 'not the same'} on each node"
        )
        return same

    async def _burst(self, members: Sequence[Member], number: int) -> float:
        works = [self._scene.burst(member.number, number) for member in members]
        done = await asyncio.gather(*(m.application.write(w.transactions) for m, w in zip(members, works, strict=True)))
        for member, work, written in zip(members, works, done, strict=True):
            self._teller.fact(member.name, f"{work.label} ({_amount(written)})")
        return max(written.done for written in done)

    async def _equal(self, members: Sequence[Member], last: float) -> None:
        with self._teller.waiting("waiting until the files are equal"):
            seen = await until_equal(members, self._scene.touched)
        who = "all three files" if len(members) == len(self._members) else f"{len(members)} files"
        self._teller.good(f"{who} are equal {max(0.0, seen - last) * 1000:,.0f} ms after the last commit")

    async def _fight(self, clash: Clash) -> None:
        """Let two applications hold their transactions open over the same row, then commit both.

        A node can't merge into a file while its application holds the write lock, so neither sees the other's change.
        """
        one, two = self._members[0], self._members[1]
        async with contextlib.AsyncExitStack() as stack:
            commits = [
                await stack.enter_async_context(member.application.holding(statement))
                for member, statement in ((one, clash.one), (two, clash.two))
            ]
            self._teller.fact(one.name, clash.one[0])
            self._teller.fact(two.name, clash.two[0])
            done = await asyncio.gather(*(commit() for commit in commits))
        await self._equal(self._members, max(written.done for written in done))
        for member in self._members:
            values = [", ".join(map(repr, row)) for row in read(member, clash.show)]
            self._teller.fact(member.name, f"now holds {'; '.join(values)}")


def read(member: Member, sql: str) -> list[tuple[object, ...]]:
    """Return the rows that ``sql`` finds in the member's file."""
    connection = open_file(member.db, read_only=True)
    try:
        with mapped(f"read {member.db}"):
            return [tuple(row) for row in connection.execute(sql)]
    finally:
        connection.close()


def _amount(written: Written) -> str:
    commits = "1 commit" if written.commits == 1 else f"{written.commits} commits"
    return f"{written.rows} rows in {commits}, {written.seconds * 1000:.0f} ms"
