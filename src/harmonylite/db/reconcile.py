"""Reconcile a database and a mirror that share no ancestor.

Invariant: no row that only this database has is lost, and no value gives way without a line in the conflict journal.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from functools import partial

import apsw

from harmonylite.changes.epochs import Lineage
from harmonylite.changes.sharding import home_of, shard_of
from harmonylite.db.apply import renumbering
from harmonylite.db.apply.merge import Merge
from harmonylite.db.apply.own_change_sets import name_rows
from harmonylite.db.apply.staging import Folded
from harmonylite.db.capture import merge_base
from harmonylite.db.mirror import mirror_file
from harmonylite.db.mirror.compare import changed_keys, differing_keys, only_here
from harmonylite.db.mirror.compare import compare as compare_table
from harmonylite.db.mirror.conflict_journal import ConflictJournal, Overruled, recent_behind, recent_of
from harmonylite.db.mirror.positions import (
    database_lineage,
    is_older,
    read_lineage,
    shards_ahead,
    write_history,
)
from harmonylite.db.mirror.schema_history import Named, Own
from harmonylite.db.mirror.state import set_state
from harmonylite.db.rolled_back import unname_landed
from harmonylite.db.sqlite.connection import value
from harmonylite.db.sqlite.lossless import exact_rows, same_bits
from harmonylite.db.sqlite.other_transactions import OtherTransactions
from harmonylite.db.tracking.change_log import ChangeLog
from harmonylite.db.tracking.installed import STALE, Installed
from harmonylite.db.tracking.tracked_table import TrackedTable
from harmonylite.db.tracking.triggers import HELD
from harmonylite.model import Position
from harmonylite.schema.sql import PRIVATE, quote

Unit = Callable[[str], AbstractContextManager[None]]
_UNSEEN = quote(PRIVATE + "unseen")


def copy_into_mirror(
    connection: apsw.Connection, installed: Installed, log: ChangeLog, unit: Unit, history: str = ""
) -> int:
    """Make the mirror a copy of the database; return the newest log id in it. The write lock is not held."""
    with unit("copy the database into the mirror"):
        newest = log.refresh(installed.by_id)
        for table in installed.tables.values():
            connection.execute(f"DELETE FROM {table.mirror}")
            connection.execute(
                f"{table.insert_into} {table.mirror}({table.shape.write()})"
                f" SELECT {table.shape.read_all('d')} FROM {table.main} AS d"
            )
        set_state(connection, "mirror", "whole", 1)
        if history:
            write_history(connection, "mirror", Lineage(history))
    return newest


def join_first(connection: apsw.Connection, installed: Installed, log: ChangeLog, unit: Unit, newest: int) -> None:
    """Make the database joined, with what was logged up to ``newest`` in the mirror."""
    with unit("join as the first node"):
        log.clear(newest)
        _set_positions(connection)


def reconcile(
    connection: apsw.Connection,
    installed: Installed,
    log: ChangeLog,
    journal: ConflictJournal,
    unit: Unit,
    *,
    first: bool,
    replicate: bool,
    keep_log: bool = False,
) -> int:
    """Resolve every difference between database and mirror in one transaction; see `Replica.reconcile`."""
    before = journal.written
    sent = []
    if not first and is_older(connection):
        sent = recent_behind(connection, journal.node, dict.fromkeys(mirror_file.positions(connection, "mirror"), 0))
    with unit("bring database and mirror together"):
        _set_positions(connection)
        set_state(connection, "mirror", "whole", 1)
        log.name_new(installed.tables.values())
        newest = log.refresh(installed.by_id)
        unname_landed(connection, installed, log, sent)
        connection.execute(f"DELETE FROM main.{quote(HELD)}")
        if first and not keep_log:
            log.clear(newest)
        if first and replicate:
            renumbering.join(connection, log, installed.tables, installed.tables.values())
        # of a table that was rebuilt before it could be compared, nothing shows which rows were written here
        for table in installed.tables.values() if first else [installed.by_id[number] for number in installed.stale]:
            log.append(table, only_here(table))
        if first or installed.stale:
            set_state(connection, "main", STALE, "")
            log.refresh(installed.by_id)
        merging = Merge(connection, log)
        for table in installed.tables.values() if replicate else ():
            if not (first and _fill(connection, table)):
                _take_the_mirrors(connection, table, journal, merging)
        log.watermarks.raise_all(installed.tables.values())
    installed.stale = frozenset()
    return journal.written - before


def _take_the_mirrors(
    connection: apsw.Connection, table: TrackedTable, journal: ConflictJournal, merging: Merge
) -> None:
    """Give every row that differs and is not logged the mirror's values; the database's go to the journal."""
    touch(connection, table, differing_keys(table))
    if table.logged:
        connection.execute(f"DELETE FROM {table.scratch('touched')} AS x WHERE {table.in_logged}")
    _journal_touched(connection, table, journal)
    merging.table(table, Folded(table, touched=True), held=False)


def join_tables(
    connection: apsw.Connection,
    installed: Installed,
    log: ChangeLog,
    journal: ConflictJournal,
    unit: Unit,
    *,
    replicate: bool,
) -> None:
    """Reconcile tables that were not replicated here until now: rows that only the database has are logged."""
    if not installed.joining:
        return
    with unit("join a table"):
        log.watermarks.log_ranges(installed.tables.values())
        tables = [installed.tables[name] for name in installed.joining]
        if replicate:
            renumbering.join(connection, log, installed.tables, tables)
        for table in tables:
            log.append(table, only_here(table))
        log.refresh(installed.by_id)
        merging = Merge(connection, log)
        for table in tables if replicate else ():
            _take_the_mirrors(connection, table, journal, merging)
        log.watermarks.raise_all(installed.tables.values())
        mirror_file.remember_unwritable(connection, mirror_file.unwritable_before(connection) - set(installed.joining))


def adopt(
    connection: apsw.Connection,
    installed: Installed,
    log: ChangeLog,
    *,
    node: str,
    shards: int,
    replicate: bool,
    further: Collection[int] = (),
    sent: Mapping[int, int] | None = None,
) -> None:
    """Merge what a newer mirror has over ``base``, the mirror until now; runs in the caller's transaction.

    Change sets of this node that the newer mirror folded meanwhile distinguish a value that was set back from an
    untouched one. ``sent``: where those begin that this node sent before its failover, as `recent_ends` says it; what
    was done to their rows since is published again. A crash may have left the database further than the new mirror on
    some shard: rows of that shard are left alone, and the node folds up to the database's position before it merges
    again. Both are at the end of a whole batch, so the further of the two on each shard is, too. ``further``: shards on
    which this node knows more; see `keep_mine`.
    """
    merged = database_lineage(connection, "base")
    newer, until = (read_lineage(connection, schema) for schema in ("mirror", "base"))
    ahead = shards_ahead(merged, newer) if merged.history == newer.history else set()
    _set_positions(connection, {s: p for s, p in newer.positions.items() if s not in ahead})
    ahead |= set(further)
    log.name_new(installed.tables.values())
    log.refresh(installed.by_id)
    named = Named(connection, installed.tables, installed.numbers, installed.names)
    own = Own(named, recent_of(connection, node, sent))
    based = {name for (name,) in connection.execute("SELECT name FROM base.sqlite_schema WHERE type = 'table'")}
    if replicate:
        renumbering.find_again(connection, log, installed.tables, based & set(installed.tables), own)
    merge_base.lay_over(connection, own)
    if sent is not None:
        name_rows(log, own)
        log.refresh(installed.by_id)
    # A database that is further than its mirror may differ from it also where the old mirror and the new one agree.
    crashed = merged.history != until.history or bool(shards_ahead(merged, until))
    merging = Merge(connection, log, own=own)
    for table in installed.tables.values() if replicate else ():
        if table.shape.pinned and home_of(table.shape, shards) in ahead:
            continue
        touch(connection, table, differing_keys(table, table.base if table.shape.name in based else table.main))
        if crashed:
            unlogged = f"WITH x({table.key_list}) AS ({differing_keys(table)}) SELECT x.* FROM x"
            touch(connection, table, f"{unlogged} WHERE NOT {table.in_logged}")
        if ahead and not table.shape.pinned:
            _leave_alone(connection, table, ahead, shards)
        merging.table(table, Folded(table, touched=True), held=True)
    log.watermarks.raise_all(installed.tables.values())


def _leave_alone(connection: apsw.Connection, table: TrackedTable, ahead: set[int], shards: int) -> None:
    """Remove the keys of the shards ``ahead`` from the touched ones."""
    reads = ["rowid", *(f"k{i}" for i in range(len(table.shape.keys)))]
    for number, *key in list(exact_rows(connection, reads, f"FROM {table.scratch('touched')}")):
        pinned = table.shape.pinned
        if (home_of(table.shape, shards) if pinned else shard_of(table.shape.name, key, shards)) in ahead:
            connection.execute(f"DELETE FROM {table.scratch('touched')} WHERE rowid = ?", (number,))


def keep_mine(
    connection: apsw.Connection,
    installed: Installed,
    log: ChangeLog,
    *,
    shards: int,
    further: Collection[int] | None,
    replicate: bool,
) -> int:
    """Log every row in which the database differs from a mirror that knows less; return how many are logged.

    ``further``: the shards on which it knows less; None: on all. Held rows stay held. Runs in the caller's transaction.
    """
    _set_positions(connection)
    log.refresh(installed.by_id)
    for table in installed.tables.values():
        terms = " AND ".join(f"h.k{i} IS x.k{i}" for i in range(len(table.shape.keys)))
        held = f"SELECT 1 FROM main.{quote(HELD)} AS h WHERE h.t = {table.id} AND {terms}"
        keys = changed_keys(table, replicate=replicate)
        mine = f"WITH x({table.key_list}) AS ({keys}) SELECT x.* FROM x WHERE NOT EXISTS ({held})"
        if further is not None and shards > 1:
            touch(connection, table, mine)
            _leave_alone(connection, table, set(range(shards)) - set(further), shards)
            mine = f"SELECT {table.key_list} FROM {table.scratch('touched')}"
        log.append(table, mine)
        table.empty("touched")
    log.refresh(installed.by_id)
    return sum(table.logged for table in installed.tables.values())


def _set_positions(connection: apsw.Connection, at: Mapping[int, Position] | None = None) -> None:
    """Give the database the mirror's positions, or ``at`` in the mirror's epoch."""
    lineage = read_lineage(connection, "mirror")
    mirror_file.set_database_positions(connection, lineage.positions if at is None else at)
    write_history(connection, "main", lineage)
    set_state(connection, "main", "joined", 1)
    # a database that was rolled back counts on from where it was
    mirror_file.set_settled(connection, None)
    pair = secrets.token_hex(8)
    for schema in ("main", "mirror"):
        set_state(connection, schema, mirror_file.PAIR, pair)


def bring_back(connection: apsw.Connection, installed: Installed, log: ChangeLog, unit: Unit) -> None:
    """Merge the mirror's rows into tables that were dropped and created again."""
    if not installed.returned:
        return
    with unit("bring back a table"):
        log.name_new(installed.tables.values())
        log.refresh(installed.by_id)
        merging = Merge(connection, log)
        for name in installed.returned:
            table = installed.tables[name]
            touch(connection, table, differing_keys(table))
            merging.table(table, Folded(table, touched=True), held=False)
        log.watermarks.raise_all(installed.tables.values())


