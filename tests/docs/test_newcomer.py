"""What a newcomer does, in order, in a clean environment: the README's installation, its commands, the tutorial."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.test_tutorial import CURL, ROOT, follow

README = (ROOT / "README.md").read_text()


def run(*command: str | Path, folder: Path, place: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in ``folder``, with the programs in ``place`` and nothing of this environment's Python."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    return subprocess.run(
        [str(each) for each in command],
        cwd=folder,
        env={**own, "PATH": f"{place}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
@CURL.mark
def test_the_readme_and_the_tutorial_lead_to_two_nodes_in_a_clean_environment(tmp_path: Path) -> None:
    place = tmp_path / "environment" / "bin"
    made = run(sys.executable, "-m", "venv", tmp_path / "environment", folder=tmp_path, place=place)
    assert made.returncode == 0, made.stdout + made.stderr
    commands = re.search(r"## Use it\n.*?```sh\n(.*?)```", README, re.DOTALL)
    assert commands is not None
    install, init = filter(None, (line.partition("#")[0].split() for line in commands[1].splitlines()))
    assert install == ["pip", "install", "."]
    installed = run(place / "pip", *install[1:], folder=ROOT, place=place)
    if "No matching distribution" in installed.stderr or "ConnectionError" in installed.stderr:
        pytest.skip("needs a package registry (pip install .)")
    assert installed.returncode == 0, installed.stderr
    began = run(place / "harmonylite", *init[1:], folder=tmp_path, place=place)
    assert began.returncode == 0, began.stderr
    file = tmp_path / init[-1]
    file.write_text(re.sub(r"^#? ?db_path = .*$", 'db_path = "app.db"', file.read_text(), count=1, flags=re.MULTILINE))
    checked = run(place / "harmonylite", "config", "check", file.name, folder=tmp_path, place=place)
    assert checked.returncode == 0, checked.stderr
    typed = run(place / "python", "-c", "import harmonylite; harmonylite.Node", folder=tmp_path, place=place)
    assert typed.returncode == 0, typed.stderr
    assert list((tmp_path / "environment").glob("lib/*/site-packages/harmonylite/py.typed"))
    follow(tmp_path, place)
