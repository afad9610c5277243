"""Commands on files: configurations, NKeys, the demo; and the real program as a process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import nkeys  # type: ignore[import-untyped]  # it has no stubs
import pytest

from harmonylite import errors
from harmonylite.cli.doctor_command import NOT_READY
from harmonylite.config import load
from tests.parts.cli.fix_cli import Run

DOCS = Path(__file__).parents[3] / "docs" / "cli.md"


def test_init_writes_a_file_that_check_finds_fine(run: Run, workplace: Path) -> None:
    result = run("config", "init")
    assert (result.exit_code, (workplace / "config.toml").stat().st_mode & 0o777) == (0, 0o600)
    checked = run("config", "check", "config.toml")
    assert (checked.exit_code, checked.stderr) == (0, "config.toml is fine\n")
    (workplace / "effective.toml").write_text(checked.stdout)
    assert load(workplace / "effective.toml") == load(workplace / "config.toml")


def test_init_never_overwrites(run: Run, workplace: Path) -> None:
    (workplace / "mine.toml").write_text("mine")
    result = run("config", "init", "mine.toml")
    assert (result.exit_code, (workplace / "mine.toml").read_text()) == (2, "mine")
    assert "mine.toml exists already" in result.stderr
    assert run("config", "init", "no/such/folder.toml").exit_code == 2
    assert "db_path" in run("config", "init", "-").stdout


def test_check_tells_every_fault_and_fails(run: Run, workplace: Path) -> None:
    (workplace / "bad.toml").write_text('db_path = "a.db"\npubish = 1\nreplicate = 1\n')
    result = run("config", "check", "bad.toml")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "the configuration has 2 faults" in result.stderr
    assert "bad.toml:2: pubish is unknown; did you mean publish?" in result.stderr


def test_check_finds_the_file_by_every_way_and_shows_flags_and_notes(run: Run, workplace: Path) -> None:
    (workplace / "c.toml").write_text('db_path = "a.db"\nseq_map_path = "x"\n[nats]\ntoken = "hunter2hunter2"\n')
    for words in (
        ["-config", "c.toml", "-node-id", "n9", "config", "check"],
        ["-node-id=n9", "config", "check", "-config", "c.toml"],
        ["-node-id=n9", "config", "check", "c.toml"],
    ):
        result = run(*words)
        assert result.exit_code == 0, result.stderr
        assert 'node_id = "n9"' in result.stdout
        assert 'token = "***"' in result.stdout
        assert "note: seq_map_path has no effect" in result.stderr
        assert "hunter2" not in result.output


def test_an_nkey_is_made_as_a_private_file_and_its_public_half_shown(run: Run, workplace: Path) -> None:
    made = run("nkey", "generate", "-o", "user.nkey")
    assert made.exit_code == 0, made.stderr
    assert (workplace / "user.nkey").stat().st_mode & 0o777 == 0o600
    seed = (workplace / "user.nkey").read_text().strip()
    assert seed.startswith("SU")
    assert seed not in made.output
    shown = run("nkey", "public", "user.nkey")
    assert (shown.stdout, shown.stderr) == (made.stdout, "")
    assert re.fullmatch(r"U[A-Z2-7]{55}\n", shown.stdout)
    assert nkeys.from_seed(bytearray(seed.encode())).public_key.decode() == shown.stdout.strip()
    assert run("nkey", "generate", "-o", "user.nkey").exit_code == 2


def test_a_seed_goes_to_standard_output_as_nk_gives_it(run: Run, workplace: Path) -> None:
    made = run("nkey", "generate")
    (workplace / "seed").write_text(f"-----BEGIN USER NKEY SEED-----\n{made.stdout}------END USER NKEY SEED------\n")
    (workplace / "seed").chmod(0o644)
    shown = run("nkey", "public", "seed")
    assert made.stderr == f"public key: {shown.stdout}"
    assert "chmod 600" in shown.stderr


def test_a_file_without_a_good_seed_is_an_error_that_does_not_repeat_it(run: Run, workplace: Path) -> None:
    seed = run("nkey", "generate").stdout.strip()
    damaged = seed[:20] + ("A" if seed[20] != "A" else "B") + seed[21:]
    (workplace / "damaged").write_text(damaged)
    (workplace / "empty").write_text("nothing here")
    for file, told in (("damaged", "damaged NKey seed"), ("empty", "holds no NKey seed"), ("none", "can't read none")):
        result = run("nkey", "public", file)
        assert result.exit_code == 2
        assert told in result.stderr
        assert damaged not in result.output


def test_the_demo_gets_its_file_and_its_switch(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Path | None, bool]] = []

    def play(file: Path | None, exit_when_done: bool) -> int:
        seen.append((file, exit_when_done))
        return 4

    monkeypatch.setattr("harmonylite.demo.run", play)
    assert run("demo", "--exit").exit_code == 4
    run("demo", "my.sqlite")
    assert seen == [(None, True), (Path("my.sqlite"), False)]


def program(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the real program in ``folder``."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HARMONYLITE_")}
    return subprocess.run(
        [sys.executable, "-m", "harmonylite", *words],
        cwd=folder,
        env=clean,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_real_program_ends_with_the_right_code_and_says_things_in_the_right_place(tmp_path: Path) -> None:
    assert program("-version", folder=tmp_path).stdout.startswith("harmonylite ")
    unset = program(folder=tmp_path)
    assert (unset.returncode, unset.stdout) == (2, "")
    assert "db_path is not set; give -config FILE" in unset.stderr
    typo = program("-confg", "x", folder=tmp_path)
    assert (typo.returncode, "-config" in typo.stderr) == (2, True)
    (tmp_path / "config.toml").write_text('db_path = "app.db"\n')
    asked = program("status", folder=tmp_path)
    assert (asked.returncode, asked.stdout) == (3, "")
    assert not list(tmp_path.glob("app.db*")), "asking must not make a database"


def test_asking_the_node_imports_nothing_heavy(tmp_path: Path) -> None:
    code = """
