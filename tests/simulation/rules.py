"""The rules that carry the weight, each with a patch that leaves it out; `test_left_out` shows that this is noticed.

A patch takes away what one rule does and nothing else; all other code runs as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import apsw
import pytest

from harmonylite.changes import fragments, sharding
from harmonylite.changes.reassembler import Reassembler
from harmonylite.db import reconcile, replica
from harmonylite.db.apply import fold, merge, numbers, pending
from harmonylite.db.apply.apply import Applying
from harmonylite.db.apply.flights import Flights
from harmonylite.db.apply.fold import Fold
from harmonylite.db.apply.merge import Merge
from harmonylite.db.apply.overruled import KnownRows
from harmonylite.db.apply.pending import Pending
from harmonylite.db.capture import merge_base
from harmonylite.db.capture.capture import Outgoing
from harmonylite.db.mirror import former_names, mirror_file, schema_history
from harmonylite.db.mirror.conflict_journal import ConflictJournal
from harmonylite.db.replica import Replica
from harmonylite.db.sqlite.connection import configure
from harmonylite.db.sqlite.side_effect_triggers import SideEffectTriggers
from harmonylite.db.tracking import tracked_table, watermarks
from harmonylite.db.tracking.change_log import ChangeLog
from harmonylite.db.tracking.triggers import triggers
from harmonylite.db.tracking.watermarks import Watermarks
from harmonylite.schema import shape
from harmonylite.schema.shape import Column, TableShape
from tests.simulation.node import Node

Patch = Callable[[pytest.MonkeyPatch], None]
RULES: dict[str, Patch] = {}
"""What is left out, by a sentence that says what is so without it."""


def left_out(what: str) -> Callable[[Patch], Patch]:
    """Register a patch under what is so while it stands."""

    def register(patch: Patch) -> Patch:
        RULES[what] = patch
        return patch

    return register


def nothing(*_: Any, **__: Any) -> None:
    """Do nothing."""


# what is pending --------------------------------------------------------------------------------------------------


@left_out("no row counts as pending: the mirror's rows replace what was written here meanwhile")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Pending, "find", lambda *_: False)


@left_out("a merge after the own change set came back starts from the mirror, not from what was published")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(pending, "lay_over", nothing)


@left_out("a row that others changed while the own change set was under way is not merged when that comes back")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Applying, "folds", property(lambda _: 0, nothing), raising=False)


@left_out("the log is cleared up to its end, not to where the change set that came back was read")
def _(patch: pytest.MonkeyPatch) -> None:
    clear = ChangeLog.clear
    patch.setattr(ChangeLog, "clear", lambda log, _: clear(log, log._known))


@left_out("a restarted node publishes what the log names before it has folded to the end")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Node, "ready", True)


# capture ----------------------------------------------------------------------------------------------------------


def _without_triggers(patch: pytest.MonkeyPatch, *events: str) -> None:
    made = triggers

    def some(table: TableShape, number: int) -> dict[str, str]:
        return {n: sql for n, sql in made(table, number).items() if not n.rpartition("_")[2].startswith(events)}

    patch.setattr(tracked_table, "triggers", some)


@left_out("rows that an insert with OR REPLACE displaces are not logged")
def _(patch: pytest.MonkeyPatch) -> None:
    _without_triggers(patch, "replace")


@left_out("rows that an update with OR REPLACE displaces are not logged")
def _(patch: pytest.MonkeyPatch) -> None:
    _without_triggers(patch, "reupdate")


@left_out("a merge lifts the watermark over rows that were inserted here and that nothing names")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Watermarks, "log_ranges", nothing)


@left_out("the watermark is lifted when the own change set is back, whoever wrote meanwhile")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Applying, "seen", nothing)


@left_out("a new row counts as changed since it was captured, because no trigger could have told")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ChangeLog, "keep_images", nothing)


@left_out("rows that VACUUM numbered anew are looked for beyond the old watermark")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(watermarks, "still_holds", lambda *_: True)


@left_out("an update that changes the key logs the new key alone")
def _(patch: pytest.MonkeyPatch) -> None:
    _without_triggers(patch, "rekey")


@left_out("tables with indexes that triggers can't see are not compared")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Replica, "find_unlogged", lambda _: 0)


@left_out("values that SQLite holds equal are taken for the same bits")
def _(patch: pytest.MonkeyPatch) -> None:
    def loose(_: Column, left: str, right: str) -> str:
        return f"({left} IS NOT {right})"

    for module in (shape, fold, merge, pending, reconcile):
        if hasattr(module, "differs"):
            patch.setattr(module, "differs", loose)
    patch.setattr("harmonylite.db.capture.capture.differs", loose)


# standing still ---------------------------------------------------------------------------------------------------


@left_out("rows that are unchanged since a change set in flight was captured are sent again with the next one")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Flights, "in_the_air", lambda *_: [])


@left_out("what stays in flight is pending only where its values differ")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Flights, "staying", lambda *_: [])


@left_out("the log is cleared up to a change set that is back before an earlier one")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Flights, "landing", Flights.coming)


@left_out("change sets that were captured on top of one that never landed clear the log")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Flights, "forget", lambda flights, number: flights._at.pop(number, None))


@left_out("new rows are told from those in flight without an entry in the log")
def _(patch: pytest.MonkeyPatch) -> None:
    many = Applying.many_new
    patch.setattr(Applying, "many_new", lambda applying, _=None: many(applying))


# unique indexes and rowids ----------------------------------------------------------------------------------------


@left_out("a row that clashes with a pending one is dropped, not held back")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Merge, "_hold", nothing)


@left_out("rows that a fold displaced stay in the database")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Fold, "_touch_displaced", nothing)


@left_out("rows that can displace each other live on several shards")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(TableShape, "pinned", False)


@left_out("a row with a whole key stays on the rowid that a row with NULL in its key claims")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(fold, "make_room", nothing)
    patch.setattr(merge, "make_room", nothing)


@left_out("keys that SQLite holds equal may live on several shards")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sharding, "plain", lambda value: value)


# the order --------------------------------------------------------------------------------------------------------


@left_out("a cut may hold a part of a change set")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Reassembler, "_whole", lambda _, counts: counts)
    patch.setattr(
        Reassembler, "_closure", lambda reassembler, shard, _: {s: int(s == shard) for s in reassembler._queues}
    )


@left_out("abort messages void nothing")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Reassembler, "_abort", nothing)


@left_out("after a restart reading goes on behind the position, where a change set under way lost its beginning")
def _(patch: pytest.MonkeyPatch) -> None:
    settle = fragments.ShardQueue.settle

    def forgetful(queue: Any, limit: int, taken: Any) -> Any:
        position = settle(queue, limit, taken)
        queue.position = type(position)(
            position.shard, position.seq, position.seq + 1, position.created, position.aborted
        )
        return queue.position

    patch.setattr(fragments.ShardQueue, "settle", forgetful)


# two files, one commit --------------------------------------------------------------------------------------------


@left_out("the database's position moves in no transaction at all")
def _(patch: pytest.MonkeyPatch) -> None:
    move = mirror_file.set_positions

    def mirror_only(connection: apsw.Connection, schema: str, moved: Any) -> None:
        if schema == "mirror":
            move(connection, schema, moved)

    patch.setattr(mirror_file, "set_positions", mirror_only)


@left_out("a mirror that a crash left behind is merged again on its way to the database's position")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Replica, "merged_positions", Replica.positions)


@left_out("the mirror's position moves a transaction ahead of the rows that it stands for")
def _(patch: pytest.MonkeyPatch) -> None:
    apply = Applying.apply

    def early(self: Applying, cut: Any, **how: Any) -> Any:
        with self.unit("move the positions"):
            mirror_file.set_positions(self._connection, "mirror", cut.positions)
        return apply(self, cut, **how)

    patch.setattr(Applying, "apply", early)


@left_out("a table that a migration rebuilt while the mirror was behind is not compared again when it is not")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Applying, "compare_stale", nothing)


@left_out("what became of columns that a migration removed or renamed is not remembered")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(former_names, "columns_moved", nothing)


# what the database does not say -----------------------------------------------------------------------------------


@left_out("a database that was rolled back is taken to hold what this node published since")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Replica, "lacks_own", lambda *_, **__: False)


@left_out("whatever the log of a database that was rolled back names was written after that")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(reconcile, "unname_landed", nothing)


@left_out("rows beyond the watermark that were back once count as back, whoever wrote since")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ChangeLog, "seen", nothing)


@left_out("a log that was rolled back is taken to be as far as it was")
def _(patch: pytest.MonkeyPatch) -> None:
    set_settled = mirror_file.set_settled

    def keep(connection: apsw.Connection, upto: int | None) -> None:
        if upto is not None:
            set_settled(connection, upto)

    patch.setattr(mirror_file, "set_settled", keep)


# triggers of the application --------------------------------------------------------------------------------------


@left_out("the application's triggers run again for rows of other nodes")
def _(patch: pytest.MonkeyPatch) -> None:
    def loud(connection: apsw.Connection) -> None:
        configure(connection)
        connection.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 1)

    patch.setattr(replica, "configure", loud)


@left_out("a full-text index that triggers keep is not kept for rows of other nodes")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SideEffectTriggers, "_hook", nothing)


# records ----------------------------------------------------------------------------------------------------------


@left_out("a record whose number another node counted too is a conflict like any other")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(numbers, "of_part", lambda *_: {})


@left_out("what refers to a record that gets another number stays with the old one")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(schema_history.Named, "numbered", lambda _, __, ___, part: part)


# the journal ------------------------------------------------------------------------------------------------------


@left_out("what the writer of a pending row saw is forgotten when others change the row")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(merge_base, "remember", nothing)


@left_out("values that give way when a database joins are not written down")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ConflictJournal, "write_local", nothing)


@left_out("values that a fold overrules are not written down")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ConflictJournal, "write", nothing)


@left_out("every writer counts as having folded all that the mirror has")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(KnownRows, "are_known", lambda self, fragment: True)


@left_out("a writer says that it saw the newest of rows that it had changed before")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Outgoing, "current", property(lambda self: True, nothing), raising=False)


@left_out("rows that a fold displaced are not written down")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Fold, "_journal_displaced", nothing)


@left_out("what the writer of a row saw is forgotten when the row's change set is voided")
def _(patch: pytest.MonkeyPatch) -> None:
    def forgetful(self: Applying, number: int) -> None:
        self.flights.forget(number)
        self._connection.execute(f"DELETE FROM {merge_base.BASE}")

    patch.setattr(Applying, "never_landed", forgetful)


# another mirror ---------------------------------------------------------------------------------------------------


@left_out("own change sets that an adopted mirror has folded are not told from others'")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(reconcile, "recent_of", lambda *_: [])
