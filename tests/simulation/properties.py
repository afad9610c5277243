"""What must hold of the simulated cluster, always and once it has come to rest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import apsw

from harmonylite.db.replica import Replica
from harmonylite.db.sqlite.lossless import exact, exact_rows
from harmonylite.db.tracking.tracked_table import TrackedTable
from harmonylite.db.tracking.watermarks import new_rows
from harmonylite.schema.sql import quote
from tests.simulation import additions, reshaping
from tests.simulation.foreign import are_replicated
from tests.simulation.node import Node
from tests.simulation.rarer import GROWN, MEMO


class BrokenError(AssertionError):
    """A property does not hold."""


def must(holds: bool, what: str) -> None:
    """Raise BrokenError unless ``holds``."""
    if not holds:
        raise BrokenError(what)


def canon(row: Sequence[Any]) -> tuple[str, ...]:
    """Return a row as text that tells apart all that SQLite tells apart."""
    return tuple(f"{type(value).__name__}:{value!r}" for value in row)


def rows_of(connection: apsw.Connection, table: TrackedTable, schema: str) -> dict[tuple[str, ...], tuple[str, ...]]:
    """Return the rows of a table by key."""
    shape = table.shape
    reads = [shape.read(c, "t") for c in shape.columns]
    found = exact_rows(connection, reads, f"FROM {schema}.{quote(shape.name)} AS t")
    return {canon(row[: len(shape.keys)]): canon(row) for row in found}


# always ------------------------------------------------------------------------------------------------------------


def check_always(node: Node) -> None:
    """Check what must hold of a node between any two steps, unless nothing was written since the last check."""
    written = (node.session, node.limit is None, node.replica.connection.total_changes())
    if node.replica.schema_changed():
        return  # nothing was captured or merged since the migration
    committed = node.replica.connection.execute("PRAGMA main.data_version").get
    if node.checked == (*written, committed):
        return
    node.checked = (*written, committed)
    _same_mirror(node)
    if node.limit is None:
        _unlogged_equal(node)
    _halves_together(node)
    _own_values(node)


def _same_mirror(node: Node) -> None:
    """Nodes that have folded the same prefix have the same mirror, the shared part of the journal included."""
    replica = node.replica
    held = {
        (name, row)
        for name, table in replica.tables.items()
        for row in rows_of(replica.connection, table, "mirror").values()
    }
    columns = ("tbl", "key", "col", "kind", "winning", "overruled", "winner", "loser", "shard", "seq", "at")
    # which columns a table has while its rows are folded, and what they are called, is each node's own affair
    others = f"FROM mirror.__harmonylite__conflicts WHERE tbl <> '{GROWN.name}' AND tbl NOT GLOB 'x[123]'"
    entries = exact_rows(replica.connection, columns, others)
    held.update(("journal", canon(entry)) for entry in entries)
    position = (*(p.seq for _, p in sorted(replica.positions().items())), _columns(replica))
    there, who = node.world.mirrors.setdefault(position, (frozenset(held), node.name))
    if there != held:
        one, other = sorted(held - there), sorted(there - held)
        must(False, f"mirrors differ at {position}: only {node.name} has {one}, only {who} has {other}")


def _columns(replica: Replica) -> tuple[tuple[str, ...], ...]:
    """Return the columns of the tables that come and change: mirrors are compared at equal schemas."""
    # a table that lost its name to another one has a number behind it
    changing = (name for name in sorted(replica.tables) if name == GROWN.name or name.startswith(reshaping.TABLES))
    return tuple((name, replica.tables[name].shape.mirror_sql) for name in changing)


def _unlogged_equal(node: Node) -> None:
    """A row that is neither logged nor held back is equal in database and mirror."""
    connection = node.replica.connection
    changing = {change.name for change in node.replica._installed.section}
    connection.execute("BEGIN")
    try:
        for name, table in node.replica.tables.items():
            if table.shape.blind or name in changing:  # until a change is sent, the mirror has the stream's types
                continue
            here, there = rows_of(connection, table, "main"), rows_of(connection, table, "mirror")
            if here != there:
                excused = _named(connection, table, node.replica._log.settled)
                for key in here.keys() | there.keys():
                    same = here.get(key) == there.get(key) or _folded(table, key) in excused
                    must(same, f"{node.name}: {name} {key} is {here.get(key)} here, {there.get(key)} in the mirror")
    finally:
        connection.execute("COMMIT")


def _folded(table: TrackedTable, key: Iterable[str]) -> tuple[str, ...]:
    """Return a key as its table compares it, roughly: numbers by value, NOCASE in lower case, RTRIM without spaces."""
    plain = [part.removesuffix(".0").replace("float:-0", "int:0").replace("float:", "int:") for part in key]
    collations = {c.collation for c in table.shape.keys}
    if "RTRIM" in collations:
        plain = [part.replace(" '", "'") for part in plain]
    return tuple(part.lower() if "NOCASE" in collations else part for part in plain)


def _named(connection: apsw.Connection, table: TrackedTable, settled: int) -> set[tuple[str, ...]]:
    """Return the keys that the log or the held rows name, those of rows known by their rowid included."""
    keys = [f"k{i}" for i in range(len(table.shape.keys))]
    cleared = f"(SELECT max(value, {settled}) FROM main.__harmonylite__state WHERE name = 'cleared')"
    logged = exact_rows(connection, keys, f"FROM main.__harmonylite__log WHERE t = {table.id} AND id > {cleared}")
    held = exact_rows(connection, keys, f"FROM main.__harmonylite__held WHERE t = {table.id}")
    new: list[Sequence[Any]] = []
    for above, top in new_rows(connection, table.id, connection.execute(f"SELECT {cleared}").get, "main"):
        rowid = f"d.{quote(table.shape.rowid)}"
        reads = [table.shape.read(column, "d") for column in table.shape.keys]
        new += exact_rows(connection, reads, f"FROM {table.main} AS d WHERE {rowid} > {above} AND {rowid} <= {top}")
    return {_folded(table, canon(key)) for key in (*logged, *held, *new)}


def _halves_together(node: Node) -> None:
    """Rows that were always written together are never seen apart."""
    read = node.app.connection.execute
    left = read("SELECT node, min(v), max(v), count(*) FROM left_half GROUP BY node").fetchall()
    right = dict(_pairs(read("SELECT node, v FROM right_half")))
    seen = {who: low if low == high and count == 2 else f"{low} to {high}" for who, low, high, count in left}
    must(seen == right, f"{node.name} sees halves of transactions: {seen} and {right}")


def _pairs(found: Iterable[Sequence[Any]]) -> list[tuple[Any, Any]]:
    return [(one, other) for one, other in found]


def _own_values(node: Node) -> None:
    """What a node wrote alone is what its own file says, whatever comes back."""
    if node.world.torn:
        return  # another node may publish anew what the lost messages said, later than what was written since
    wanted = node.ledger.counters.get(node.name, 0)
    found = node.app.connection.execute("SELECT n FROM counter WHERE id = ?", (node.name,)).get or 0
    must(found == wanted, f"{node.name} counted {wanted} times and its counter says {found}")
    set_to = node.ledger.flags.get(node.name)
    found = node.app.connection.execute("SELECT up FROM flag WHERE id = ?", (node.name,)).get
    must(found == set_to, f"{node.name} set its flag to {set_to} and reads {found}")


# at rest -----------------------------------------------------------------------------------------------------------


def check_at_rest(nodes: Sequence[Node], *, reshapes: bool = False) -> None:
    """Check what must hold once everything was delivered and nothing is pending."""
    for node in nodes:
        must(node.replica.held_rows() == 0, f"{node.name} still holds rows back")
        _all_equal(node)
        _indexed(node)
        wrong = are_replicated(node.shapes, list(node.replica.tables))
        must(not wrong, f"{node.name}: left out, or replicated, against what it can write: {wrong}")
    first = nodes[0]
    for node in nodes[1:]:
        for name in first.replica.tables:
            one, other = _application_sees(first, name), _application_sees(node, name)
            must(
                one == other, f"{name} differs: only {first.name} has {one - other}, only {node.name} has {other - one}"
            )
        changes = reshaping if reshapes else additions
        one, other = changes.objects(first.app.connection), changes.objects(node.app.connection)
        must(one == other, f"schemas differ: {first.name} has {one - other}, {node.name} has {other - one}")
    _nothing_lost(nodes)


def _application_sees(node: Node, name: str) -> set[tuple[str, ...]]:
    """Return all rows of a table as an application reads them, generated columns included."""
    read = node.app.connection
    # nodes that got the same columns one after the other may have them in another order
    columns = [quote(row[0]) for row in read.execute("SELECT name FROM pragma_table_xinfo(?) ORDER BY name", (name,))]
    shape = node.replica.tables[name].shape
    extra = [shape.read(c, "t") for c in shape.keys if c.pseudo]
    listed = exact([*(f"t.{c}" for c in columns), *extra])
    return {canon(row) for row in read.execute(f"SELECT {listed} FROM {quote(name)} AS t")}


def _all_equal(node: Node) -> None:
    connection = node.replica.connection
    for name, table in node.replica.tables.items():
        here, there = rows_of(connection, table, "main"), rows_of(connection, table, "mirror")
        must(here == there, f"{node.name}: {name} differs at rest: {here.items() ^ there.items()}")


def _indexed(node: Node) -> None:
    """The file is sound, and a full-text index that triggers keep says what its table says."""
    app = node.app.connection
    must(app.execute("PRAGMA integrity_check").get == "ok", f"{node.name}: integrity_check")
    for shape in node.shapes:
        if shape.fts:
            try:
                app.execute(f"INSERT INTO {shape.fts}({shape.fts}, rank) VALUES ('integrity-check', 1)")
            except apsw.Error as error:
                raise BrokenError(f"{node.name}: the index {shape.fts} is not what its table says") from error
            found = app.execute(f"SELECT count(*) FROM {shape.fts} WHERE {shape.fts} MATCH 'red'").get
            wanted = app.execute(f"SELECT count(*) FROM {shape.name} WHERE body LIKE '%red%'").get
            must(found == wanted, f"{node.name}: {shape.fts} finds {found} of {wanted} rows")


def _nothing_lost(nodes: Sequence[Node]) -> None:
    ledger = nodes[0].ledger
    read = nodes[0].app.connection.execute
    missing = ledger.own - {row[0] for row in read("SELECT id FROM own")}
    must(not missing, f"committed rows are gone: {missing}")
    if nodes[0].world.torn:
        return  # see `_own_values`
    counted = dict(_pairs(read("SELECT id, n FROM counter")))
    wanted = {name: n for name, n in ledger.counters.items() if n}
    must(counted == wanted, f"counters say {counted} instead of {wanted}")
    flags = dict(_pairs(read("SELECT id, up FROM flag")))
    must(flags == ledger.flags, f"flags say {flags} instead of {ledger.flags}")
    _nothing_unsaid(nodes)


def _nothing_unsaid(nodes: Sequence[Node]) -> None:
    """What was overruled before another writer saw it stands in a journal."""
    ledger = nodes[0].ledger
    read = nodes[0].app.connection.execute
    tables = [table for table in ("note", MEMO) if table in nodes[0].replica.tables]
    lineage = {value for table in tables for row in read(f"SELECT a, b FROM {table}") for value in row}
    journal = {
        entry.overruled
        for node in nodes
        for name in tables
        for entry in node.replica.conflicts(table=name, limit=1 << 30)
    }
    lost = ledger.notes.keys() - lineage - ledger.replaced - journal
    must(not lost, f"overruled without a line in a journal: {[(v, *ledger.notes[v]) for v in sorted(lost)]}")
    sitting = {row[0] for row in read("SELECT id FROM claim")}
    journal = {
        conflict.key["id"] for node in nodes for conflict in node.replica.conflicts(table="claim", limit=1 << 30)
    }
    lost = ledger.claims - sitting - ledger.replaced - journal
    must(not lost, f"displaced without a line in a journal: {sorted(lost)}")
