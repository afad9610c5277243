"""Which keys a nats-server configuration file sets, so that ours never conflict with the user's.

Invariant: this only reads keys; nats-server itself parses the file, and its own messages name file and line. A file
that can't be read through is taken for one without keys.

Grammar: https://docs.nats.io/running-a-nats-service/configuration (a relaxed JSON with comments and includes).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

_TOKEN = re.compile(
    r"""(?P<skip>[ \t\r]+|(?:\#|//)[^\n]*)
      | (?P<end>[\n,;])
      | (?P<open>[{\[])
      | (?P<close>[}\]])
      | (?P<assign>[:=])
      | (?P<block>\([^)]*\))
      | "(?P<double>(?:\\.|[^"\\])*)"
      | '(?P<single>[^']*)'
      | (?P<bare>[^\s{}\[\],;:=\#]+(?:(?<!:)[:=][^\s{}\[\],;]+)*)""",
    re.VERBOSE,
)

DEPTH = 2
"""How deep keys are listed: ``jetstream.store_dir``, but not what is inside a remote of ``leafnodes``."""


def conf_keys(path: Path) -> frozenset[str]:
    """Return the keys that ``path`` sets, lower case, those of blocks as ``block.key`` too; includes are followed."""
    try:
        return frozenset(_keys(path, set()))
    except (OSError, UnicodeDecodeError):
        return frozenset()


def _keys(path: Path, seen: set[Path]) -> Iterator[str]:
    if path in seen:
        return
    seen.add(path)
    names: list[str] = []
    key, inside_list = "", 0
    for kind, text in _tokens(path.read_text(encoding="utf-8")):
        if kind == "open":
            inside_list += text == "["
            names.append(key)
            key = ""
        elif kind == "close":
            inside_list -= text == "]"
            key = names.pop() if names else ""
        elif kind == "end":
            key = ""
        elif kind == "word" and not inside_list:
            if key == "include":
                for found in _keys(path.parent / text, seen):
                    yield ".".join([*filter(None, names), found])
            elif not key:
                key = text.partition(":")[0].partition("=")[0].lower()
                blocks = [name for name in names if name]  # a file in plain JSON has a block without a name around all
                if key != "include" and len(blocks) < DEPTH:
                    yield ".".join([*blocks, key])


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            position += 1
            continue
        position = match.end()
        kind = match.lastgroup or ""
        if kind in ("double", "single", "bare", "block"):
            yield "word", match[kind]
        elif kind not in ("skip", "assign"):
            yield kind, match[kind]
