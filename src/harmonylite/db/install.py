"""Install: adapt triggers, log and mirror to the database's current schema.

Invariant: idempotent; it changes nothing that is right. A table whose triggers vanished (a migration rebuilt it) is
compared whole, and what differs is logged; what happened while the node was not running is never assumed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import apsw

from harmonylite.db.mirror import identities, mirror_file, table_shapes
from harmonylite.db.mirror.altering import MirrorTables
from harmonylite.db.mirror.compare import changed_keys
from harmonylite.db.mirror.database_schema import captured_there, is_remembered, remember_schema, sent_there
from harmonylite.db.mirror.file_facts import header
from harmonylite.db.mirror.former_names import gone_columns
from harmonylite.db.mirror.positions import is_older, mirror_is_behind
from harmonylite.db.mirror.state import get_state, set_state
from harmonylite.db.mirror.stream_names import StreamNames
from harmonylite.db.mirror.stream_shapes import StreamShapes
from harmonylite.db.mirror.table_moves import forget_noted, noted_moves
from harmonylite.db.replica_options import ReplicaOptions
from harmonylite.db.sqlite.connection import rows, transaction, value
from harmonylite.db.sqlite.introspection import Inventory, Listed, TableRules, application_objects, read_inventory
from harmonylite.db.tracking import column_ids, layout, watermarks
from harmonylite.db.tracking.captured_schema import (
    captured_schema,
    has_captured,
    make_table,
    numbers_of,
    read_schema,
    settle,
    settle_all,
)
from harmonylite.db.tracking.change_log import ChangeLog
from harmonylite.db.tracking.column_ids import Columns
from harmonylite.db.tracking.installed import STALE, Installed, schema_version
from harmonylite.db.tracking.tracked_table import TrackedTable, tracking
from harmonylite.db.tracking.triggers import (
    HELD,
    LOG,
    OURS,
    POSITION,
    STATE,
    STATUS,
    WATERMARK,
    private_tables,
    silenced_tables,
    status_view,
    trigger_name,
)
from harmonylite.db.tracking.waiting_schema import take_over
from harmonylite.errors import DatabaseError, MirrorDamagedError
from harmonylite.schema.names import folded
from harmonylite.schema.section import PRAGMA, Known, SchemaChange
from harmonylite.schema.shape import TableShape
from harmonylite.schema.sql import PRIVATE, quote


def install(
    connection: apsw.Connection, options: ReplicaOptions, log: ChangeLog, before: Installed, *, joined: bool
) -> Installed:
    """Adapt everything to the schema; ``joined``: the database was merged with the cluster before; ``before``: what
    this connection had installed until now.

    The database holds the schema's version. If that changed since the last install, VACUUM may have renumbered rows:
    tables without a key are compared whole then, and so are those whose watermark it may have shifted. Raises
    DatabaseBusyError when another connection keeps the write lock, MirrorDamagedError when the mirror can't follow the
    database's schema; with nothing changed.
    """
    rules, replicate = options.rules, options.replicate
    with transaction(connection, "bring the mirror's tables in step"):
        # one transaction sees one schema: between two, an application may make or drop any table
        seen = schema_version(connection)
        inventory = read_inventory(connection, rules, known=before.inventory.read)
        ours = _ours(connection)
        mirror_file.prepare(connection)
        if joined:
            _must_not_go_back(connection, inventory, ours)
        nothing: dict[str, Columns] | None = {} if options.sends_all else None
        columns, mirrors, unfinished = _move_mirror(connection, inventory, ours, nothing, joined=joined)
    with transaction(connection, "install the capture triggers", immediate=True):
        if schema_version(connection) != seen:
            inventory, ours = read_inventory(connection, rules, known=before.inventory.read), _ours(connection)
            columns, mirrors, unfinished = _move_mirror(connection, inventory, ours, columns, joined=joined)
        tracked = tracking(connection, rules, before.by_id, streamed=columns is not None)
        result = _install(connection, tracked, inventory, ours, log, joined=joined, replicate=replicate)
        result.inventory, result.unfinished = inventory, unfinished
        objects = application_objects(connection)
        result.section, captured = _settle(connection, rules, result, objects, columns, mirrors, joined=joined)
        if joined or not get_state(connection, "mirror", "whole"):  # else it is the one of the snapshot that is joined
            remember_schema(connection, objects, captured)
        result.numbers, result.pragmas = numbers_of(captured), [each for each in captured if each.kind == PRAGMA]
        result.version, result.header = schema_version(connection), header(connection)
        if get_state(connection, "main", "schema_version") != result.version:
            set_state(connection, "main", "schema_version", result.version)
    for table in result.tables.values():  # what is busy is forgotten with the log
        if table.id in before.by_id and table is not before.by_id[table.id]:
            table.drop_scratch()
    for number in before.by_id.keys() - result.by_id.keys():
        before.by_id[number].drop_scratch()
    log.forget()
    log.drop_images()
    log.committed()
    return result


def _settle(
    connection: apsw.Connection,
    rules: TableRules,
    made: Installed,
    objects: Iterable[Listed],
    columns: Mapping[str, Columns] | None,
    mirrors: Mapping[str, Columns],
    *,
    joined: bool,
) -> tuple[list[SchemaChange], Sequence[Known]]:
    """Return what changed in the schema since it was captured: all, or, without ``columns``, additions alone; and what
    counts as captured. ``mirrors``: the columns of the mirror's tables.

    The schema of a snapshot counts as captured by a database that was not merged with the cluster yet, as does what the
    mirror remembers where an older version kept no such list.
    """
    new = make_table(connection)
    numbers = {name: table.id for name, table in made.tables.items()}
    now = read_schema(connection, rules, numbers, objects)
    if columns is None:
        remembered = get_state(connection, "mirror", "whole") and (new or not joined) and is_remembered(connection)
        found, kept = settle(connection, rules, now, captured_there(connection, "mirror") if remembered else [])
        identities.keep_none(connection, kept, joined=joined)
        return found, kept
    by_number = {number: dict(columns[name]) for name, number in numbers.items() if name in columns}
    captured = identities.retie(connection, numbers)
    captured, catalog = identities.begin(connection, now, captured, by_number, mirrors, joined=joined)
    there = column_ids.read_all(connection)
    column_ids.write_all(connection, "main", by_number, there)
    column_ids.keep_only(connection, by_number, there)
    identities.tie_mirrors(connection, numbers, captured)
    made.names = StreamNames.read(connection, made.tables.values(), by_number, captured, catalog)
    made.columns = by_number
    return settle_all(connection, rules, now, captured, by_number)


def _must_not_go_back(
    connection: apsw.Connection, inventory: Inventory, ours: Mapping[str, Mapping[str, tuple[int, str]]]
) -> None:
    """Raise MirrorDamagedError where a mirror that follows this database's schema loses values of the cluster.

    A database that is behind its mirror is a backup that was put back. A table or column that it lacks came later, and
    was not dropped: the mirror is made from a snapshot, which brings it where additions travel, or once a migration
    has.
    """
    if not is_older(connection):
        return
    there = read_inventory(connection, mirror_file.EVERY_TABLE, "mirror").tables
    sent = sent_there(connection)  # no value is lost with a column that its own database had not sent yet
    found = [f"table {name}" for name in _missing(connection, ours)] + [
        f"column {column} of table {name}"
        for name, shape in inventory.tables.items()
        for column in table_shapes.lost(there.get(name), shape)
        if column not in gone_columns(connection, name)
        and (sent is None or folded(column) in sent.get(folded(name), ()))
    ]
    if found:
        raise MirrorDamagedError(f"the database is older than {found[0]}, which its mirror has: a backup was put back")


def _missing(connection: apsw.Connection, ours: Mapping[str, Mapping[str, tuple[int, str]]]) -> list[str]:
    """Return the mirror's tables that the database had and has under no name now, and was not seen to drop."""
    renamed = {number for triggers_there in ours.values() for number, _ in triggers_there.values()}
    known = {name: number for name, number in mirror_file.table_ids(connection).items() if number}
    if not known:
        return []
    present = {folded(name) for (name,) in rows(connection, "SELECT name FROM main.sqlite_schema WHERE type = 'table'")}
    return [name for name, number in known.items() if folded(name) not in present and number not in renamed]


