"""A command line in a folder of its own, and a double of a running node's control API."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from harmonylite.identity import folder_for, make_folder

TOKEN = "token-of-the-double"

Run = Callable[..., Result]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty working directory, with no configuration in the environment and wide tables."""
    for name in [name for name in os.environ if name.startswith("HARMONYLITE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(workplace: Path) -> Run:
    """Return what runs ``harmonylite`` with words; the result has ``exit_code``, ``stdout`` and ``stderr``."""
    from harmonylite.cli.root import root

    def invoke(*words: object, answer: str | None = None) -> Result:
        return CliRunner().invoke(root, [str(word) for word in words], input=answer, prog_name="harmonylite")

    return invoke


@pytest.fixture
def config_file(workplace: Path) -> Path:
    """Return a valid configuration for ``app.db`` in the working directory."""
    file = workplace / "node.toml"
    file.write_text(f'db_path = "{workplace}/app.db"\n')
    return file


@dataclass
class NodeDouble:
    """``answers``: what is said to each path, with a status; a function is called for it. ``asked``: method, path with
    query, and arguments.
    """

    answers: dict[str, tuple[int, object]] = field(default_factory=dict)
    asked: list[tuple[str, str, Any]] = field(default_factory=list)
    port: int = 0


@pytest.fixture
def node(config_file: Path) -> Iterator[NodeDouble]:
    """Yield a double that answers in the place of the node of ``config_file``."""
    double = NodeDouble()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            body = self.rfile.read(length)
            known = self.headers["authorization"] == f"Bearer {TOKEN}"
            if known:  # else it is another test's, which looks for a node that had this port before
                double.asked.append((self.command, self.path, json.loads(body) if body else None))
            path = self.path.partition("?")[0]
            status, value = double.answers.get(path, (404, {"error": "no such path"})) if known else (401, {})
            value = value() if callable(value) else value
            text = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = answer  # noqa: N815 -- the base class's names

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    double.port = server.server_address[1]
    write_control(config_file.parent / "app.db", double.port)
    yield double
    server.shutdown()
    thread.join()
    server.server_close()


def write_control(db_path: Path, port: int, token: str = TOKEN) -> None:
    """Write the control file of a node that listens at ``port``."""
    folder = make_folder(folder_for(db_path))
    (folder / "control.json").write_text(json.dumps({"port": port, "token": token, "pid": 4242}))
