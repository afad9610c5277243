"""A database that goes back to an earlier state under a running node is noticed, be it of an earlier history."""

from __future__ import annotations

import pytest

from harmonylite.changes.epochs import Lineage
from harmonylite.db.mirror import mirror_file
from harmonylite.db.mirror.positions import write_history
from harmonylite.db.sqlite.connection import transaction
from harmonylite.errors import DatabaseReplacedError
from harmonylite.model import Position
from harmonylite.node.services import _check_state
from tests.parts.db.fix_replicas import Group

NOW = Lineage("later", {0: Position(0, 2, 3, "new")}, {"earlier": {0: ("old", 9)}})


@pytest.mark.parametrize(
    ("database", "back"),
    [
        (NOW, False),
        (Lineage("later", {0: Position(0, 1, 2, "new")}, NOW.past), True),
        (Lineage("earlier", {0: Position(0, 9, 10, "old")}), True),
        (Lineage("", {0: Position(0, 9, 10, "older")}), False),
    ],
    ids=["where the mirror is", "earlier in its history", "in the history before", "in a history that it never knew"],
)
def test_a_database_is_back_where_its_mirror_was_before(group: Group, database: Lineage, back: bool) -> None:
    (member, _) = group.several(2, "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL)")
    connection = member.replica.connection
    with transaction(connection, "are there"):
        for schema, lineage in (("main", database), ("mirror", NOW)):
            mirror_file.set_positions(connection, schema, lineage.positions)
            write_history(connection, schema, lineage)
    if back:
        with pytest.raises(DatabaseReplacedError, match="went back to an earlier state"):
            _check_state(member.replica, was_joined=True)
    else:
        assert _check_state(member.replica, was_joined=True)
