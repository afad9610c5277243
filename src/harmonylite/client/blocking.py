"""Ask the node beside a database, from ordinary code: each call waits for its answer.

Invariant: a call returns an answer of the node or raises an error of this package; it never waits longer than its
timeout.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from os import PathLike
from pathlib import Path

from harmonylite.backoff import Backoff
from harmonylite.client.control_answers import FeedAnswer
from harmonylite.client.control_client import ControlClient, refusal
from harmonylite.client.values import ConflictEntry, Entry, NodeReport, conflict_of, entry_of, report_of
from harmonylite.errors import HarmonyLiteError, NotAnsweringError, NotRunningError, WaitTimeoutError

GRACE = 5.0
"""Seconds that an answer may take longer than the time that the node was given for it."""
SILENT_SECONDS = 30.0
"""A feed says every 5 s where it is; one that is silent for so long is dead."""


class Patience:
    """How long a node that is being started is waited for, and the pauses between two tries."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end = time.monotonic() + seconds
        self._backoff = Backoff(first=0.2, most=2.0)

    @property
    def left(self) -> float:
        """Seconds that are left, at least a little."""
        return max(0.1, self._end - time.monotonic())

    def failed(self, error: HarmonyLiteError) -> float:
        """Return the seconds until the next try; raises WaitTimeoutError when none is left."""
        pause = self._backoff.failed(time.monotonic())
        if time.monotonic() + pause >= self._end:
            raise WaitTimeoutError(f"the node is not there after {self._seconds:g} s: {error}")
        return pause


class Client:
    """Asks the node beside the database at ``db_path``, which runs on this machine as the same user.

    Opens nothing before the first call, and keeps nothing open after it; safe to use from several threads. The database
    itself is never opened. ``seconds``: time for an answer that the node has at once.
    """

    def __init__(self, db_path: str | PathLike[str], *, seconds: float = 15.0) -> None:
        self._db_path = Path(db_path).absolute()
        self._seconds = seconds

    def _control(self, seconds: float) -> ControlClient:
        return ControlClient.find(self._db_path, seconds=seconds)

    def status(self) -> NodeReport:
        """Return the node's state.

        :raises NotRunningError: no node runs beside the database. :raises NotAnsweringError: it runs, and does not
            answer; the same holds for every other method.
        """
        return report_of(self._control(self._seconds).get("/v1/status"))

    def position(self, *, seconds: float = 30.0) -> str:
        """Return a position that covers everything committed to this database before the call.

        :raises WaitTimeoutError: what was committed is not in the streams after ``seconds``; NATS is away, say.
        """
        return str(self._control(seconds + GRACE).get("/v1/position", {"seconds": seconds})["position"])

    def wait(self, position: str = "", *, seconds: float = 30.0, for_start: bool = True) -> str:
        """Return once this database has everything up to ``position``; "": everything that is in the streams now.

        Returns the position that the node is at then. ``for_start``: also wait for a node that is being started.

        :raises WaitTimeoutError: it has not after ``seconds``. :raises PositionError: the position belongs to streams
            that are gone. :raises ConfigError: it is none.
        """
        patience = Patience(seconds)
        while True:
            query = {"position": position or None, "seconds": patience.left}
            try:
                return str(self._control(patience.left + GRACE).get("/v1/wait", query)["position"])
            except (NotRunningError, NotAnsweringError) as error:
                if not for_start:
                    raise
                time.sleep(patience.failed(error))

    def changes(self, start: str = "now", *, table: str = "") -> Iterator[Entry]:
        """Yield the entries of the change feed without end, at least one every 5 seconds.

        ``start``: "now", "start" (as far back as the streams reach) or a position. ``table``: changes of this table
        only, "": of all. Entries without changes only move the position. Close the iterator when done with it.

        :raises PositionError: the streams don't keep the position any more: read the tables as they are, and continue
            from "now". :raises NotFoundError: there is no such table. :raises NotAnsweringError: the feed was cut off,
            as when the node stops: continue from the last position.
        """
        control = self._control(SILENT_SECONDS)
        for data in control.lines("/v1/changes", {"from": start, "table": table or None}, FeedAnswer):
            if "error" in data:
                raise refusal(data["error"], data.get("exit_code", 1))
            yield entry_of(data)
        raise NotAnsweringError("the node ended the feed: it stops", advice="continue from the last position")

    def conflicts(self, *, table: str = "", limit: int = 100) -> list[ConflictEntry]:
        """Return the newest entries of the conflict journal, at most ``limit``; ``table``: of this one only.

        :raises NotFoundError: there is no such table.
        """
        query = {"table": table or None, "limit": limit}
        return [conflict_of(each) for each in self._control(self._seconds).get("/v1/conflicts", query)["conflicts"]]
