"""House rules that no linter knows: one SQLite library, small files with a name and a docstring of their own."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("src", "tests", "bench")
MOST_LINES = 400
WITHOUT_INVARIANT = {"__init__", "__main__", "version"}
LOGGING = {f"log.{level}" for level in ("debug", "info", "warning", "error", "critical", "exception", "log")}
VAGUE = {"utils", "util", "helpers", "common", "misc"}


def files(*folders: str) -> list[str]:
    """Return every Python file below ``folders``, as paths from the repository's root."""
    return sorted(str(path.relative_to(ROOT)) for folder in folders for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("file", files("src"))
def test_there_is_one_sqlite_library_only(file: str) -> None:
    """Two of them in one process break each other's file locks (https://sqlite.org/howtocorrupt.html, 2.2.1)."""
    for node in ast.walk(ast.parse((ROOT / file).read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not {name.partition(".")[0] for name in names} & {"sqlite3", "_sqlite3", "pysqlite3"}


@pytest.mark.parametrize("file", files(*FOLDERS))
def test_a_file_is_small_and_says_what_it_is(file: str) -> None:
    text = (ROOT / file).read_text()
    assert len(text.splitlines()) <= MOST_LINES
    assert not text.strip() or ast.get_docstring(ast.parse(text)), "begin with one line on what it is"
    assert Path(file).stem not in VAGUE, "name the file after what it is about"


@pytest.mark.parametrize("file", files(*FOLDERS))
def test_the_formatter_lays_out_every_line(file: str) -> None:
    assert not re.search(r"#\s*fmt[:]", (ROOT / file).read_text()), "pass fewer arguments, or write a table"


@pytest.mark.parametrize("file", [file for file in files("src") if Path(file).stem not in WITHOUT_INVARIANT])
def test_a_module_says_what_it_keeps(file: str) -> None:
    assert "\nInvariant: " in (ast.get_docstring(ast.parse((ROOT / file).read_text())) or "")


@pytest.mark.parametrize("file", files("src"))
def test_no_function_both_logs_and_says_what_its_part_waits_for(file: str) -> None:
    """The wait log logs waits, and what `Part.event` gives it; else one cause is two lines."""
    for function in ast.walk(ast.parse((ROOT / file).read_text())):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            calls = {ast.unparse(node.func) for node in ast.walk(function) if isinstance(node, ast.Call)}
            logs = calls & {"log.info", "log.warning", "log.error", "log.exception"}
            states = {call for call in calls if re.search(r"(part.*|_unfinished)\.(ok|waiting|failed)$", call)}
            assert not (logs and states), f"{function.name} (line {function.lineno}): {logs}, {states}"


@pytest.mark.parametrize("file", files("src"))
def test_what_a_finally_owes_the_sqlite_thread_is_not_dropped(file: str) -> None:
    """`SqliteThread.aclose` drops the calls that wait, if the task in its ``finally`` is cancelled once more."""
    for node in ast.walk(ast.parse((ROOT / file).read_text())):
        for each in node.finalbody if isinstance(node, ast.Try | ast.TryStar) else []:
            calls = [ast.unparse(call.func) for call in ast.walk(each) if isinstance(call, ast.Call)]
            assert not [call for call in calls if re.search(r"\b_?thread\.run$|^run$", call)], f"line {each.lineno}"


@pytest.mark.parametrize("file", files("src"))
def test_no_state_is_kept_in_modules(file: str) -> None:
    tree = ast.parse((ROOT / file).read_text())
    assert not [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Global)]
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.List | ast.Dict | ast.Set):
            for target in node.targets:
                name = target.id if isinstance(target, ast.Name) else ""
                assert name.lstrip("_").isupper() or name.startswith("__"), f"line {node.lineno}: {name} can be changed"


@pytest.mark.parametrize("file", files("src"))
def test_a_log_line_names_its_values(file: str) -> None:
    """``log.info("raised stream %(stream)s", {"stream": name})``: JSON lines have ``stream`` as a field, too."""
    for node in ast.walk(ast.parse((ROOT / file).read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in LOGGING:
            text, *values = node.args[ast.unparse(node.func) == "log.log" :]
            plain = isinstance(text, ast.Constant) and text.value == "%s"  # a sentence from elsewhere
            assert plain or len(values) <= 1, f"line {node.lineno}: name the values"
            written = text.value if isinstance(text, ast.Constant) and isinstance(text.value, str) else ""
            assert plain or not re.search(r"%[^(]", written), f"line {node.lineno}: {written}"
