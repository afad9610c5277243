"""Commands that ask the running node: what is sent, what is shown, how they end."""

from __future__ import annotations

import json
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from harmonylite.cli.output import LONGEST, sql_text
from harmonylite.client.control_client import ControlClient
from harmonylite.errors import NotAnsweringError, NotRunningError
from harmonylite.identity import acquire_lock, folder_for, make_folder
from harmonylite.status import NodeStatus
from tests.parts.cli.fix_cli import NodeDouble, Run, write_control

CONFLICT: dict[str, Any] = {
    "table": "or\x1b[31mders",
    "key": {"id": 3, "region": "[bold]north"},
    "column": "note",
    "kind": "update",
    "winning": "it's",
    "overruled": {"blob": "00ff"},
    "winner": "n1",
    "loser": "n2",
    "shard": 1,
    "seq": 77,
    "at": 1_800_000_000.5,
}

VERIFIED: dict[str, Any] = {
    "agree": True,
    "positions": {"0": 12, "1": 9},
    "local": {
        "equal": True,
        "pending_rows": 0,
        "held_rows": 0,
        "tables": [{"table": "t", "rows": 1200, "missing": 0, "extra": 0, "different": 0, "sample": []}],
    },
    "nodes": [{"node_id": "n1", "agrees": True, "digest": "abcdef", "note": ""}],
    "silent": [],
    "repaired": 0,
}

ASKING = (
    ["status"],
    ["conflicts"],
    ["verify"],
    ["snapshot", "save"],
    ["skip", "1", "2", "-yes"],
    ["node", "list"],
    ["node", "forget", "n2"],
)


@pytest.mark.parametrize("words", ASKING)
def test_without_a_running_node_it_says_how_to_start_one(run: Run, config_file: Path, words: list[str]) -> None:
    result = run("-config", config_file, *words)
    assert result.exit_code == NotRunningError.exit_code
    assert f"no running node for {config_file.parent}/app.db" in result.stderr
    assert f"start it with `harmonylite -config {config_file}`" in result.stderr


@pytest.mark.parametrize("words", ASKING)
def test_a_killed_nodes_control_file_is_no_running_node(run: Run, config_file: Path, words: list[str]) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    write_control(config_file.parent / "app.db", port)
    assert run(*words, "-config", config_file).exit_code == NotRunningError.exit_code


def test_another_program_at_the_port_is_no_running_node(run: Run, config_file: Path, node: NodeDouble) -> None:
    node.answers["/v1/status"] = (200, b"<html>hello")
    assert run("status", "-config", config_file).exit_code == NotRunningError.exit_code
    write_control(config_file.parent / "app.db", node.port, token="of a node that was killed")
    assert run("status", "-config", config_file).exit_code == NotRunningError.exit_code


@pytest.mark.parametrize("words", ASKING)
def test_a_refusal_of_the_node_is_shown_with_its_exit_code(
    run: Run, config_file: Path, node: NodeDouble, words: list[str]
) -> None:
    for path in ("status", "conflicts", "verify", "snapshot", "skip", "nodes", "forget"):
        node.answers[f"/v1/{path}"] = (503, {"error": "no NATS; wait or look there", "exit_code": 6})
    result = run("-config", config_file, *words)
    assert (result.exit_code, result.stdout) == (6, "")
    assert result.stderr == "harmonylite: no NATS; wait or look there\n"


@pytest.mark.parametrize("runs", [True, False])
@pytest.mark.parametrize("port", ["no control file", "silent", "closed", "hangs up", "another program"])
def test_a_node_that_does_not_answer_is_told_from_one_that_does_not_run(
    config_file: Path, port: str, runs: bool
) -> None:
    db_path = config_file.parent / "app.db"
    folder = make_folder(folder_for(db_path))
    lock = acquire_lock(folder) if runs else nullcontext()
    with lock, socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
        if port != "no control file":
            write_control(db_path, server.getsockname()[1])
        if port == "closed":
            server.close()
        if port in ("hangs up", "another program"):
            pool.submit(meet, server, b"" if port == "hangs up" else b"HTTP/1.1 200 OK\r\n\r\n<html>")
        with pytest.raises(NotAnsweringError if runs else NotRunningError) as caught:
            ControlClient.find(db_path, seconds=0.05 if port == "silent" else 20).get("/v1/status")
    assert caught.value.exit_code == (12 if runs else 3)
    if runs:
        assert f"runs (process {os.getpid()}) and does not answer" in str(caught.value)


