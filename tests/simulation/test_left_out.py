"""The simulation can fail: whichever rule is left out, a schedule soon breaks a property, and passes with the rule."""

from __future__ import annotations

import pytest

from tests.simulation.properties import BrokenError
from tests.simulation.rules import RULES
from tests.simulation.run import run

SEEDS = {
    "no row counts as pending: the mirror's rows replace what was written here meanwhile": 1,
    "a merge after the own change set came back starts from the mirror, not from what was published": 40,
    "a row that others changed while the own change set was under way is not merged when that comes back": 593,
    "the log is cleared up to its end, not to where the change set that came back was read": 1,
    "a restarted node publishes what the log names before it has folded to the end": 11,
    "rows that an insert with OR REPLACE displaces are not logged": 179,
    "rows that an update with OR REPLACE displaces are not logged": 1066,
    "a merge lifts the watermark over rows that were inserted here and that nothing names": 1,
    "the watermark is lifted when the own change set is back, whoever wrote meanwhile": 3,
    "a new row counts as changed since it was captured, because no trigger could have told": 194,
    "an update that changes the key logs the new key alone": 14,
    "values that SQLite holds equal are taken for the same bits": 86,
    "a row that clashes with a pending one is dropped, not held back": 1,
    "rows that a fold displaced stay in the database": 1,
    "rows that can displace each other live on several shards": 24,
    "a row with a whole key stays on the rowid that a row with NULL in its key claims": 56,
    "keys that SQLite holds equal may live on several shards": 1191,
    "a cut may hold a part of a change set": 5,
    "abort messages void nothing": 5,
    "after a restart reading goes on behind the position, where a change set under way lost its beginning": 64,
    "the database's position moves in no transaction at all": 8,
    "a mirror that a crash left behind is merged again on its way to the database's position": 8,
    "the mirror's position moves a transaction ahead of the rows that it stands for": 39,
    "what became of columns that a migration removed or renamed is not remembered": 63,
    "a database that was rolled back is taken to hold what this node published since": 12,
    "whatever the log of a database that was rolled back names was written after that": 21,
    "rows beyond the watermark that were back once count as back, whoever wrote since": 1,
    "a log that was rolled back is taken to be as far as it was": 6,
    "the application's triggers run again for rows of other nodes": 20,
    "a full-text index that triggers keep is not kept for rows of other nodes": 16,
    "a record whose number another node counted too is a conflict like any other": 15,
    "what refers to a record that gets another number stays with the old one": 15,
    "what the writer of a pending row saw is forgotten when others change the row": 1,
    "values that give way when a database joins are not written down": 27,
    "values that a fold overrules are not written down": 1,
    "every writer counts as having folded all that the mirror has": 1,
    "a writer says that it saw the newest of rows that it had changed before": 24,
    "rows that a fold displaced are not written down": 1,
    "what the writer of a row saw is forgotten when the row's change set is voided": 1289,
    "own change sets that an adopted mirror has folded are not told from others'": 155,
}
"""A schedule that fails without the rule; where the simulation itself changes, any that does is as good."""

STANDING = {
    "rows that are unchanged since a change set in flight was captured are sent again with the next one": 1,
    "what stays in flight is pending only where its values differ": 28,
    "the log is cleared up to a change set that is back before an earlier one": 24,
    "new rows are told from those in flight without an entry in the log": 28,
}
"""The same, where nodes stand still."""

RARE = {
    "tables with indexes that triggers can't see are not compared",
    "rows that VACUUM numbered anew are looked for beyond the old watermark",
    "a table that a migration rebuilt while the mirror was behind is not compared again when it is not",
    "change sets that were captured on top of one that never landed clear the log",
}
"""Rules that no known schedule needs. Those of the watermark, which schedules seldom raise, have tests of their own;
the first one has `tests/parts/db/apply/test_unique.py`, the last one `tests/parts/db/apply/test_captured_ahead.py`."""


@pytest.mark.parametrize("what", [what for what in RULES if what not in RARE])
def test_a_schedule_fails_when(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    RULES[what](monkeypatch)
    with pytest.raises(BrokenError):
        run(STANDING.get(what) or SEEDS[what], still=what in STANDING)


@pytest.mark.parametrize("seed", sorted(set(SEEDS.values())))
def test_the_same_schedules_pass_with_every_rule(seed: int) -> None:
    run(seed)


@pytest.mark.parametrize("seed", sorted(set(STANDING.values())))
def test_those_in_which_nodes_stand_still_pass_with_every_rule(seed: int) -> None:
    run(seed, still=True)