def _ours(connection: apsw.Connection) -> dict[str, dict[str, tuple[int, str]]]:
    """Return our triggers: per table, name to table id and SQL."""
    found: dict[str, dict[str, tuple[int, str]]] = {}
    for name, table, sql in rows(
        connection, "SELECT name, tbl_name, sql FROM main.sqlite_schema WHERE type = 'trigger'"
    ):
        match = OURS.match(name)
        if match:
            found.setdefault(table, {})[name] = (int(match[1]), sql)
    return found


def _move_mirror(
    connection: apsw.Connection,
    inventory: Inventory,
    ours: Mapping[str, Mapping[str, tuple[int, str]]],
    seen: Mapping[str, Columns] | None,
    *,
    joined: bool,
) -> tuple[dict[str, Columns] | None, Mapping[str, Columns], bool]:
    """Rename and reshape the mirror's tables; the database's lock need not be taken for it.

    ``seen``: columns of the database's tables that were found last; None: their identities are not kept. Return
    those of now, the mirror's, and whether its tables are not yet as they should be: unique indexes come behind rows
    (see `StreamShapes.left_out`), and a STRICT table behind its converted values.
    """
    known = mirror_file.table_ids(connection)
    knows = seen is not None and has_captured(connection)
    captured = captured_schema(connection, "table") if knows else []
    if knows:
        live = {number for there in ours.values() for number, _ in there.values()}
        identities.find_mirrors(connection, known, captured, live)
    numbers = {name: next((n for n, _ in ours.get(name, {}).values()), None) for name in inventory.tables}
    names = {number: name for name, number in known.items() if number}
    alike: dict[str, list[str]] = {}
    for name in known:
        alike.setdefault(folded(name), []).append(name)
    noted, renamed = noted_moves(connection), dict[str, str]()
    carried = identities.carried(connection, numbers, captured) if knows else numbers
    for name, number in carried.items():
        old = names.get(number) if number is not None else None
        # a name that differs in case alone is one that SQLite has already, also where the table was made again
        old = next((n for n in alike.get(folded(name), ()) if n != name), old)
        if old is not None and old != name:
            renamed[old] = name
    kept = set(carried.values())
    for name in set(renamed.values()) - renamed.keys():
        if name in known and not known[name] and table_shapes.drop_if_empty(connection, name):
            del known[name]
        elif seen is not None and name in known and known[name] not in kept:
            table_shapes.drop_gone(connection, name)
            del known[name]
    table_shapes.rename_all(connection, _free(renamed, known))
    columns, there, stream = None, dict[str, Columns](), None
    if seen is not None:
        found = identities.find_columns(connection, inventory, carried, seen, knows=knows, joined=joined)
        (columns, there), stream = found, StreamShapes.read(connection)
    mirror = MirrorTables.read(connection)
    done = table_shapes.conforming(inventory.tables.values(), mirror, there, columns, stream)
    left = [shape for name, shape in inventory.tables.items() if name not in done]
    for shape in left:
        here = columns[shape.name] if columns is not None else None
        table_shapes.conform(connection, shape, noted.get(shape.name), columns=here, stream=stream, mirror=mirror)
    for shape in inventory.unwritable.values():
        table_shapes.keep_alone(connection, shape)
    behind = stream is not None and stream.left_out
    there = columns or there
    if left and not behind:
        now = MirrorTables.read(connection)
        behind = len(table_shapes.conforming(left, now, there, columns, stream)) < len(left)
    return columns, there, behind


