"""On which line of a TOML text each key is; `tomllib` does not say.

Invariant: the text was read by `tomllib` before, so it is valid TOML and this scanner only has to find its way.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable

Path = tuple[str, ...]

_BLANK = re.compile(r"(?:\s|#[^\n]*)*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(r'"""(?:\\.|[^\\])*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:\\.|[^"\\])*"|\'[^\']*\'', re.DOTALL)
_SCALAR = re.compile(r"[^,\]}\n#]*")


def key_lines(text: str) -> dict[Path, int]:
    """Return the line, counted from 1, where each key and table first appears."""
    return _Scanner(text).scan()


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._lines: dict[Path, int] = {}

    def scan(self) -> dict[Path, int]:
        table: Path = ()
        self._skip()
        while self._at < len(self._text):
            if self._peek("["):
                table = self._header()
            else:
                self._pair(table)
            self._skip()
        return self._lines

    def _header(self) -> Path:
        brackets = 2 if self._peek("[[") else 1
        self._at += brackets
        table = self._key(())
        self._at += brackets
        return table

    def _pair(self, table: Path) -> None:
        path = self._key(table)
        self._at += 1  # the equals sign
        self._skip()
        self._value(path)

    def _key(self, table: Path) -> Path:
        path, line = table, 1 + self._text.count("\n", 0, self._at)
        while True:
            self._skip()
            path = (*path, self._piece())
            self._lines.setdefault(path, line)
            self._skip()
            if not self._peek("."):
                return path
            self._at += 1

    def _piece(self) -> str:
        quoted = self._text[self._at] in "\"'"
        match = (_STRING if quoted else _BARE).match(self._text, self._at)
        assert match, "tomllib accepted this text"
        self._at = match.end()
        return str(tomllib.loads(f"key = {match[0]}")["key"]) if quoted else match[0]

    def _value(self, path: Path) -> None:
        if self._peek("{"):
            self._items("}", lambda: self._pair(path))
        elif self._peek("["):
            self._items("]", lambda: self._value(path))
        else:
            match = _STRING.match(self._text, self._at) or _SCALAR.match(self._text, self._at)
            assert match, "an empty match is one"
            self._at = match.end()

    def _items(self, end: str, item: Callable[[], None]) -> None:
        self._at += 1
        self._skip()
        while not self._peek(end):
            item()
            self._skip()
            if self._peek(","):
                self._at += 1
                self._skip()
        self._at += 1

    def _peek(self, piece: str) -> bool:
        return self._text.startswith(piece, self._at)

    def _skip(self) -> None:
        match = _BLANK.match(self._text, self._at)
        assert match, "an empty match is one"
        self._at = match.end()