def test_doctor_says_of_a_node_that_does_not_answer_that_it_runs(run: Run, config_file: Path) -> None:
    with acquire_lock(make_folder(folder_for(config_file.parent / "app.db"))):
        rows = json.loads(run("doctor", "-json", "-config", config_file).stdout)["rows"]
    (row,) = [row for row in rows if row["name"] == "node"]
    assert (row["level"], f"runs (process {os.getpid()}) and does not answer" in row["found"]) == ("problem", True), row


def meet(server: socket.socket, answer: bytes) -> None:
    with server.accept()[0] as client:
        client.recv(65536)
        client.sendall(answer)


def test_status_is_a_page_for_a_person_and_exact_json_for_a_program(
    run: Run, config_file: Path, node: NodeDouble
) -> None:
    report = NodeStatus(node_id="n1", version="0.1.0", db_path="/data/app.db").report()
    node.answers["/v1/status"] = (200, report)
    node.answers["/v1/cluster"] = (200, {"nodes": [report, {"node_id": "n2", "status": "unknown"}]})
    shown = run("status", "-config", config_file)
    assert shown.exit_code == 0, shown.stderr
    assert "NATS is not connected" in shown.stdout
    assert json.loads(run("status", "--json", "-config", config_file).stdout) == report
    assert "n2" in run("-config", config_file, "status", "-cluster").stdout
    assert len(json.loads(run("-config", config_file, "status", "-cluster", "-json").stdout)["nodes"]) == 2