def touch(connection: apsw.Connection, table: TrackedTable, select: str) -> None:
    """Add the keys that ``select`` returns to the touched ones."""
    connection.execute(f"INSERT OR IGNORE INTO {table.scratch('touched')}({table.key_list}) SELECT * FROM ({select})")


def _fill(connection: apsw.Connection, table: TrackedTable) -> bool:
    """Copy the mirror's rows into a table that is empty and of which nothing is logged; return whether that is so."""
    if table.logged or value(connection, f"SELECT 1 FROM {table.main} LIMIT 1") is not None:
        return False
    shape = table.shape
    connection.execute(
        f"{table.insert_into} {table.main}({shape.write()}) SELECT {shape.read_all('m')} FROM {table.mirror} AS m"
    )
    return True


def _journal_touched(connection: apsw.Connection, table: TrackedTable, journal: ConflictJournal) -> None:
    """Journal the database's values of touched rows that give way to the mirror's."""
    shape = table.shape
    width = len(shape.columns)
    there = f"EXISTS (SELECT 1 FROM {table.mirror} AS e WHERE {shape.same('e', 'x')})"
    reads = [*(shape.read(c, "d") for c in shape.columns), *(shape.read(c, "m") for c in shape.columns), there]
    rest = (
        f"FROM {table.scratch('touched')} AS x CROSS JOIN {table.main} AS d ON {shape.same('d', 'x')}"
        f" LEFT JOIN {table.mirror} AS m ON {shape.same('m', 'x')}"
    )
    for row in exact_rows(connection, reads, rest):
        mine, theirs, present = row[:width], row[width : 2 * width], row[-1]
        overruled = [
            Overruled(i, theirs[i], mine[i])
            for i in range(width)
            if (i in shape.compared if present else shape.columns[i].key < 0) and not same_bits(mine[i], theirs[i])
        ]
        journal.write_local(table, mine, "join", overruled)


