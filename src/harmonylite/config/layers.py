"""Where values come from: file, environment, command line; each layer as flat dotted keys with its source.

Invariant: after this step every key is a known one in its canonical spelling; all others have become problems.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harmonylite.config.problems import KeySource, Problem, unknown_key
from harmonylite.config.reading import Name
from harmonylite.config.section import Key, Section, keys, sections
from harmonylite.config.settings import Settings
from harmonylite.config.toml_lines import key_lines
from harmonylite.errors import ConfigError

ENVIRONMENT_PREFIX = "HARMONYLITE_"


@dataclass(slots=True)
class Layers:
    """Values by key, the strongest layer's; where each came from; what was wrong so far. ``databases``: what each
    ``[[database]]`` of ``file`` says (`harmonylite.config.databases`).
    """

    values: dict[Name, Any] = field(default_factory=dict)
    sources: dict[Name, KeySource] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    databases: list[dict[str, Any]] = field(default_factory=list)
    file: str = ""

    def add_file(self, path: Path) -> None:
        """Read the TOML file ``path``; raise ConfigError when it can't be read at all."""
        text = _text(path)
        raw, lines = _parsed(path, text), key_lines(text)
        raw = self._without_databases(raw, KeySource(str(path), lines.get(("database",), 0)))
        found: dict[Name, tuple[Any, KeySource]] = {}
        for written, value in _flat(_by_key(raw), Settings, ()):
            line = lines.get(written) or min((n for at, n in lines.items() if at[2:] == written[1:2]), default=0)
            source = KeySource(str(path), line)
            if name := self._known(written, source):
                self._once(found, name, value, source)
        self._take(found)

    def add_environment(self, environment: Mapping[str, str]) -> None:
        """Read ``HARMONYLITE_SECTION__KEY`` variables."""
        found: dict[Name, tuple[Any, KeySource]] = {}
        for variable in sorted(environment):
            if variable.startswith(ENVIRONMENT_PREFIX):
                source = KeySource(variable)
                written = tuple(variable.removeprefix(ENVIRONMENT_PREFIX).lower().split("__"))
                if meant := SINGLE_UNDERSCORES.get(variable):
                    what = f"is unknown; did you mean {meant}, with two underscores?"
                    self.problems.append(Problem(source, ".".join(written), what))
                elif name := self._known(written, source):
                    self._once(found, name, _from_text(name, environment[variable]), source)
        self._take(found)

    def add_flags(self, overrides: Mapping[str, Any]) -> None:
        """Take what the command line says: dotted keys, whose last piece names the flag."""
        for dotted, value in overrides.items():
            source = KeySource("-" + dotted.rpartition(".")[2].replace("_", "-"))
            if name := self._known(tuple(dotted.split(".")), source):
                self.values[name], self.sources[name] = value, source

    def add_program(self, given: Mapping[str, Any]) -> None:
        """Take what a program says that runs a node: keys and tables as in the file, in Python's types."""
        self.add_entry(given, KeySource("Config"))

    def add_entry(self, given: Mapping[str, Any], source: KeySource) -> None:
        """Take keys and tables, all of them from ``source``."""
        found: dict[Name, tuple[Any, KeySource]] = {}
        for written, value in _flat(_by_key(dict(given)), Settings, ()):
            if name := self._known(written, source):
                self._once(found, name, value, source)
        self._take(found)

    def nested(self) -> dict[str, Any]:
        """Return the values as nested tables."""
        whole: dict[str, Any] = {}
        for name, value in self.values.items():
            table = whole
            for piece in name[:-1]:
                table = table.setdefault(piece, {})
            table[name[-1]] = value
        return whole

    def _without_databases(self, raw: dict[str, Any], source: KeySource) -> dict[str, Any]:
        found = raw.get("database", [])
        if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
            what = "is not a list of tables; write [[database]] and its keys below"
            self.problems.append(Problem(source, "database", what))
            found = []
        self.databases, self.file = found, source.place
        return {key: value for key, value in raw.items() if key != "database"}

    def _known(self, written: Name, source: KeySource) -> Name | None:
        if name := SPELLINGS.get(written):
            return name
        if written in SECTIONS:
            what = "is a table, not a value" if written else "is empty"
            self.problems.append(
                Problem(source, ".".join(written), f"{what}; write [{'.'.join(written)}] and its keys below")
            )
        else:
            self.problems.append(unknown_key(source, written, list(SPELLINGS), list(SECTIONS)))
        return None

    def _once(self, found: dict[Name, tuple[Any, KeySource]], name: Name, value: Any, source: KeySource) -> None:
        if name in found and found[name][0] != value:
            other = found[name][1]
            what = f"is given twice in two spellings with different values (also at {other}); keep one"
            self.problems.append(Problem(source, ".".join(name), what))
        found.setdefault(name, (value, source))

    def _take(self, found: Mapping[Name, tuple[Any, KeySource]]) -> None:
        for name, (value, source) in found.items():
            self.values[name], self.sources[name] = value, source


