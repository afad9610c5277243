"""The database comes into WAL mode as soon as no other connection is in the way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from harmonylite.db.replica import Replica
from harmonylite.db.replica_options import ReplicaOptions
from harmonylite.db.sqlite.wal_mode import WARNING


@pytest.fixture
def app(tmp_path: Path) -> Iterator[apsw.Connection]:
    """Yield an application's connection to a database in rollback mode."""
    connection = apsw.Connection(str(tmp_path / "app.db"))
    connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 'x')")
    yield connection
    connection.close()


def mode(app: apsw.Connection) -> object:
    app.execute("SELECT count(*) FROM t").fetchall()  # the pragma alone would tell what the connection remembers
    return app.execute("PRAGMA journal_mode").get


def test_a_reader_that_kept_the_database_from_wal_mode_keeps_it_only_as_long_as_it_reads(
    tmp_path: Path, app: apsw.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = Replica(ReplicaOptions(database=tmp_path / "app.db", folder=tmp_path / "m", node="n", session="s"))
    with monkeypatch.context() as patch:  # the reader ended between two steps of opening
        patch.setattr(replica.wal, "enter", lambda _: False)
        replica.open()
    try:
        assert (mode(app), replica.warnings["journal mode"]) == ("delete", WARNING)
        app.execute("BEGIN; SELECT * FROM t")
        assert not replica.wal.enter(replica.connection)
        assert "journal mode" in replica.warnings
        app.execute("COMMIT")
        assert replica.wal.enter(replica.connection)
        assert (mode(app), "journal mode" in replica.warnings) == ("wal", False)
        replica.reinstall()
        assert "journal mode" not in replica.warnings
        app.execute("INSERT INTO t VALUES (2, 'y')")
        assert replica.count_pending() >= 1
    finally:
        replica.close()
