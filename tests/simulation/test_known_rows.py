"""What the fold doesn't compare would have shown nothing: its writer saw the mirror's rows as they are."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from harmonylite.changes.reassembler import Fragment
from harmonylite.db.apply.fold import Fold
from harmonylite.db.mirror.conflict_journal import ConflictJournal, Overruled
from harmonylite.db.tracking.tracked_table import TrackedTable
from harmonylite.model import ChangeSetId, SqlValue
from tests.simulation.run import run


@pytest.mark.parametrize("seeds", [range(7_400_001, 7_400_011), range(7_400_011, 7_400_021)], ids=str)
@pytest.mark.parametrize("changers", [0, 2], ids=["rows", "rows and schemas"])
def test_a_writer_that_saw_all_overrules_nothing_unseen(
    monkeypatch: pytest.MonkeyPatch, seeds: range, changers: int
) -> None:
    said: dict[tuple[ChangeSetId, int], bool] = {}
    judge, write = Fold._has_seen_all, ConflictJournal.write

    def compared(fold: Fold, fragment: Fragment) -> bool:
        said[fragment.id, fragment.shard] = judge(fold, fragment)
        return False  # so everything is compared

    def unforeseen(
        journal: ConflictJournal,
        fragment: Fragment,
        table: TrackedTable,
        key: Sequence[SqlValue],
        kind: str,
        values: Sequence[Overruled],
    ) -> None:
        foreseen = kind in ("update", "delete") and not table.shape.identity
        if foreseen and values and said.get((fragment.id, fragment.shard)):
            raise AssertionError(
                f"{fragment.id} had seen all, and {kind}s {key} of {table.shape.name} unseen: {values}"
            )
        write(journal, fragment, table, key, kind, values)

    monkeypatch.setattr(Fold, "_has_seen_all", compared)
    monkeypatch.setattr(ConflictJournal, "write", unforeseen)
    for seed in seeds:
        run(seed, steps=60, changers=changers)
    assert {True, False} <= set(said.values())