def _spellings() -> dict[Name, Name]:
    found = {}
    for each in keys(Settings):
        found[each.path] = each.path
        if each.also:
            found[(*each.path[:-1], each.also)] = each.path
    return found


KEYS: dict[Name, Key] = {each.path: each for each in keys(Settings)}
SPELLINGS = _spellings()
SINGLE_UNDERSCORES = {
    f"{ENVIRONMENT_PREFIX}{'_'.join(name)}".upper(): f"{ENVIRONMENT_PREFIX}{'__'.join(name)}".upper()
    for name in SPELLINGS
    if len(name) > 1
}
"""A likely misspelling of a variable for a key in a section, and the right form."""
SECTIONS: dict[Name, type[Section]] = dict(sections(Settings))


PER_TABLE = ("conflict", "identity")
"""Keys of [tables] that say something of each table by its name, and may be in a section of that table's, too."""


def _by_key(raw: dict[str, Any]) -> dict[str, Any]:
    """Return ``raw`` with what sections like [tables.NAME] say under the keys of [tables]; unknown keys stay."""
    tables = raw.get("tables")
    if not isinstance(tables, dict):
        return raw
    known = SECTIONS[("tables",)].known
    found = {name: dict(value) if isinstance(value, dict) else value for name, value in tables.items()}
    for name, section in tables.items():
        if name in known or not isinstance(section, dict):
            continue
        for key in PER_TABLE:
            if key in section and isinstance(found.setdefault(key, {}), dict) and name not in found[key]:
                found[key][name] = found[name].pop(key)
        if not found[name]:
            del found[name]
    return {**raw, "tables": found}


def _flat(raw: Mapping[str, Any], model: type[Section], prefix: Name) -> list[tuple[Name, Any]]:
    flat: list[tuple[Name, Any]] = []
    for name, value in raw.items():
        path = (*prefix, name)
        if isinstance(value, dict) and path in SECTIONS:
            flat += _flat(value, SECTIONS[path], path)
        elif isinstance(value, dict) and prefix == ("tables",) and name not in model.known:
            flat += [((*path, key), each) for key, each in value.items()]
        else:
            flat.append((path, value))
    return flat


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        advice = "give the right path with -config, or write one with `harmonylite config init`"
        raise ConfigError(f"configuration file {path} does not exist", advice=advice) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"configuration file {path} is not UTF-8 at byte {error.start}") from None
    except OSError as error:
        raise ConfigError(f"configuration file {path} can't be read: {error.strerror}") from None


def _parsed(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"configuration file {path} is not TOML: {error}") from None


def _from_text(name: Name, text: str) -> Any:
    kind = KEYS[name].type
    if kind is bool:
        return {
            "1": True,
            "true": True,
            "yes": True,
            "on": True,
            "0": False,
            "false": False,
            "no": False,
            "off": False,
        }.get(text.strip().lower(), text)
    if kind is int and text.strip().lstrip("+-").isdecimal():
        return int(text)
    if text.strip()[:1] in ("[", "{") and kind is not str:
        try:
            return tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            return text
    return text
