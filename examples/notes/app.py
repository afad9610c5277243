"""Notes: a small web application on an SQLite file. It knows nothing of HarmonyLite.

python app.py notes.db 8001
"""

from __future__ import annotations

import html
import sqlite3
import sys
import uuid
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

SCHEMA = "CREATE TABLE IF NOT EXISTS note(id TEXT PRIMARY KEY, text TEXT NOT NULL)"
FORM = (
    '<form method="post"><input name="id" type="hidden" value="{id}">'
    '<input name="text" value="{text}"><button>{verb}</button></form>'
)
PAGE = '<!doctype html><meta charset="utf-8"><title>Notes</title><h1>Notes in {file}</h1>{notes}{form}'


class Notes(BaseHTTPRequestHandler):
    """Shows all notes; takes new ones, and new texts of old ones."""

    database = ""

    def _sql(self, statement: str, *values: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.database, timeout=10)) as connection, connection:
            return connection.execute(statement, values).fetchall()

    def do_GET(self) -> None:  # the library's name
        """Show the page, or the notes as lines of text at /notes."""
        found = self._sql("SELECT id, text FROM note ORDER BY id")
        if self.path == "/notes":
            self._send("".join(f"{text}\n" for _, text in found), "text/plain")
            return
        notes = "".join(FORM.format(id=html.escape(i), text=html.escape(text), verb="Change") for i, text in found)
        form = FORM.format(id="", text="", verb="Add")
        self._send(PAGE.format(file=html.escape(self.database), notes=notes, form=form), "text/html")

    def do_POST(self) -> None:  # the library's name
        """Add or change a note."""
        fields = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        text, known = fields.get("text", [""])[0], fields.get("id", [""])[0]
        self._sql(
            "INSERT INTO note(id, text) VALUES(?, ?) ON CONFLICT(id) DO UPDATE SET text = excluded.text",
            known or uuid.uuid4().hex,
            text,
        )
        self.send_response(303)
        self.send_header("Location", "/")
        self.end_headers()

    def _send(self, text: str, kind: str) -> None:
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # the library's name
        """Keep the terminal quiet."""


def main(database: str, port: str) -> None:
    """Make the table where it is missing, and serve."""
    Notes.database = database
    with closing(sqlite3.connect(database)) as connection:
        connection.execute(SCHEMA)
    ThreadingHTTPServer(("127.0.0.1", int(port)), Notes).serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
