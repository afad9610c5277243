"""``harmonylite`` without a command: its flags, running the node, and how it ends."""

from __future__ import annotations

import logging
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import apsw
import pytest

from harmonylite.config import Settings
from harmonylite.errors import FencedError, NotRunningError
from harmonylite.identity import acquire_lock, folder_for, identify, nats_folder_for
from tests.parts.cli.fix_cli import NodeDouble, Run

Starts = Callable[[Any], list[Settings]]


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Starts]:
    """Return what puts a double in the node's place: it ends with a code or an error, and keeps its settings."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def install(end: Any) -> list[Settings]:
        seen: list[Settings] = []

        async def run(databases: Sequence[Settings]) -> int:
            seen.extend(databases)
            if isinstance(end, BaseException):
                raise end
            return int(end)

        double = types.ModuleType("harmonylite.node.process")
        double.run = run  # type: ignore[attr-defined]  # a module made by hand
        monkeypatch.setitem(sys.modules, "harmonylite.node.process", double)
        return seen

    yield install
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(False)


@pytest.mark.parametrize("form", ["-config={}", "--config={}", "-config {}", "--config {}"])
def test_the_guides_command_line_runs_the_node(run: Run, starts: Starts, config_file: Path, form: str) -> None:
    seen = starts(0)
    with config_file.open("a") as file:
        file.write('[nats]\nregion = "here"\nhome_region = "there"\n')
    words = [*form.format(config_file).split(), "-cluster-addr", "localhost:4221", "-node-id", "7", "-cleanup=false"]
    result = run(*words, "-cluster-peers", "nats://localhost:4222/,nats://localhost:4223/", "-leaf-servers=nats://x")
    assert result.exit_code == 0, result.stderr
    nats = seen[0].nats
    assert (seen[0].node_id, nats.cluster_addr) == ("7", "localhost:4221")
    assert [url.get_secret_value() for url in nats.cluster_peers] == [
        "nats://localhost:4222/",
        "nats://localhost:4223/",
    ]
    assert [url.get_secret_value() for url in nats.leaf_servers] == ["nats://x"]
    assert not seen[0].logging.verbose


def test_verbose_goes_into_the_settings(run: Run, starts: Starts, config_file: Path) -> None:
    seen = starts(0)
    run("-verbose", "-config", config_file)
    assert seen[0].logging.verbose


def test_without_config_the_file_here_is_read(run: Run, starts: Starts, config_file: Path) -> None:
    seen = starts(0)
    assert run().exit_code == 2
    config_file.rename(config_file.parent / "config.toml")
    assert run().exit_code == 0
    assert len(seen) == 1


def test_a_named_file_that_is_missing_is_an_error(run: Run, starts: Starts, config_file: Path) -> None:
    seen = starts(0)
    config_file.rename(config_file.parent / "config.toml")
    result = run("-config", "none.toml")
    assert (result.exit_code, seen) == (2, [])
    assert "none.toml does not exist" in result.stderr


def test_the_nodes_exit_code_is_the_process_s(run: Run, starts: Starts, config_file: Path) -> None:
    starts(7)
    assert run("-config", config_file).exit_code == 7
    starts(FencedError("another process publishes as n1", advice="give it another node_id"))
    result = run("-config", config_file)
    assert result.exit_code == FencedError.exit_code
    assert "another process publishes as n1" in result.stderr


def test_an_unforeseen_error_is_one_line_and_a_hint(run: Run, starts: Starts, config_file: Path) -> None:
    starts(RuntimeError("nats://user:hunter2@host is odd"))
    result = run("-config", config_file)
    (line,) = [line for line in result.stderr.splitlines() if "unexpected" in line]
    assert line == "harmonylite: unexpected RuntimeError: nats://user:***@host is odd (-verbose shows where)"
    assert (result.exit_code, "Traceback" in result.output) == (1, False)
    starts(RuntimeError("nats://user:hunter2@host is odd"))
    result = run("-config", config_file, "-verbose")
    assert (result.exit_code, "Traceback" in result.stderr, "hunter2" in result.output) == (1, True, False)


def test_an_error_inside_a_group_keeps_its_exit_code(run: Run, starts: Starts, config_file: Path) -> None:
    starts(ExceptionGroup("tasks", [ExceptionGroup("inner", [FencedError("fenced")])]))
    result = run("-config", config_file)
    assert (result.exit_code, "harmonylite: fenced" in result.stderr) == (FencedError.exit_code, True)


def test_version_names_everything_and_needs_no_configuration(run: Run) -> None:
    result = run("-version")
    assert result.exit_code == 0
    for name in ("harmonylite 0.", "Python 3.", "SQLite 3.", "nats-server 2."):
        assert name in result.stdout


@pytest.mark.parametrize("flag", ["-help", "--help", "-h"])
def test_help_shows_flags_and_commands(run: Run, flag: str) -> None:
    result = run(flag)
    assert result.exit_code == 0
    assert "-cluster-peers" in result.stdout
    assert "conflicts" in result.stdout


@pytest.mark.parametrize("flag", ["-schema-status", "--schema-status-cluster"])
def test_the_schema_of_a_node_that_does_not_run_is_not_shown(run: Run, config_file: Path, flag: str) -> None:
    result = run("-config", config_file, flag)
    assert result.exit_code == NotRunningError.exit_code
    assert "no running node" in result.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["-confg", "x"], "Did you mean -config?"),
        (["stauts"], "'status'?"),
        (["-cleanup", "status"], "-cleanup and status can't go together"),
        (["-cleanup", "-version"], "can't go together"),
        (["-config"], "requires an argument"),
        (["status", "-jsn"], "Did you mean -json?"),
        (["-cleanup=yes"], "this is a switch"),
    ],
)
def test_a_slip_on_the_command_line_is_told_and_starts_nothing(
    run: Run, starts: Starts, words: list[str], told: str
) -> None:
    seen = starts(0)
    result = run(*words)
    assert (result.exit_code, seen) == (2, [])
    assert told in result.stderr


def test_save_snapshot_asks_the_running_node(run: Run, config_file: Path, node: NodeDouble) -> None:
    node.answers["/v1/snapshot"] = (200, {"name": "snap-1", "bytes": 12345, "positions": {"1": 7}})
    result = run("-config", config_file, "-save-snapshot")
    assert (result.exit_code, result.stdout) == (0, "saved snap-1, 12,345 bytes, at position 1:7\n")
    assert node.asked == [("POST", "/v1/snapshot", {})]


def test_cleanup_takes_our_things_out_and_nothing_else(run: Run, config_file: Path) -> None:
    db_path = config_file.parent / "app.db"
    connection = apsw.Connection(str(db_path))
    for statement in (
        "CREATE TABLE t(a)",
        "CREATE TABLE t_harmonylite_users(a)",
        "CREATE TABLE __harmonylite__log(a)",
        "CREATE TRIGGER __harmonylite__t_insert AFTER INSERT ON t BEGIN SELECT 1; END",
    ):
        connection.execute(statement)
    connection.close()
    identify(db_path)
    nats_folder_for(db_path).mkdir()
    result = run("-config", config_file, "-cleanup")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("removed 2 triggers and tables from")
    assert "__harmonylite__log" in result.stdout
    assert f"{folder_for(db_path)} holds this node's mirror and can be deleted now" in result.stderr
    connection = apsw.Connection(str(db_path))
    names = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema")}
    connection.close()
    assert names == {"t", "t_harmonylite_users"}
    assert run("-config", config_file, "-cleanup").stdout.startswith("nothing to remove")


def test_cleanup_refuses_while_a_node_runs(run: Run, config_file: Path) -> None:
    db_path = config_file.parent / "app.db"
    db_path.touch()
    identify(db_path)
    with acquire_lock(folder_for(db_path)):
        result = run("-config", config_file, "-cleanup")
    assert result.exit_code == 1
    assert "stop it first" in result.stderr


def test_cleanup_makes_no_database_where_none_is(run: Run, config_file: Path) -> None:
    result = run("-config", config_file, "-cleanup")
    assert (result.exit_code, (config_file.parent / "app.db").exists()) == (2, False)
    assert "there is no database" in result.stderr
