"""What replication and snapshots need from JetStream, as small Protocols; `harmonylite.jetstream` is the real thing.

Invariant: an implementation never acknowledges a message that the stream does not hold, never skips a sequence without
saying so, and maps every foreign error to one of `harmonylite.errors`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from harmonylite.model import StreamInfo, StreamMessage

T = TypeVar("T")


class ShardStream(Protocol):
    """One shard's stream, seen from one node."""

    shard: int

    async def publish(
        self, payload: bytes, *, message_id: str, expected_last: int | None = None, expected_end: int | None = None
    ) -> int:
        """Store ``payload`` on this node's own subject and return its sequence, once the server has acknowledged it.

        ``expected_last``: sequence of the last message on this node's subject (0 = none yet); None = not checked.
        ``expected_end``: the same of the whole stream's last message. ``message_id``: the message's name, the same in
        all tries, so that it is stored once; no other process needs to be kept from knowing it.
        Raises WrongLastSequenceError, NotAcknowledgedError (outcome unknown), StreamFullError, StreamError.
        Cancelling leaves the outcome unknown.
        """
        ...

    def read(self, start: int) -> AsyncIterator[list[StreamMessage]]:
        """Yield batches of messages from sequence ``start`` on, without end, each sequence once and in order.

        Survives reconnects and lost consumers by itself. Raises StreamGapError when ``start`` (or the next message) is
        older than the oldest kept one, StreamLostError when the stream is gone, was created again or is shorter than
        what was read.
        """
        ...

    async def info(self) -> StreamInfo:
        """Return the stream's state now; raises StreamLostError when it is gone, StreamError when unreachable."""
        ...

    async def end(self) -> int:
        """Return the last sequence of the order now; where ``info`` is about a copy of it, that may end earlier.

        Raises StreamLostError, and StreamError when the place where the order is made can't be reached.
        """
        ...

    async def last_own(self) -> StreamMessage | None:
        """Return the newest message on this node's own subject, None when there is none."""
        ...

    async def next_own(self, after: int) -> StreamMessage | None:
        """Return the first message on this node's own subject behind sequence ``after``, None when there is none."""
        ...

    async def get(self, seq: int) -> StreamMessage | None:
        """Return the message with sequence ``seq``, None when it is not kept (any more)."""
        ...


class Covering(Protocol):
    """The newest snapshot, as publishing needs it: what the streams may forget because of it."""

    def covered(self) -> Mapping[int, int] | None:
        """Return by shard the first message that a node needs which starts from the newest snapshot, as last seen.

        None: there is no snapshot to start from.
        """
        ...

    async def refresh(self) -> None:
        """Find out which snapshot is the newest now; raises StreamError, SnapshotError."""
        ...

    def want(self) -> None:
        """Have the node whose turn it is save a snapshot as soon as possible."""
        ...


Progress = Callable[[int, int], None]
"""Called now and then, in the event loop, with bytes transferred so far, and bytes in all."""


class Store(Protocol):
    """Where snapshots are kept: whole files under names; `harmonylite.stores` and the NATS object store."""

    @property
    def place(self) -> str:
        """Where the objects are, in words for a person; without secrets."""
        ...

    async def put(self, name: str, source: Path, progress: Progress | None = None) -> None:
        """Store the file ``source`` as object ``name``, whole or not at all; raises SnapshotError.

        Cancelling leaves what was under ``name`` before; when nearly all was sent already, perhaps the whole file.
        """
        ...

    async def get(self, name: str, target: Path, progress: Progress | None = None) -> None:
        """Write object ``name`` to ``target``, whole or not at all.

        Raises SnapshotError when the store can't be reached, its kinds ObjectMissingError when the store doesn't have
        the object, and SnapshotDamagedError when it sees that what it has is not whole. A store may not notice that
        an object was altered: compare a digest of your own.
        """
        ...

    async def delete(self, name: str) -> None:
        """Delete object ``name``; a missing one is no error."""
        ...

    async def names(self) -> list[str]:
        """Return the names of all objects, sorted."""
        ...


class Objects(Store, Protocol):
    """The NATS object store, and small named pointers with compare-and-set (a KV bucket)."""

    async def pointer(self, key: str) -> tuple[bytes, int] | None:
        """Return value and revision of a pointer, None when it is not there."""
        ...

    async def set_pointer(self, key: str, value: bytes, *, revision: int) -> bool:
        """Set a pointer if its revision is still ``revision`` (0 = it must not exist). False: another one was first."""
        ...


@dataclass(frozen=True, slots=True)
class Answered(Generic[T]):
    """The answers to a question. ``unread``: nodes whose answers can't be read, "" for one without a name."""

    answers: list[T]
    unread: list[str]


UNREAD = "answered what this version can't read"


def unread(nodes: Iterable[str]) -> str:
    """Return a sentence on each of ``nodes`` whose answers can't be read."""
    return "; ".join(f"{f'node {node}' if node else 'a node without a name'} {UNREAD}" for node in nodes)


class Peers(Protocol):
    """Questions to all nodes of the cluster, over core NATS (nothing is stored)."""

    async def ask(
        self,
        topic: str,
        payload: bytes,
        read: Callable[[bytes], T],
        *,
        seconds: float,
        expect: int = 0,
        enough: Callable[[list[T]], bool] | None = None,
    ) -> Answered[T]:
        """Send ``payload`` to every node that serves ``topic``; return the answers that came within ``seconds``.

        ``read``: decodes an answer, raises ForeignError for one that it can't, which then does not count. Ends early
        once ``expect`` answers are in (0 = don't count), or once ``enough`` says of the answers so far that no other
        node is waited for.
        """
        ...

    async def serve(
        self, topic: str, read: Callable[[bytes], T], answer: Callable[[T], Awaitable[bytes | None]]
    ) -> None:
        """Answer questions on ``topic`` until the link closes; None = no answer. Errors in ``answer`` are logged.

        ``read``: decodes a question, raises ForeignError for one that it can't: that gets no answer, and is counted.
        So is a question when too many wait, and one that has waited longer than its sender listens.
        """
        ...
