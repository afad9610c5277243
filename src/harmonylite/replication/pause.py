"""The messages at which the node is paused, and how an operator has one skipped.

Invariant: a message is left out by the loop that waits before it, and only while it does; any other request is refused,
and nothing is changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from harmonylite.changes.skipped import LeftOut
from harmonylite.errors import HarmonyLiteError, NotPausedError


class Pause:
    """One message that the node waits before. ``reason``: why; ``asked``: set once it is to be left out."""

    def __init__(self, shard: int, seq: int, reason: str) -> None:
        self.shard = shard
        self.seq = seq
        self.reason = reason
        self.asked = asyncio.Event()
        self._outcome: asyncio.Future[LeftOut] | None = None

    def ask(self) -> asyncio.Future[LeftOut]:
        """Have the message left out; return the outcome."""
        if self._outcome is None:
            self._outcome = asyncio.get_running_loop().create_future()
        self.asked.set()
        return self._outcome

    def answer(self, outcome: LeftOut | HarmonyLiteError) -> None:
        """Report the outcome: it was left out, or that was refused and the node still waits."""
        found, self._outcome = self._outcome, None
        self.asked.clear()
        if found is None or found.done():
            return
        if isinstance(outcome, LeftOut):
            found.set_result(outcome)
        else:
            found.set_exception(outcome)


class Pauses:
    """Where the node is paused now, by shard and sequence."""

    def __init__(self) -> None:
        self._at: dict[tuple[int, int], Pause] = {}

    def __contains__(self, at: tuple[int, int]) -> bool:
        return at in self._at

    def begin(self, shard: int, seq: int, reason: str) -> Pause:
        """Pause before a message, or continue with that, for ``reason``."""
        pause = self._at.setdefault((shard, seq), Pause(shard, seq, reason))
        pause.reason = reason
        return pause

    def end(self, messages: Iterable[tuple[int, int]]) -> None:
        """Stop waiting at ``messages``: each was left out, or could be applied after all."""
        for at in messages:
            pause = self._at.pop(at, None)
            if pause is not None:
                pause.answer(NotPausedError(f"message {at[1]} of shard {at[0]} could be taken in after all"))

    def clear(self) -> None:
        """Clear all pauses: the streams are read again."""
        self.end(list(self._at))

    async def leave_out(self, shard: int, seq: int) -> LeftOut:
        """Have a message left out, and return what it held. Raises NotPausedError unless the node waits before it."""
        pause = self._at.get((shard, seq))
        if pause is None:
            raise NotPausedError(f"the node does not wait before message {seq} of shard {shard}", advice=self._advice())
        return await asyncio.shield(pause.ask())

    def _advice(self) -> str:
        found = [f"message {seq} of shard {shard} ({pause.reason})" for (shard, seq), pause in sorted(self._at.items())]
        return f"it waits before {'; '.join(found)}" if found else "it waits before none, so nothing is left out"
