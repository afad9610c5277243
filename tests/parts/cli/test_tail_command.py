"""`tail`, `wait` and `position`: what is asked, what is shown, how they end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.parts.cli.fix_cli import NodeDouble, Run

BEGIN: dict[str, Any] = {"position": "0:1", "changes": []}
FIRST: dict[str, Any] = {
    "position": "0:2",
    "id": "n1/s/1",
    "origin": "n\x1b1",
    "at": 1.8e9,
    "written": 1.8e9,
    "changes": [
        {"table": "order", "kind": "update", "key": {"id": 3}, "before": {"note": "it's"}, "after": {"note": None}},
        {"table": "order", "kind": "insert", "key": {"id": 4}, "before": {}, "after": {"id": 4, "note": "new"}},
        {"table": "order", "kind": "delete", "key": {"id": 5}, "before": {"note": {"blob": "0a"}}, "after": {}},
    ],
}
SKIPPED: dict[str, Any] = {"position": "0:3", "skipped": "message 3 of shard 0 can't be applied", "changes": []}


def lines(*entries: dict[str, Any]) -> tuple[int, bytes]:
    return 200, b"".join(json.dumps(entry).encode() + b"\n" for entry in entries)


def test_transactions_are_shown_with_both_values_and_nothing_of_the_terminal(
    run: Run, config_file: Path, node: NodeDouble
) -> None:
    node.answers["/v1/changes"] = lines(BEGIN, FIRST, SKIPPED)
    result = run("tail", "-table", "order", "--from", "0:1", "-config", config_file)
    assert [line.strip() for line in result.stdout.splitlines()[1:]] == [
        "~ order id=3",
        "note: 'it''s' → NULL",
        "+ order id=4",
        "note: 'new'",
        "- order id=5",
        "note: x'0a'",
    ]
    assert "\x1b" not in result.stdout
    assert "skipped: message 3 of shard 0 can't be applied" in result.stderr
    assert (result.exit_code, "-from the last position" in result.stderr) == (12, True), "the node ended it"
    assert node.asked[0][1] == "/v1/changes?from=0%3A1&table=order"


def test_json_is_a_line_for_each_entry_and_a_limit_ends_well(run: Run, config_file: Path, node: NodeDouble) -> None:
    part = FIRST | {"position": None}
    node.answers["/v1/changes"] = lines(BEGIN, part, FIRST, FIRST)
    result = run("tail", "-json", "-limit", "1", "-config", config_file)
    assert [json.loads(line) for line in result.stdout.splitlines()] == [BEGIN, part, FIRST]
    assert result.exit_code == 0, "a transaction in two parts is one"


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (lines(BEGIN, {"error": "position 0:2 is gone", "exit_code": 14}), 14),
        ((409, {"error": "position 0:2 is gone", "exit_code": 14}), 14),
        ((200, b'{"position": 7}\n'), 1),
        ((200, b"<html>\n"), 1),
    ],
)
def test_what_ends_a_feed_is_said(
    run: Run, config_file: Path, node: NodeDouble, answer: tuple[int, Any], code: int
) -> None:
    node.answers["/v1/changes"] = answer
    result = run("tail", "-config", config_file)
    assert result.exit_code == code, result.stderr
    assert result.stderr.startswith("harmonylite: ")
    assert "unexpected" not in result.stderr


def test_waiting_asks_for_a_position_or_the_end(run: Run, config_file: Path, node: NodeDouble) -> None:
    node.answers["/v1/wait"] = (200, {"position": "0:9"})
    assert run("wait", "-caught-up", "-config", config_file).stdout == "0:9\n"
    assert run("wait", "-position", "0:7", "-timeout", "2", "-json", "-config", config_file).stdout
    (_, first, _), (_, second, _) = node.asked
    assert first.startswith("/v1/wait?seconds=")
    assert second.startswith("/v1/wait?position=0%3A7&seconds=")
    for words in ([], ["-caught-up", "-position", "0:7"]):
        assert run("wait", *words, "-config", config_file).exit_code == 2


def test_waiting_has_an_end_with_a_code_of_its_own(run: Run, config_file: Path, node: NodeDouble) -> None:
    node.answers["/v1/wait"] = (503, {"error": "the node is not there after 1 s: 0:3 of 7", "exit_code": 13})
    result = run("wait", "-caught-up", "-config", config_file)
    assert (result.exit_code, "0:3 of 7" in result.stderr) == (13, True)
    node.answers["/v1/wait"] = (503, {"error": "it is starting", "exit_code": 3})
    result = run("wait", "-caught-up", "-timeout", "0.3", "-config", config_file)
    assert (result.exit_code, "it is starting" in result.stderr) == (13, True)


def test_a_node_that_begins_meanwhile_is_waited_for(run: Run, config_file: Path, node: NodeDouble) -> None:
    answers = iter([(503, {"error": "it is starting", "exit_code": 3}), (200, {"position": "0:9"})])

    class Next(dict[str, Any]):
        def get(self, _path: object, _default: object = None) -> Any:
            return next(answers)

    node.answers = Next()
    assert run("wait", "-caught-up", "-config", config_file).stdout == "0:9\n"


def test_waiting_for_a_node_that_never_runs_ends_too(run: Run, config_file: Path) -> None:
    assert run("wait", "-caught-up", "-timeout", "0.3", "-config", config_file).exit_code == 13


def test_a_position_is_printed_for_another_node(run: Run, config_file: Path, node: NodeDouble) -> None:
    node.answers["/v1/position"] = (200, {"position": "0:9@0011aabb"})
    assert run("position", "-config", config_file).stdout == "0:9@0011aabb\n"
    assert json.loads(run("position", "-json", "-config", config_file).stdout) == {"position": "0:9@0011aabb"}


def test_a_command_gets_each_entry_and_the_position_is_kept(
    run: Run, config_file: Path, node: NodeDouble, tmp_path: Path
) -> None:
    keep, seen = tmp_path / "kept", tmp_path / "seen"
    second = FIRST | {"position": "0:9"}
    node.answers["/v1/changes"] = lines(BEGIN, FIRST | {"position": None}, second)
    command = f'cat >> {seen}; echo "at $HARMONYLITE_FEED_POSITION" >> {seen}'
    result = run("tail", "-exec", command, "-keep", keep, "-limit", "1", "-config", config_file)
    assert (result.exit_code, result.stdout) == (0, "")
    told = seen.read_text().splitlines()
    assert [json.loads(told[0]), told[1], json.loads(told[2]), told[3]] == [
        FIRST | {"position": None},
        "at ",
        second,
        "at 0:9",
    ]
    assert keep.read_text() == "0:9\n"
    run("tail", "-from", "start", "-keep", keep, "-config", config_file)
    assert node.asked[-1][1] == "/v1/changes?from=0%3A9"


def test_an_entry_whose_command_failed_comes_again(
    run: Run, config_file: Path, node: NodeDouble, tmp_path: Path
) -> None:
    keep = tmp_path / "kept"
    node.answers["/v1/changes"] = lines(BEGIN, FIRST)
    result = run("tail", "-exec", "exit 3", "-keep", keep, "-config", config_file)
    assert (result.exit_code, "exit code 3" in result.stderr) == (1, True)
    assert keep.read_text() == "0:1\n"


def test_a_file_without_a_position_is_refused(run: Run, config_file: Path, node: NodeDouble, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("\n")
    assert run("tail", "-keep", tmp_path / "kept", "-config", config_file).exit_code == 2
    assert run("tail", "-keep", tmp_path / "no" / "kept", "-config", config_file).exit_code in (1, 12)
