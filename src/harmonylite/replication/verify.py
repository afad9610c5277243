"""Verify: every node digests its mirror at the same position and the digests are compared; database and mirror are
compared locally.

Invariant: digests that are compared were taken at one checkpoint of the order; a node that did not answer is named, and
does not count as agreeing.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Annotated, Any

import apsw
import msgspec
from msgspec import Meta

from harmonylite.backoff import Backoff
from harmonylite.db.mirror.compare import TableDifference, digest_snapshot, open_snapshot
from harmonylite.db.mirror.skipped_messages import left_out
from harmonylite.db.mirror.state import history_of
from harmonylite.db.replica import Replica
from harmonylite.db.schema_facts import moved, read_facts
from harmonylite.db.sqlite.thread import SqliteThread
from harmonylite.errors import DatabaseBusyError, DatabaseDamagedError, DatabaseError
from harmonylite.foreign import Codec, Line
from harmonylite.model import ChangeSetId
from harmonylite.ports import UNREAD, Peers
from harmonylite.replication.majority import Digest, Majority, majority_of, schema_differences
from harmonylite.replication.publisher import Publisher
from harmonylite.schema.names import folded
from harmonylite.status import NodeStatus

log = logging.getLogger(__name__)

TOPIC = "digest"
MOST_SECONDS = 3600.0
"""Longest time that a node is asked to wait for a checkpoint."""
REMEMBERED = 16
"""Checkpoints whose digests are remembered for anyone who asks."""


DIGEST = Codec("a digest of a mirror", Digest, packed=True, most=16 * 1024 * 1024)
QUESTION = Codec("a question for a digest", tuple[Line, Annotated[float, Meta(gt=0, le=MOST_SECONDS)]], packed=True)


class Verifier:
    """Answers and asks. `taken` must run on the SQLite thread, right after a checkpoint was folded.

    ``sent`` waits until all that was committed here so far is in the order.
    """

    def __init__(
        self,
        replica: Replica,
        thread: SqliteThread,
        publisher: Publisher,
        peers: Peers,
        status: NodeStatus,
        *,
        sent: Callable[[], Awaitable[None]],
    ) -> None:
        self._replica = replica
        self._thread = thread
        self._publisher = publisher
        self._peers = peers
        self._status = status
        self._sent = sent
        self._digests: dict[str, asyncio.Future[Digest]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._schema: tuple[tuple[int, int], dict[str, str]] | None = None

    async def serve(self) -> None:
        """Answer other nodes, without end."""
        self._loop = asyncio.get_running_loop()
        await self._peers.serve(TOPIC, QUESTION.decode, self._answer)

    def taken(self, checkpoint: ChangeSetId, positions: dict[int, int]) -> None:
        """Take a read snapshot of the mirror now and digest it off the SQLite thread."""
        if self._loop is None:
            return
        readers = self._replica.options.readers
        readers.enter()
        try:
            held = open_snapshot(self._replica.options.mirror)
        except BaseException:
            readers.leave()
            raise
        shapes = [table.shape for table in self._replica.tables.values()]
        schema = self._schema_now()
        node, lacks = self._replica.options.node, len(left_out(self._replica.connection))

        def work() -> Digest:
            try:
                return Digest(node, digest_snapshot(held, shapes), positions, lacks=lacks, schema=schema)
            finally:
                readers.leave()

        self._loop.call_soon_threadsafe(self._start, str(checkpoint), work)

    def _schema_now(self) -> dict[str, str]:
        """Return digests of the database's definitions, none where they can't be read now; on the SQLite thread."""
        connection = self._replica.connection
        try:
            now = moved(connection)
            if self._schema is None or self._schema[0] != now:
                self._schema = now, read_facts(connection, self._replica.options.rules).outlines
        except (apsw.Error, DatabaseError):  # the comparison of the rows matters more
            return {}
        return self._schema[1]

    def _start(self, name: str, work: Callable[[], Digest]) -> None:
        async def run() -> None:
            future = self._future(name)
            try:
                digest = await asyncio.to_thread(work)
            except DatabaseDamagedError as error:
                self._thread.hurt(error)
                if not future.done():
                    future.set_exception(error)
            except Exception as error:
                log.exception("can't digest the mirror")
                if not future.done():
                    future.set_exception(error)
            else:
                if not future.done():
                    future.set_result(digest)

        task = asyncio.create_task(run(), name=f"digest {name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _future(self, name: str) -> asyncio.Future[Digest]:
        if name not in self._digests:
            future: asyncio.Future[Digest] = asyncio.get_running_loop().create_future()
            future.add_done_callback(lambda f: f.cancelled() or f.exception())
            self._digests[name] = future
            while len(self._digests) > REMEMBERED:
                self._digests.pop(next(iter(self._digests))).cancel()
        return self._digests[name]

    async def _answer(self, question: tuple[str, float]) -> bytes | None:
        name, seconds = question
        waits, unsent = asyncio.get_running_loop().time() + seconds, 0
        try:
            async with asyncio.timeout_at(waits):
                digest = await asyncio.shield(self._future(name))
        except TimeoutError:
            return None
        try:
            async with asyncio.timeout_at(waits):
                await self._sent()
        except TimeoutError:
            unsent = self._replica.pending_rows()
        return DIGEST.encode(msgspec.structs.replace(digest, unsent=unsent))

    async def verify(self, *, repair: bool, seconds: float, known: set[str]) -> dict[str, Any]:
        """Compare everything; ``known``: nodes that are expected to answer. Raises StreamError."""
        deadline = time.monotonic() + seconds
        local = await self._local(deadline)
        digests, unread = await self.digests(max(0.5, deadline - time.monotonic()), known)
        if schema_differences(digests) and (left := deadline - time.monotonic()) > seconds / 2:
            # who answered has sent since then what it had changed: at the next checkpoint it is everywhere
            digests, unread = await self.digests(left, known)
        repaired, found = 0, majority_of(digests)
        # a mirror that deviates is repaired first: the database may hold what that lacks
        if repair and found.none_against(self._replica.options.node) and not all(each.equal for each in local):
            repaired = sum(d.missing + d.extra + d.different for d in local)
            await self._thread.run(self._replica.reconcile, first=False)
            local = await self._local(deadline)
        return self._report(local, digests, unread, known, repaired)

    async def digests(self, seconds: float, known: set[str]) -> tuple[dict[str, Digest], list[str]]:
        """Return the digests of nodes that answer within ``seconds``, taken at one checkpoint, and the nodes whose
        answers can't be read; raises StreamError.
        """
        name = await self._checkpoint()
        question = QUESTION.encode((name, seconds * 0.9))
        expected = known | {self._replica.options.node}
        # by name, not by number: a node that is not known yet may answer before one that is waited for
        answered = await self._peers.ask(
            TOPIC,
            question,
            DIGEST.decode,
            seconds=seconds,
            enough=lambda answers: expected <= _by_node(answers).keys(),
        )
        return _by_node(answered.answers), answered.unread

    async def _local(self, deadline: float) -> list[TableDifference]:
        backoff = Backoff(first=0.05, most=1.0)
        while True:
            try:
                return await self._thread.run(self._replica.compare)
            except DatabaseBusyError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(backoff.failed(time.monotonic()))

    def _history(self) -> str:
        return history_of(self._replica.connection, "mirror")

    async def _checkpoint(self) -> str:
        """Put a checkpoint into every shard's order; return its name."""
        return str(await self._publisher.checkpoint(await self._thread.run(self._history)))

    def _report(
        self,
        local: list[TableDifference],
        digests: dict[str, Digest],
        unread: list[str],
        known: set[str],
        repaired: int,
    ) -> dict[str, Any]:
        own = self._replica.options.node
        equal = all(difference.equal for difference in local)
        found, schemas = majority_of(digests), schema_differences(digests)
        nodes = [_result(digest, found, schemas.get(node, "")) for node, digest in sorted(digests.items())]
        nodes += [
            {"node_id": node or "?", "agrees": False, "digest": "", "lacks": 0, "note": UNREAD}
            for node in sorted(set(unread) - set(digests))
        ]
        silent = sorted((known | {own}) - set(digests) - set(unread))
        return {
            "agree": equal and not silent and all(node["agrees"] for node in nodes),
            "positions": digests[own].positions if own in digests else {},
            "note": found.note(own),
            "schemas_equal": not schemas,
            "sides": [list(side.nodes) for side in found.all],
            "majority": list(found.right.nodes) if found.right is not None else [],
            "local": {
                "equal": equal,
                "pending_rows": self._replica.pending_rows(),
                "held_rows": self._status.held_rows,
                "tables": [
                    {
                        "table": d.table,
                        "rows": d.rows,
                        "missing": d.missing,
                        "extra": d.extra,
                        "different": d.different,
                        "sample": [repr(key) for key in d.sample],
                    }
                    for d in local
                ],
            },
            "nodes": nodes,
            "silent": silent,
            "repaired": repaired,
        }


def _by_node(digests: Iterable[Digest]) -> dict[str, Digest]:
    """Return digests by node."""
    return {digest.node: digest for digest in digests}


def _result(digest: Digest, found: Majority, schema: str) -> dict[str, Any]:
    """Return the report on one node; ``schema``: in what its schema differs, "" = in nothing.

    Without a majority no side counts, and it is compared with the largest side.
    """
    measure = found.all[0] if found.right is None else found.right
    differing = measure.differs(digest.tables)
    notes = [f"differs from {', '.join(measure.nodes)} in {', '.join(differing)}"] if differing else []
    if schema:
        notes.append(schema)
    if digest.unsent:
        notes.append(f"{digest.unsent} rows are pending there and don't get into the streams")
    return {
        "node_id": digest.node,
        "agrees": not notes and found.right is not None,
        "digest": _whole(digest),
        "lacks": digest.lacks,
        "note": "; ".join(notes),
    }


def _whole(digest: Digest) -> str:
    """Return one short digest over all tables, for a person to compare."""
    tables = sorted((folded(table), found) for table, found in digest.tables.items())
    return hashlib.sha256(msgspec.json.encode(tables)).hexdigest()[:16]
