"""Run a file of SQL in one transaction on the database, as an application would, and follow it through the cluster.

Invariant: either the whole file is committed or nothing of it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import apsw
import rich_click as click

from harmonylite.cli.given import Invocation
from harmonylite.cli.output import plain
from harmonylite.config import Settings
from harmonylite.db.schema_facts import SchemaFacts, read_facts
from harmonylite.errors import ConfigError, DatabaseError, WaitTimeoutError
from harmonylite.node.wiring import table_rules

BUSY_MS = 10_000
"""How long another process's transaction is waited for, in milliseconds."""
FOLLOW_SECONDS = 30.0
"""How long one progress query may take: nodes behind slow lines are waited for."""
POLL_SECONDS = 0.3
"""Seconds between two progress queries."""

Objects = list[tuple[str, str, str]]


@dataclass(frozen=True)
class Changed:
    """What a file changed: the definitions before and after, and the schema's hash then."""

    before: Objects
    after: Objects
    hash: str


def run_file(settings: Settings, file: Path, *, dry: bool) -> Changed:
    """Run ``file`` on the database; ``dry``: and undo it. Raises ConfigError, DatabaseError with nothing changed."""
    try:
        sql = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} can't be read: {error}") from None
    if not settings.db_path.exists():
        raise ConfigError(f"there is no database {settings.db_path}", advice="start the node first")
    connection = apsw.Connection(str(settings.db_path), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        return _run(connection, settings, sql, file, dry=dry)
    except apsw.Error as error:
        advice = "nothing was changed; correct it, and run it again"
        raise DatabaseError(f"{file}: {type(error).__name__}: {error}", advice=advice) from error
    finally:
        connection.close()


def _run(connection: apsw.Connection, settings: Settings, sql: str, file: Path, *, dry: bool) -> Changed:
    connection.set_busy_timeout(BUSY_MS)
    connection.execute("BEGIN IMMEDIATE")
    before = _facts(connection, settings)
    connection.set_authorizer(_no_transactions)
    for _ in connection.execute(sql):
        pass
    connection.set_authorizer(None)
    after = _facts(connection, settings)
    connection.execute("ROLLBACK" if dry else "COMMIT")
    return Changed(before.objects, after.objects, after.hash)


def _no_transactions(action: int, *_: object) -> int:
    """Refuse BEGIN, COMMIT and ROLLBACK: the file is one transaction."""
    return apsw.SQLITE_DENY if action == apsw.SQLITE_TRANSACTION else apsw.SQLITE_OK


def _facts(connection: apsw.Connection, settings: Settings) -> SchemaFacts:
    return read_facts(connection, table_rules(settings))


def follow(given: Invocation, wanted: str, seconds: float, *, quiet: bool) -> dict[str, float]:
    """Wait until all nodes that are up have the schema ``wanted``; return after how many seconds each had it.

    Says so of each, unless ``quiet``. Raises WaitTimeoutError.
    """
    control, there, started = given.control(FOLLOW_SECONDS), dict[str, float](), time.monotonic()
    while True:
        nodes = control.get("/v1/schema/cluster")["nodes"]
        passed = time.monotonic() - started
        up = {str(node["node_id"]): node for node in nodes if node["state"] != "unknown"}
        for name in sorted(up.keys() - there.keys()):
            if up[name]["hash"] == wanted:
                there[name] = round(passed, 1)
                if not quiet:
                    click.echo(f"{plain(name)} has it after {passed:.1f} s")
        left = sorted(up.keys() - there.keys())
        if not left:
            return there
        if passed > seconds:
            why = "; ".join(f"{plain(name)}: {plain(up[name]['why'] or 'not there yet')}" for name in left)
            what = f"not every node has the new schema within {seconds:.0f} s: {why}"
            raise WaitTimeoutError(what, advice="it is committed here; see harmonylite schema status -cluster")
        time.sleep(POLL_SECONDS)
