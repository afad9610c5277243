"""A receiver of one replica that reads the stream of a group, for tests of what it does while it applies."""

from __future__ import annotations

from harmonylite.db.sqlite.thread import SqliteThread
from harmonylite.replication.receiver import Receiver
from harmonylite.status import NodeStatus
from tests.parts.db.fix_replicas import Group, Member
from tests.simulation.tails import Tape


def receiver_of(group: Group, member: Member, thread: SqliteThread, status: NodeStatus) -> Receiver:
    """Return the receiver of ``member``; no one listens to it."""
    return Receiver(
        member.replica,
        thread,
        [Tape(group.world, 0, 0)],
        status,
        landed=lambda name, whole: None,
        moved=lambda: None,
        checkpoint=lambda name, at: None,
        other_history=lambda: None,
    )
