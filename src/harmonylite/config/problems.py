"""What is wrong with a configuration: one line for each fault, all of them at once.

Invariant: a line names file and line (or variable, or flag), the dotted key, what was wrong and what to do; a value is
shown only where the key can't hold a secret.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

from harmonylite.config.reading import Fault, Name
from harmonylite.config.secret_text import redact
from harmonylite.errors import ConfigError

FEW = 8
"""Keys of a section that are all named where none is near."""


@dataclass(frozen=True, slots=True, order=True)
class KeySource:
    """``place``: file, variable or flag; "" = nowhere. ``line``: counted from 1; 0 = unknown or without meaning."""

    place: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.place}:{self.line}" if self.line else self.place


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """``what`` continues after the key: "is not …; write …"."""

    source: KeySource
    key: str
    what: str

    def __str__(self) -> str:
        where = f"{self.source}: " if self.source.place else ""
        return f"{where}{self.key} {self.what}"


def raise_all(problems: Iterable[Problem]) -> None:
    """Raise one ConfigError that lists every problem; nothing when there is none."""
    found = sorted(set(problems))
    if not found:
        return
    if len(found) == 1:
        raise ConfigError(str(found[0]))
    lines = "\n".join(f"  {problem}" for problem in found)
    raise ConfigError(f"the configuration has {len(found)} faults:\n{lines}")


def unknown_key(source: KeySource, written: Name, known: list[Name], tables: list[Name]) -> Problem:
    """Return the problem of an unknown key, with the nearest known one."""
    return Problem(source, ".".join(written), f"is unknown; {_nearest(written, known, tables)}")


def _nearest(written: Name, known: list[Name], tables: list[Name]) -> str:
    section, last = written[:-1], written[-1]
    beside = {name[-1]: name for name in (*known, *tables) if name and name[:-1] == section}
    if close := get_close_matches(last.lower(), beside, n=1, cutoff=0.6):
        return f"did you mean {'.'.join(beside[close[0]])}?"
    if elsewhere := [name for name in known if name[-1] == last]:
        return _belongs(elsewhere[0])
    by_name = {".".join(name): name for name in tables if name and name != section}
    if close := get_close_matches(".".join(written), by_name, n=1, cutoff=0.75):
        return f"did you mean {close[0]}?"
    if close := get_close_matches(last, [name[-1] for name in known], n=1, cutoff=0.8):
        return _belongs(next(name for name in known if name[-1] == close[0]))
    if section and 0 < len(beside) <= FEW:
        return f"remove it ([{'.'.join(section)}] has {', '.join(beside)})"
    return "remove it (docs/configuration.md lists every key)"


def _belongs(name: Name) -> str:
    if len(name) == 1:
        return f"did you mean {name[0]} at the top of the file, before the first [section]?"
    return f"did you mean {name[-1]} in [{'.'.join(name[:-1])}]?"


def of_value(fault: Fault, name: Name, source: KeySource, *, secret: bool) -> Problem:
    """Return the problem of a value that does not fit; ``secret``: it is not shown."""
    shown = "" if secret or fault.value is None else f"= {redact(repr(fault.value))} "
    return Problem(source, ".".join(name), shown + fault.what)