def _free(renamed: dict[str, str], known: Mapping[str, int | None]) -> dict[str, str]:
    """Return the renames whose new name is no other table's, or of one that gets another name itself."""
    while taken := [old for old, new in renamed.items() if new in known and new not in renamed]:
        renamed = {old: new for old, new in renamed.items() if old not in taken}
    return renamed


def _install(
    connection: apsw.Connection,
    tracked: Callable[[int, TableShape], TrackedTable],
    inventory: Inventory,
    ours: dict[str, dict[str, tuple[int, str]]],
    log: ChangeLog,
    *,
    joined: bool,
    replicate: bool,
) -> Installed:
    result = Installed(warnings=dict(inventory.warnings))
    now = schema_version(connection)
    _private_tables(connection, inventory)
    moved = get_state(connection, "main", "schema_version") not in (None, now)
    silenced = silenced_tables(connection)
    known = mirror_file.table_ids(connection)
    unlike = table_shapes.unlike(connection)
    fresh: list[tuple[TrackedTable, bool]] = []
    waited = mirror_file.unwritable_before(connection)
    result.joining = sorted(waited & inventory.tables.keys()) if joined else []
    mirror_file.remember_unwritable(connection, {*inventory.unwritable, *result.joining})
    for name, shape in inventory.tables.items():
        there = ours.pop(name, {})
        number = next((n for n, _ in there.values()), None)
        replaced = number is not None and known.get(name) not in (None, number)  # renamed to what another was called
        created = number is None or replaced
        if number is None:
            number = int(get_state(connection, "main", "next_table") or 1)
            set_state(connection, "main", "next_table", number + 1)
        table = result.tables[name] = result.by_id[number] = tracked(number, shape)
        unseen = _triggers(connection, table, there, renew=folded(name) in silenced)
        checked = joined and name not in result.joining  # those are compared when they join
        if checked and created:
            if name in known and known[name] is None and replicate:
                result.returned.append(name)
            else:
                fresh.append((table, name not in known))
        elif checked and (unseen or name in unlike or (moved and not watermarks.still_holds(connection, table))):
            fresh.append((table, False))
        if known.get(name, -1) != number:
            # what is held of a table that was rebuilt is held still: else it would look like rows deleted here
            if replaced:
                connection.execute(f"DELETE FROM main.{quote(HELD)} WHERE t IN (?, ?)", (number, known[name]))
            connection.execute(f"UPDATE main.{quote(HELD)} SET t = ? WHERE t = ?", (number, known.get(name)))
            mirror_file.set_table_id(connection, name, number)
    forget_noted(connection)
    table_shapes.set_unlike(connection, ())
    _forget_tables(connection, inventory, ours, known)
    # What a database that is older than its mirror has otherwise was not changed here: `join.reconcile` sees to it.
    older = bool(fresh) and is_older(connection)
    for table, empty in fresh:
        everything = f"SELECT {table.shape.read_key('d')} FROM {table.main} AS d"
        if older:  # what is compared later has its new rows pending now, for what comes in before would undo them
            log.append(table, everything + watermarks.rows_above(table))
        else:
            log.append(table, everything if empty else changed_keys(table, replicate=replicate))
    compared = {table.id for table, _ in fresh}
    behind = compared if older or (compared and mirror_is_behind(connection)) else set()
    result.stale = _stale(connection, behind, result)
    watermarks.begin(connection, result.by_id, compared)
    return result


