"""The commands of README.md exist, and its first steps work as they stand."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.parts.cli.fix_cli import Run

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHELL = [line for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) for line in block.splitlines() if line]
INLINE = re.findall(r"`(harmonylite [^`]+)`", README)


def test_every_command_of_the_readme_exists(run: Run) -> None:
    lines = [line for line in (*SHELL, *INLINE) if line.startswith("harmonylite ")]
    assert len(lines) > 8
    for line in lines:
        words = shlex.split(line, comments=True)[1:]
        assert not {"|", ">"} & set(words), "a shell would take it apart"
        result = run(*words, "-help")
        assert result.exit_code == 0, (line, result.stderr)


def test_the_readme_s_first_configuration_is_written_and_fine(run: Run, workplace: Path) -> None:
    (line,) = (line for line in SHELL if "config init" in line)
    assert run(*shlex.split(line, comments=True)[1:]).exit_code == 0
    (started,) = (line for line in SHELL if "-config node1-config.toml" in line)
    words = shlex.split(started)[1:]
    result = run(*words, "config", "check")
    assert (result.exit_code, result.stderr) == (0, "node1-config.toml is fine\n")
    assert 'cluster_addr = "localhost:4221"' in result.stdout


def test_every_target_of_the_readme_is_in_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {words[1] for line in SHELL if (words := line.split())[0] == "make"} | set(
        re.findall("`make ([a-z-]+)", README)
    )
    assert named
    assert named <= targets


@pytest.mark.parametrize("name", ["plain.db", 'it\'s a "file" of mine.db', "~/mine.db"])
def test_make_hands_the_file_s_name_on_as_it_is(tmp_path: Path, name: str) -> None:
    program = tmp_path / "harmonylite"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)
    (tmp_path / "python").touch()
    # The other targets of .venv are as they are: only the demo's own line is run, by a program that shows its words.
    words = ["make", "--silent", "demo", f"FILE={name}", "ARGS=--exit", f"BIN={tmp_path}", "--assume-old=.venv/.run"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout.splitlines(), done.returncode) == (["demo", "--exit", name], 0), done.stderr