def test_status_watched_by_a_program_is_one_json_a_line_until_the_node_is_gone(
    run: Run, config_file: Path, node: NodeDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.answers["/v1/status"] = (200, {"node_id": "n1"})
    rounds = iter([False, True])

    def second_round_is_the_last(_seconds: float) -> None:
        if next(rounds):
            node.answers.clear()

    monkeypatch.setattr("time.sleep", second_round_is_the_last)
    result = run("status", "-watch", "-config", config_file)
    assert result.stdout == '{"node_id": "n1"}\n' * 2
    assert result.exit_code == 1


def test_nodes_are_listed_with_what_is_known_of_each(run: Run, config_file: Path, node: NodeDouble) -> None:
    here = {
        "node_id": "n1",
        "state": "this node",
        "last_seen": 1.8e9,
        "host": "h",
        "version": "1.0",
        "lag_messages": 1200,
        "lag_seconds": 0.5,
        "pending_rows": 0,
    }
    gone = {
        "node_id": "n2\x1b[31m",
        "state": "unknown",
        "last_seen": 0,
        "host": "",
        "version": "",
        "lag_messages": None,
        "lag_seconds": None,
        "pending_rows": None,
    }
    node.answers["/v1/nodes"] = (200, {"nodes": [here, gone]})
    shown = run("node", "list", "-config", config_file)
    assert shown.exit_code == 0, shown.stderr
    for part in ("this node", "2027-01-15 08:00:00 UTC", "1,200", "0.5 s"):
        assert part in shown.stdout
    assert "\x1b" not in shown.stdout
    assert json.loads(run("node", "list", "-json", "-config", config_file).stdout) == {"nodes": [here, gone]}


def test_nodes_are_listed_within_80_columns(
    run: Run, config_file: Path, node: NodeDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    row = {
        "state": "this node",
        "last_seen": time.time() - 3_700,
        "host": "db-1.example",
        "version": "10.12.3",
        "lag_messages": 1_200_000,
        "lag_seconds": 10.5,
        "pending_rows": 1_200,
    }
    node.answers["/v1/nodes"] = (200, {"nodes": [row | {"node_id": f"node-{n}"} for n in range(3)]})
    lines = run("node", "list", "-config", config_file).stdout.splitlines()
    assert len(lines) == 4
    assert max(map(len, lines)) <= 80
    assert "1 h 1 min ago" in lines[1]


def test_forgetting_names_the_node(run: Run, config_file: Path, node: NodeDouble) -> None:
    node.answers["/v1/forget"] = (200, {"forgotten": "n2"})
    assert run("node", "forget", "n2", "-config", config_file).stdout == "n2 is forgotten\n"
    assert node.asked == [("POST", "/v1/forget", {"node": "n2"})]
    assert run("node", "forget", "-config", config_file).exit_code == 2


def test_ctrl_c_ends_the_watching_well(
    run: Run, config_file: Path, node: NodeDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_seconds: float) -> None:
        raise KeyboardInterrupt

    node.answers["/v1/status"] = (200, {"node_id": "n1"})
    monkeypatch.setattr("time.sleep", interrupt)
    assert run("status", "-watch", "-config", config_file).exit_code == 0


def test_conflicts_are_asked_for_by_table_and_limit(run: Run, config_file: Path, node: NodeDouble) -> None:
    node.answers["/v1/conflicts"] = (200, {"conflicts": []})
    assert run("conflicts", "-table", "a b", "-limit=5", "-config", config_file).stdout == "no conflicts\n"
    run("conflicts", "-config", config_file)
    assert [path for _, path, _ in node.asked] == ["/v1/conflicts?table=a+b&limit=5", "/v1/conflicts?limit=100"]


def test_conflicts_show_both_values_and_no_markup_of_the_data(run: Run, config_file: Path, node: NodeDouble) -> None:
    node.answers["/v1/conflicts"] = (200, {"conflicts": [CONFLICT]})
    shown = run("conflicts", "-config", config_file).stdout
    for part in ("or\N{REPLACEMENT CHARACTER}[31mders", "id=3 region='[bold]north'", "'it''s'", "x'00ff'", "1:77"):
        assert part in shown
    assert json.loads(run("conflicts", "-json", "-config", config_file).stdout) == {"conflicts": [CONFLICT]}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "NULL"),
        (2**63 - 1, "9223372036854775807"),
        (0.1, "0.1"),
        ({"real": "-inf"}, "-inf"),
        ({"raw_text": "ff00"}, "CAST(x'ff00' AS TEXT)"),
        ("a\nb\u202ec", "'a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}c'"),
        ("x" * 100, "'" + "x" * (LONGEST - 2) + "…"),
    ],
)
def test_values_are_shown_as_sql_on_one_line(value: Any, text: str) -> None:
    assert sql_text(value) == text


def test_verify_ends_with_0_only_when_all_agree(run: Run, config_file: Path, node: NodeDouble) -> None:
    node.answers["/v1/verify"] = (200, VERIFIED)
    result = run("verify", "-config", config_file)
    assert result.exit_code == 0, result.stderr
    assert "database and mirror are equal: 1 table, 1,200 rows" in result.stdout
    assert "all agree at position 0:12, 1:9" in result.stdout
    assert node.asked == [("POST", "/v1/verify", {"repair": False, "seconds": 30.0, "without": []})]


def test_verify_shows_what_differs_and_ends_with_4(run: Run, config_file: Path, node: NodeDouble) -> None:
    table = {"table": "t", "rows": 9, "missing": 1, "extra": 2, "different": 3, "sample": [{"id": 5}]}
    local = {"equal": False, "pending_rows": 4, "held_rows": 5, "tables": [table]}
    other = {"node_id": "n2", "agrees": False, "digest": None, "note": "behind"}
    answer = VERIFIED | {"agree": False, "local": local, "nodes": [other], "silent": ["n3"], "repaired": 6}
    node.answers["/v1/verify"] = (200, answer)
    result = run("verify", "-repair", "-timeout", "2.5", "-without", "n8", "-without=n9", "-config", config_file)
    assert result.exit_code == 4
    for part in (
        "differ",
        "4 rows pending",
        "5 rows held back",
        "behind",
        "n3",
        "did not answer",
        "repaired 6",
        "NOT all agree",
    ):
        assert part in result.stdout
    assert node.asked[0][2] == {"repair": True, "seconds": 2.5, "without": ["n8", "n9"]}
    as_json = run("verify", "-json", "-config", config_file)
    assert (as_json.exit_code, json.loads(as_json.stdout)) == (4, answer)