def log_unlogged(
    connection: apsw.Connection,
    log: ChangeLog,
    unit: Unit,
    others: OtherTransactions,
    tables: Iterable[TrackedTable],
    *,
    replicate: bool,
) -> int:
    """Log the rows of suspect tables that differ and that the log doesn't name; return how many.

    The comparison holds no lock; what it found is logged politely. ``replicate`` False: none is known to have gone, see
    `compare.changed_keys`.
    """
    found = 0
    for table in tables:
        if table.suspect and replicate:
            with unit("look for unseen changes"):
                unseen = compare_table(connection, table, unlogged=True)
                if not unseen.equal:
                    connection.execute(f"CREATE TEMP TABLE {_UNSEEN} AS {differing_keys(table)}")
            if not unseen.equal:
                try:
                    others.politely(partial(_log_unseen, log, unit, others, table))
                finally:
                    connection.execute(f"DROP TABLE temp.{_UNSEEN}")
                found += unseen.missing + unseen.extra + unseen.different
        table.suspect = False
    return found


def _log_unseen(log: ChangeLog, unit: Unit, others: OtherTransactions, table: TrackedTable, until: float) -> None:
    others.wait(until, again=True)
    with unit("log unseen changes"):
        log.append(table, f"SELECT * FROM temp.{_UNSEEN}")
