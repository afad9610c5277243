"""The checklist's rows about the application's database.

Invariant: pure, as `harmonylite.doctor.rows`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from harmonylite.doctor.facts import Facts

Judgement = tuple[Literal["ok", "advice", "problem", "unknown"], str, str, str]

NAMED = 5
"""Tables that a line names; it only counts any more."""


def wal(facts: Facts) -> Judgement:
    """Judge the journal mode."""
    recommended, why = (
        "wal",
        "readers and writers don't wait for each other; the node reads while the application writes",
    )
    if facts.database.error:
        return "unknown", facts.database.error, recommended, why
    return ("ok" if facts.database.journal == "wal" else "advice"), facts.database.journal, recommended, why


def transactions(facts: Facts) -> Judgement:
    """Judge what the node does for transactions of the application that read and then write."""
    patience = facts.settings.merge.patience
    why = (
        "a plain BEGIN that has read fails with 'database is locked' when another process commits"
        " before its first write; docs/operating.md has the switch of each library"
    )
    found = f"merges wait up to {patience} ms for open ones" if patience else "merges wait for none"
    return ("ok" if patience else "advice"), found, "BEGIN IMMEDIATE where a transaction will write", why


def keys(facts: Facts) -> Judgement:
    """Judge tables without a primary key."""
    return _tables(
        facts,
        facts.database.keyless,
        "advice",
        "a primary key on every table",
        "rows without one are known by rowid: two nodes that insert count the same rowids, so half of the rows"
        " end in the conflict journal (20 of 40); VACUUM may renumber them",
    )


def autoincrement(facts: Facts) -> Judgement:
    """Judge keys that each node counts by itself."""
    text = "UUID or ULID keys, made by the application"
    why = (
        "two nodes give out the same number at once: the later row in the order wins, the other goes to the journal;"
        " a range for each node helps only where the application gives the numbers itself: SQLite counts on from the"
        " highest that it sees"
    )
    worst = [f"{name} (AUTOINCREMENT)" for name in facts.database.autoincrement]
    others = [name for name in facts.database.counted if name not in facts.database.autoincrement]
    return _tables(facts, [*worst, *others], "advice", text, why)


def left_out(facts: Facts) -> Judgement:
    """Judge tables that can't be replicated."""
    why = "what is not replicated differs from node to node"
    return _tables(facts, facts.database.left_out, "problem", "none, or exclude them in [tables]", why)


def _tables(
    facts: Facts, names: Sequence[str], level: Literal["advice", "problem"], recommended: str, why: str
) -> Judgement:
    if facts.database.error:
        return "unknown", facts.database.error, recommended, why
    if not names:
        return "ok", f"none of {facts.database.tables}", recommended, why
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return level, f"{', '.join(sorted(names)[:NAMED])}{more}", recommended, why