def _forget_tables(
    connection: apsw.Connection,
    inventory: Inventory,
    ours: Mapping[str, Mapping[str, tuple[int, str]]],
    known: Mapping[str, int | None],
) -> None:
    """Drop the triggers in ``ours``, whose tables are no longer replicated, and the numbers of dropped tables."""
    for trigger in (trigger for left in ours.values() for trigger in left):
        connection.execute(f"DROP TRIGGER main.{quote(trigger)}")
    for name, number in known.items():
        if number and name not in inventory.tables:
            kept = name in inventory.unwritable
            mirror_file.set_table_id(connection, name, None if kept else mirror_file.DROPPED)


def _stale(connection: apsw.Connection, behind: set[int], result: Installed) -> frozenset[int]:
    """Return which tables are to be compared once database and mirror are at one position, and keep that.

    Forget held-back rows of dropped tables.
    """
    before = {int(number) for number in str(get_state(connection, "main", STALE) or "").split()}
    stale = frozenset((before | behind) & result.by_id.keys())
    if stale != before:
        set_state(connection, "main", STALE, " ".join(map(str, sorted(stale))))
    for (number,) in rows(connection, f"SELECT DISTINCT t FROM main.{quote(HELD)}"):
        if number not in result.by_id:
            connection.execute(f"DELETE FROM main.{quote(HELD)} WHERE t = ?", (number,))
    return stale


def _private_tables(connection: apsw.Connection, inventory: Inventory) -> None:
    for (name,) in rows(connection, "SELECT name FROM main.sqlite_schema WHERE type = 'table'"):
        if not name.startswith(PRIVATE) and name.lower().startswith(PRIVATE):
            raise DatabaseError(f"table {name} has a name that SQLite does not distinguish from ours: rename it")
    width = max([2, *(len(shape.keys) for shape in inventory.tables.values())])
    there = value(connection, "SELECT 1 FROM main.sqlite_schema WHERE name = ?", (LOG,))
    earlier = value(connection, "SELECT 1 FROM main.sqlite_schema WHERE name = ?", (WATERMARK,))
    if earlier:  # its view shows all rows of the positions
        connection.execute(f"DROP VIEW IF EXISTS main.{quote(STATUS)}")
    layout.make(connection, "main", private_tables(width) | column_ids.LAYOUT)
    connection.execute(status_view())
    take_over(connection)
    if not there:
        connection.execute(f"INSERT OR IGNORE INTO main.{quote(STATE)} VALUES ('cleared', 0)")
    if earlier:
        watermarks.move_here(connection)


def _triggers(
    connection: apsw.Connection, table: TrackedTable, there: Mapping[str, tuple[int, str]], *, renew: bool
) -> bool:
    """Create or replace the triggers of one table that are not as they should be; ``renew``: all, as the newest.

    Return True when rows may have passed them unseen: a newer trigger may have silenced them, or what the insert
    trigger took for the rowid may have been an ordinary column for a while.
    """
    wanted, shape = table.triggers, table.shape
    for name, (_, sql) in there.items():
        if renew or name not in wanted or sql != wanted[name]:
            connection.execute(f"DROP TRIGGER main.{quote(name)}")
    for name, sql in wanted.items():
        if renew or name not in there or there[name][1] != sql:
            connection.execute(sql)
    before = there.get(trigger_name(table.id, "insert"), (table.id, ""))[1]
    marked = WATERMARK in before or POSITION in before
    return renew or (marked and f"NEW.{quote(shape.rowid)} <=" not in before)