import sys
from click.testing import CliRunner
from harmonylite.cli.root import root
CliRunner().invoke(root, ["status", "-config", "config.toml"])
heavy = {"apsw", "nats", "starlette", "uvicorn", "nkeys"} & set(sys.modules)
sys.exit(", ".join(sorted(heavy)) or 0)
"""
    (tmp_path / "config.toml").write_text('db_path = "app.db"\n')
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_flag_and_command_stands_in_the_documentation() -> None:
    from harmonylite.cli.root import root

    text = DOCS.read_text(encoding="utf-8")
    found = []
    commands = [("harmonylite", root)]
    while commands:
        name, command = commands.pop()
        found.append(f"`{name}")
        found += [f"`{option}" for parameter in command.params for option in parameter.opts if option.startswith("-")]
        commands += [(f"{name} {each}", sub) for each, sub in getattr(command, "commands", {}).items()]
    assert [part for part in found if part not in text] == []


def test_every_flag_of_the_documentation_exists(run: Run) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", DOCS.read_text(encoding="utf-8"), flags=re.DOTALL)
    lines = [line.partition(" #")[0].split() for block in blocks for line in block.splitlines() if line.strip()]
    assert lines
    for words in lines:
        assert words[0] == "harmonylite"
        result = run(*(word.strip("'") for word in words[1:]), "-help") if "-help" not in words else run(*words[1:])
        assert result.exit_code == 0, (words, result.stderr)


def test_every_exit_code_stands_in_the_documentation_and_every_documented_one_exists() -> None:
    table = DOCS.read_text(encoding="utf-8").partition("## Exit codes")[2]
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)}
    base = errors.HarmonyLiteError
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, base)]
    assert documented == {kind.exit_code for kind in kinds} | {0, NOT_READY}