@pytest.mark.parametrize("words", [["verify", "-timeout", "0"], ["conflicts", "-limit", "0"], ["skip", "1"]])
def test_arguments_that_can_not_be_never_reach_the_node(
    run: Run, config_file: Path, node: NodeDouble, words: list[str]
) -> None:
    assert run(*words, "-config", config_file).exit_code == 2
    assert node.asked == []


def test_a_snapshot_is_saved_and_named(run: Run, config_file: Path, node: NodeDouble) -> None:
    answer = {"name": "s1", "bytes": 5, "positions": {"0": 3}}
    node.answers["/v1/snapshot"] = (200, answer)
    assert run("snapshot", "save", "-config", config_file).stdout == "saved s1, 5 bytes, at position 0:3\n"
    assert json.loads(run("snapshot", "save", "-json", "-config", config_file).stdout) == answer


def test_skip_asks_first_and_only_then_the_node(run: Run, config_file: Path, node: NodeDouble) -> None:
    node.answers["/v1/skip"] = (200, {"shard": 1, "seq": 9, "holds": "rows: 1 of t (7)"})
    assert run("-config", config_file, "skip", "1", "9", answer="n\n").exit_code == 1
    assert run("-config", config_file, "skip", "1", "9", answer="").exit_code == 1
    assert node.asked == []
    result = run("-config", config_file, "skip", "1", "9", answer="y\n")
    assert (result.exit_code, result.stdout) == (
        0,
        "message 9 of shard 1 is skipped; the node continues: rows: 1 of t (7)\n",
    )
    assert run("-config", config_file, "skip", "1", "9", "-yes").exit_code == 0
    assert node.asked == [("POST", "/v1/skip", {"shard": 1, "seq": 9})] * 2


def test_what_was_left_out_is_listed_and_taken_in_again(run: Run, config_file: Path, node: NodeDouble) -> None:
    entry = {"shard": 1, "seq": 9, "at": 1742571045.0, "reason": "needs table t", "holds": "rows: 1 of t (7)"}
    node.answers["/v1/skip/list"] = (200, {"left_out": [entry]})
    node.answers["/v1/skip/undo"] = (200, entry)
    shown = run("skip", "--list", "-config", config_file).stdout
    assert "needs table t" in shown
    assert "rows: 1 of t (7)" in shown
    assert json.loads(run("skip", "-list", "-json", "-config", config_file).stdout) == {"left_out": [entry]}
    result = run("skip", "--undo", "1", "9", "-config", config_file)
    assert (result.exit_code, result.stdout) == (0, "message 9 of shard 1 is taken in: rows: 1 of t (7)\n")
    node.answers["/v1/skip/list"] = (200, {"left_out": []})
    assert run("skip", "-list", "-config", config_file).stdout == "no message is skipped\n"


def test_a_skip_that_the_node_refuses_ends_with_its_reason(run: Run, config_file: Path, node: NodeDouble) -> None:
    why = "the node does not wait before message 9 of shard 1; it waits before none, so nothing is left out"
    node.answers["/v1/skip"] = (409, {"error": why, "exit_code": 1})
    result = run("skip", "1", "9", "-yes", "-config", config_file)
    assert result.exit_code == 1
    assert why in result.stderr


@pytest.mark.parametrize(
    "words", [["skip"], ["skip", "-undo"], ["skip", "-list", "1", "2"], ["skip", "-list", "-undo"]]
)
def test_skip_wants_a_message_or_the_list(run: Run, config_file: Path, node: NodeDouble, words: list[str]) -> None:
    assert run(*words, "-config", config_file).exit_code == 2
    assert node.asked == []
