"""What holds for every command: JSON for programs, its own exit codes, a place in the docs, and completion."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from harmonylite import errors
from harmonylite.cli.root import root
from tests.parts.cli.fix_cli import NodeDouble, Run
from tests.parts.cli.test_asking_commands import CONFLICT

DOCS = Path(__file__).parents[3] / "docs" / "cli.md"
NO_JSON = {"demo": "stays up", "nats serve": "stays up", "completion": "prints a script", "man": "prints a page"}


def commands(group: click.Command, name: str = "") -> Iterator[tuple[str, click.Command]]:
    if isinstance(group, click.Group):
        for each, command in group.commands.items():
            yield from commands(command, f"{name} {each}".strip())
    else:
        yield name, group


@pytest.mark.parametrize(("name", "command"), [*commands(root)])
def test_every_command_has_json_and_is_in_the_docs(name: str, command: click.Command) -> None:
    has = any("-json" in option.opts for option in command.params)
    assert has is (name not in NO_JSON)
    assert f"`harmonylite {name}" in DOCS.read_text()


def test_every_exit_code_of_an_error_is_in_the_docs_and_no_other() -> None:
    kinds = [each for each in vars(errors).values() if isinstance(each, type)]
    codes = {kind.exit_code for kind in kinds if issubclass(kind, errors.HarmonyLiteError)}
    table = DOCS.read_text().partition("## Exit codes")[2]
    described = {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)}
    assert described == codes | {0, 11}, "0 is success, 11 is doctor's"


LONG: dict[str, Any] = CONFLICT | {"table": "t" * 30, "winning": "w" * 200, "overruled": "o" * 200, "column": "c" * 30}
EVENT = {
    "at": 1.8e9,
    "node": "n" * 20,
    "kind": "update",
    "shard": 1,
    "seq": 9,
    "before": {"note": "b" * 200},
    "after": {"note": "a" * 200, "new": None},
}


@pytest.mark.parametrize("words", [["conflicts"], ["history", "t", "1"]])
def test_conflicts_and_history_can_be_read_at_80_columns(
    run: Run, config_file: Path, node: NodeDouble, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    node.answers["/v1/conflicts"] = (200, {"conflicts": [LONG, CONFLICT]})
    node.answers["/v1/history"] = (200, {"first": {"0": 1}, "events": [EVENT]})
    lines = run(*words, "-config", config_file).stdout.splitlines()
    assert max(map(len, lines)) <= 80
    for value in ("w" * 58, "o" * 58) if words == ["conflicts"] else ("b" * 58, "a" * 58):
        assert value in "".join(line.strip() for line in lines)
    below = [line for line in lines if not line.startswith(("2027", "the stream"))]
    assert all(line.startswith("  ") for line in below), "one block each, also where a line is wrapped"


def test_what_needs_no_node_says_it_in_json_too(run: Run, config_file: Path, workplace: Path) -> None:
    checked = json.loads(run("config", "check", config_file, "-json").stdout)
    assert checked["effective"]["db_path"].endswith("app.db")
    assert json.loads(run("config", "init", "new.toml", "-json").stdout) == {"file": "new.toml"}
    made = json.loads(run("nkey", "generate", "-o", "seed", "-json").stdout)
    assert json.loads(run("nkey", "public", "seed", "-json").stdout) == made
    assert json.loads(run("nkey", "generate", "-json").stdout)["seed"].startswith("SU")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_each_shell(run: Run, shell: str) -> None:
    result = run("completion", shell)
    assert result.exit_code == 0, result.stderr
    assert f"_HARMONYLITE_COMPLETE={shell}_complete" in result.stdout
    assert run("completion", "tcsh").exit_code == 2


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("harmonylite sta", "status"), ("harmonylite snapshot re", "restore"), ("harmonylite tail -li", "-limit")],
)
def test_bash_completes_commands_and_flags(workplace: Path, run: Run, typed: str, offered: str) -> None:
    bash = shutil.which("bash")
    assert bash is not None
    program = workplace / "bin" / "harmonylite"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\nexec {sys.executable} -c 'from harmonylite.cli import main; main()' \"$@\"\n")
    program.chmod(0o755)
    script = run("completion", "bash").stdout
    words = " ".join(f"'{word}'" for word in typed.split())
    ask = f"COMP_WORDS=({words}); COMP_CWORD={len(typed.split()) - 1}; _harmonylite_completion harmonylite"
    found = subprocess.run(
        [bash, "-c", f'{script}\n{ask}\nprintf "%s\\n" "${{COMPREPLY[@]}}"'],
        env=os.environ | {"PATH": f"{program.parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert offered in found.stdout.split(), found
