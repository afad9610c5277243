"""Several databases in one process: `[[database]]`, each with settings of its own over those of the file.

Invariant: each database's `Settings` is as complete and valid as that of a process with one. What the process has once,
such as its way to NATS, no entry can set; and no two entries share a file or a stream.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harmonylite.config.layers import KEYS, Layers
from harmonylite.config.problems import KeySource, Problem
from harmonylite.config.settings import Settings

PREFIXES = (("nats", "subject_prefix"), ("nats", "stream_prefix"))
"""What distinguishes the streams of one database from those of another: the name of the database is added to it."""
SHARED = ("node_id", "nats", "extensions", "logging", "prometheus", "health_check", "page", "sleep_timeout")
"""Keys and sections of the whole process."""
PER_DATABASE = ("db_path", "feed")
"""Keys and sections that have no meaning for several databases at once."""

_NAME = re.compile(r"[A-Za-z0-9_-]{1,32}")


@dataclass(frozen=True, slots=True)
class DatabaseEntry:
    """A ``[[database]]`` of the file ``place``, the ``number``-th."""

    place: str
    number: int
    given: Mapping[str, Any]

    @property
    def name(self) -> str:
        """What it is called; "" where that can't be used."""
        name = self.given.get("name")
        return name if isinstance(name, str) and _NAME.fullmatch(name) else ""

    @property
    def source(self) -> KeySource:
        """Where its keys come from."""
        return KeySource(f"{self.place}, [[database]] {self.name or self.number}")

    def over(self, whole: Layers) -> Layers:
        """Return the layers of this database: its own keys over those of the file; no values where it has no file."""
        if not self.name:
            what = "is not a name; write 1 to 32 letters, digits, - and _"
            return Layers(problems=[Problem(self.source, "name", what)])
        if "db_path" not in self.given:
            return Layers(problems=[Problem(self.source, "db_path", "is not set; name the SQLite file to replicate")])
        made = Layers(dict(whole.values), dict(whole.sources))
        own = Layers()
        own.add_entry({key: value for key, value in self.given.items() if key != "name"}, self.source)
        made.problems += own.problems
        for name, value in own.values.items():
            if name[0] in SHARED and name not in PREFIXES:
                what = "belongs to the whole process; write it before the first [[database]]"
                made.problems.append(Problem(self.source, ".".join(name), what))
            made.values[name], made.sources[name] = value, self.source
        for name in PREFIXES:
            if name not in own.values:
                base = whole.values.get(name, KEYS[name].default)
                made.values[name] = f"{base}-{self.name}" if isinstance(base, str) else base
        return made


def entries(layers: Layers) -> list[DatabaseEntry]:
    """Return the ``[[database]]`` of the file, in its order."""
    return [DatabaseEntry(layers.file, number, given) for number, given in enumerate(layers.databases, start=1)]


def misplaced(layers: Layers) -> Iterator[Problem]:
    """Yield the keys beside ``[[database]]`` that belong into one, or nowhere."""
    for name in layers.values:
        if name[0] in PER_DATABASE:
            what = "can't be shared by several databases; write it in each [[database]]"
            yield Problem(layers.sources[name], ".".join(name), what)
        elif name == ("sleep_timeout",) and layers.values[name]:
            what = "has no meaning for several databases; remove it"
            yield Problem(layers.sources[name], "sleep_timeout", what)


def shared(found: Sequence[tuple[DatabaseEntry, Settings]]) -> Iterator[Problem]:
    """Yield what two databases have in common and must not."""
    given: dict[tuple[str, str], DatabaseEntry] = {}
    for entry, settings in found:
        for key, value in _unique(entry, settings):
            if (other := given.setdefault((key, value), entry)) is not entry:
                what = f"= {value!r} is that of [[database]] {other.name or other.number}, too"
                yield Problem(entry.source, key, what)


def _unique(entry: DatabaseEntry, settings: Settings) -> Iterator[tuple[str, str]]:
    yield "name", entry.name
    yield "db_path", str(settings.db_path)
    yield "nats.stream_prefix", settings.nats.stream_prefix
    yield "nats.subject_prefix", settings.nats.subject_prefix
