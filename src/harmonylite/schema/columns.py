"""The columns in the text of a CREATE TABLE statement, as SQLite keeps it.

Invariant: a column's text is taken whole, with its quotes, parentheses and comments, and never rewritten.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from harmonylite.schema.names import folded
from harmonylite.schema.sql import quote

_TOKEN = re.compile(
    r"""
    --[^\n]*(?:\n|\Z) | /\*.*?(?:\*/|\Z)          # comments
  | '(?:[^']|'')*' | "(?:[^"]|"")*" | `(?:[^`]|``)*` | \[[^\]]*\]
  | [(),;] | \s+ | [^\s(),;'"`\[/-]+ | .
    """,
    re.VERBOSE | re.DOTALL,
)
REMEMBERED = 4096
"""So many texts are not read once more: an installation looks at all of a schema, several times."""
_CONSTRAINTS = {"CONSTRAINT", "PRIMARY", "UNIQUE", "CHECK", "FOREIGN"}
_CLOSES = {'"': '"', "`": "`", "'": "'", "[": "]"}


@dataclass(frozen=True)
class ColumnText:
    """One column of a statement. ``text``: its declaration; ``end``: where that ends in the statement; ``after``: where
    the name ends in the text.
    """

    name: str
    text: str
    end: int
    after: int = 0


def columns_of(sql: str) -> Mapping[str, ColumnText]:
    """Return the columns of a CREATE TABLE statement by name in lower case; none if it has no list of them."""
    return items_of(sql)[0]


def names_in(sql: str) -> list[str]:
    """Return the names of the columns of a CREATE TABLE statement, in their order."""
    return [column.name for column in columns_of(sql).values()]


@lru_cache(maxsize=REMEMBERED)
def items_of(sql: str) -> tuple[Mapping[str, ColumnText], Sequence[str], int, int]:
    """Return columns as `columns_of`, the constraints of the table, and where the list of both begins and ends."""
    found: dict[str, ColumnText] = {}
    constraints: list[str] = []
    begin = finish = 0
    for start, end in _items(sql):
        begin, finish = begin or start, end
        text = sql[start:end].strip()
        first = next(iter(tokens_of(text)), "")
        if first.upper() in _CONSTRAINTS:
            constraints.append(text)
        elif first:
            name = unquoted(first)
            found[folded(name)] = ColumnText(
                name, text, start + len(sql[start:end].rstrip()), text.index(first) + len(first)
            )
    return found, constraints, begin, finish


def tokens_of(text: str) -> list[str]:
    """Return the tokens of a text, without space and comments."""
    return [part for part in _TOKEN.findall(text) if not _is_space(part)]


def added(old: str | None, new: str) -> list[ColumnText]:
    """Return the columns of ``new`` that ``old`` lacks; ``old`` None: there was no table."""
    before = columns_of(old) if old is not None else {}
    return [column for name, column in columns_of(new).items() if name not in before]


def widened(sql: str, columns: Sequence[ColumnText]) -> str:
    """Return a CREATE TABLE statement with those of ``columns`` appended that it lacks."""
    mine = columns_of(sql)
    missing = [column.text for column in columns if folded(column.name) not in mine]
    if not mine or not missing:
        return sql
    place = max(column.end for column in mine.values())
    return sql[:place] + "".join(f", {text}" for text in missing) + sql[place:]


def with_default(column: ColumnText, other: ColumnText) -> str:
    """Return the declaration of a column with the default that ``other`` has, or without one."""
    mine, theirs = _default(column.text), _default(other.text)
    wanted = "" if theirs is None else other.text[slice(*theirs)]
    if mine is not None:
        start, end = mine
        return column.text if column.text[start:end] == wanted else column.text[:start] + wanted + column.text[end:]
    return f"{column.text} {wanted}" if wanted and "AS" not in map(str.upper, tokens_of(column.text)) else column.text


def _default(text: str) -> tuple[int, int] | None:
    """Return where the default is in a declaration: the word, and a literal, a signed number or a parenthesis."""
    parts = [match for match in _TOKEN.finditer(text) if not _is_space(match[0])]
    for place, word in enumerate(parts[:-1]):
        if place and word[0].upper() == "DEFAULT" and _depth(parts[:place]) == 0:
            end = place + 1
            if parts[end][0] in ("+", "-", "x", "X") and end + 1 < len(parts):  # a sign, or a blob
                end += 1
            while _depth(parts[place : end + 1]) > 0 and end + 1 < len(parts):
                end += 1
            return word.start(), parts[end].end()
    return None


def without_check(text: str) -> str:
    """Return a declaration without its CHECK constraints."""
    parts = [match for match in _TOKEN.finditer(text) if not _is_space(match[0])]
    for place, word in enumerate(parts):
        if word[0].upper() == "CHECK" and _depth(parts[:place]) == 0:
            named = place > 1 and parts[place - 2][0].upper() == "CONSTRAINT"
            end = place + 1
            while end + 1 < len(parts) and _depth(parts[place : end + 1]) > 0:
                end += 1
            start = parts[place - 2 if named else place].start()
            return without_check(text[:start].rstrip() + text[parts[end].end() :])
    return text


def _depth(parts: Sequence[re.Match[str]]) -> int:
    return sum((part[0] == "(") - (part[0] == ")") for part in parts)


def is_one(text: str) -> bool:
    """Return whether ``text`` declares one column and nothing that ends the statement around it."""
    depth = 0
    for part in _TOKEN.findall(text):
        depth += (part == "(") - (part == ")")
        if depth < 0 or part == ";" or (part == "," and not depth) or part.startswith(("--", "/*")):
            return False
    return depth == 0 and bool(text.strip())


def _items(sql: str) -> Iterator[tuple[int, int]]:
    """Yield the start and the end of each column and constraint."""
    depth = start = 0
    for match in _TOKEN.finditer(sql):
        part = match[0]
        if part == "(":
            depth += 1
            if depth == 1:
                start = match.end()
        elif part == ")":
            depth -= 1
            if depth == 0:
                yield start, match.start()
                return
        elif part == "," and depth == 1:
            yield start, match.start()
            start = match.end()


def on_table(sql: str, table: str) -> str:
    """Return the statement that makes the same index on a table called ``table``."""
    words = [match for match in _TOKEN.finditer(sql) if not _is_space(match[0])]
    for word, name in pairwise(words):
        if word[0].upper() == "ON":
            return sql if folded(unquoted(name[0])) == folded(table) else _put(sql, name, quote(table))
    return sql


def virtual_called(sql: str, table: str) -> str:
    """Return the statement, as SQLite keeps it, that makes the same virtual table under another name."""
    name = [match for match in _TOKEN.finditer(sql) if not _is_space(match[0])][3]
    return sql if folded(unquoted(name[0])) == folded(table) else _put(sql, name, quote(table))


def _put(sql: str, place: re.Match[str], text: str) -> str:
    return sql[: place.start()] + text + sql[place.end() :]


def _is_space(part: str) -> bool:
    return not part.strip() or part.startswith(("--", "/*"))


def unquoted(part: str) -> str:
    """Return the name that a token spells."""
    close = _CLOSES.get(part[0])
    if close is None:
        return part
    inner = part[1:-1]
    return inner if close == "]" else inner.replace(close * 2, close)
