"""Messages that no node wrote in its own name: counted, and named in the log.

Invariant: every one is counted, and of many that come at once the log names the first and counts how many followed.
"""

from __future__ import annotations

import logging

from harmonylite.model import StreamMessage
from harmonylite.status import NodeStatus

log = logging.getLogger(__name__)

NAMED = 20
"""This many messages are named in the log one by one within `SECONDS`; more of them are only counted."""
SECONDS = 60.0


class ForeignMessages:
    """Counts the messages that the reassembler ignores; ``now`` is in seconds, by a clock that only grows."""

    def __init__(self, status: NodeStatus) -> None:
        self._status = status
        self._since = 0.0
        self._named = self._unnamed = 0

    def met(self, message: StreamMessage, why: str, now: float) -> None:
        """Count ``message``, and name it in the log unless many were just named."""
        self._status.counters.foreign_messages += 1
        self.log_rest(now)
        if self._named == 0:
            self._since = now
        if self._named >= NAMED:
            self._unnamed += 1
            return
        self._named += 1
        log.warning(
            "ignoring message %(seq)d of shard %(shard)d on subject %(subject)s, which no node wrote in "
            "its own name: %(reason)s",
            {"seq": message.seq, "shard": message.shard, "subject": message.subject, "reason": why},
        )

    def log_rest(self, now: float) -> None:
        """Say how many more there were, once the time is over in which so many were named."""
        if self._named == 0 or now - self._since < SECONDS:
            return
        if self._unnamed:
            log.warning(
                "ignoring %(messages)d more messages that no node wrote in its own name", {"messages": self._unnamed}
            )
        self._named = self._unnamed = 0
