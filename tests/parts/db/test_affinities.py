"""A column that another node declared with another affinity is named when a snapshot is taken up, and no other is."""

from __future__ import annotations

from pathlib import Path

import pytest

from harmonylite.db.snapshot import save_copy
from tests.parts.db.fix_replicas import Group

DECLARED = {"TEXT": "VARCHAR(20)", "INTEGER": "BIGINT", "REAL": "DOUBLE", "NUMERIC": "DECIMAL(5, 2)", "BLOB": ""}


@pytest.mark.parametrize("theirs", DECLARED)
@pytest.mark.parametrize("mine", DECLARED)
def test_affinities_that_differ_are_named_with_both(group: Group, tmp_path: Path, mine: str, theirs: str) -> None:
    a = group.member(f'CREATE TABLE "T"(id INTEGER PRIMARY KEY, "V v" {DECLARED[theirs]}, w TEXT)')
    b = group.member(f'CREATE TABLE t(w VARCHAR, id INTEGER PRIMARY KEY, "V v" {DECLARED[mine]})')
    snapshot = tmp_path / "snapshot.db"
    save_copy(a.options.mirror, snapshot)
    b.replica.must_fit(snapshot)
    told = [text for text in b.replica.warnings.values() if "affinity" in text]
    if mine == theirs:
        assert told == []
    else:
        assert len(told) == 1
        assert f"column V v of table t has the affinity {mine} here and {theirs} in the cluster" in told[0]
